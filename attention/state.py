"""A state: what frames to come need of frames that are painted already, taken out of their run.

It is frozen and lies in system memory, so that it can be passed on, kept and written to a file
without holding anything of the run or the model that made it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from .bank import Bank, Key, readable_size
from .storage import Stored

StoredTokens = Mapping[Key, Mapping[int, tuple[Stored, ...]]]
Some = TypeVar("Some", bound="State")


@dataclass(frozen=True, repr=False, eq=False)
class State:
    """The bank of a run that has painted the frames of a clip up to some frame.

    frames: how many are painted; the next one has this number. scene: the frame that counts as
    the first one for the last of them. noise_levels: of the model evaluations of every frame,
    in order. stored: hidden states by address, then by frame, in system memory.
    """

    frames: int
    scene: int
    noise_levels: tuple[float, ...]
    stored: StoredTokens

    @property
    def nbytes(self) -> int:
        """Bytes of the hidden states."""
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

    def moved(self: Some, frame: int) -> Some:
        """Return a state for frames that begin at a later number, so that a gap lies between.

        frame: that number, not below `frames`. The frames of the gap count as painted. The first
        frame after the gap looks at the last frame before it as its previous frame.
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
        layers = {key.layer for key in self.stored}
        held = ", ".join(map(str, sorted(self.held))) or "none"
        return (
            f"State({self.frames} frames painted, kept of them: {held}; {len(layers)} layers, "
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
