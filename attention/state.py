"""A state: what later frames need of frames that are already painted, taken out of their run.

It is frozen and lies in system memory. So it can be passed on, kept and written to a file without
keeping the run or the model that made it alive.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from .bank import Bank, Key, readable_size
from .layers import Layer
from .storage import Stored

StoredTokens = Mapping[Key, Mapping[int, tuple[Stored, ...]]]
Some = TypeVar("Some", bound="State")


@dataclass(frozen=True, repr=False, eq=False)
class State:
    """The bank of a run that has painted the frames of a clip up to some frame.

    frames: how many frames are painted, which is also the number of the next frame. scene: the
    first frame of the scene that the last painted frame belongs to. noise_levels: the noise levels
    of the model evaluations of every frame, in order. stored: hidden states in system memory, by
    address and then by frame.
    """

    frames: int
    scene: int
    noise_levels: tuple[float, ...]
    stored: StoredTokens

    @property
    def nbytes(self) -> int:
        """The number of bytes of the hidden states."""
        return sum(
            stored.nbytes
            for frames in self.stored.values()
            for tokens in frames.values()
            for stored in tokens
        )

    @property
    def held(self) -> frozenset[int]:
        """The frames of which something is kept."""
        return frozenset(frame for frames in self.stored.values() for frame in frames)

    @property
    def layers(self) -> frozenset[Layer]:
        """The layers of which something is kept."""
        return frozenset(key.layer for key in self.stored)

    def moved(self: Some, frame: int) -> Some:
        """Return a state for frames that begin at a later number, after a gap.

        frame: the number of the first frame after the gap, not below `frames`. The frames of the
        gap count as painted. The last frame before the gap serves as the previous frame of the
        first frame after it.
        """
        last, stand_in = self.frames - 1, frame - 1
        if stand_in == last:
            return self
        stored = {
            key: {**frames, stand_in: frames[last]} if last in frames else frames
            for key, frames in self.stored.items()
        }
        return replace(self, frames=frame, stored=stored)

    def __repr__(self) -> str:
        held = ", ".join(map(str, sorted(self.held))) or "none"
        return (
            f"State({self.frames} frames painted, kept of them: {held}; {len(self.layers)} layers, "
            f"{len(self.noise_levels)} steps, {readable_size(self.nbytes)})"
        )


def frozen(bank: Bank, frames: Collection[int] | None = None) -> StoredTokens:
    """Return what a bank holds of some frames, or of all, in system memory."""
    cpu = torch.device("cpu")
    found = {
        key: {
            frame: tuple(stored.moved(cpu) for stored in bank.stored(key, frame))
            for frame in bank.frames(key)
            if frames is None or frame in frames
        }
        for key in bank.addresses()
    }
    return {key: tokens for key, tokens in found.items() if tokens}
