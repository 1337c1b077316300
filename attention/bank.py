"""The bank: hidden states of frames already painted, kept for frames still to come."""

from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor

from .layers import Layer

# What one frame leaves at one address: one (tokens, channels) tensor that keys and values
# are both projected from, or two where another patch feeds them differently.
Tokens = tuple[Tensor, ...]


class Key(NamedTuple):
    """Address of hidden states: which model evaluation, layer, cond entry and token count.

    step: ordinal of the model evaluation within a sampling (a noise level is no address:
        two-evaluation samplers visit one twice).
    entry: identity of the conditioning that was run, the same for every frame.
    tokens: token count, so that a cropped area never meets a full frame.
    """

    step: int
    layer: Layer
    entry: Hashable
    tokens: int


class Bank:
    """Hidden states by address and frame: STORE writes a copy, LOAD reads it back."""

    def __init__(self) -> None:
        self._kept: dict[Key, dict[int, Tokens]] = {}
        self.nbytes = 0

    def store(self, key: Key, frame: int, tokens: Tokens) -> None:
        """Keep a copy of a frame's tokens, each (tokens, channels).

        Raises ValueError if the frame is already there: a second write at one address
        means that two different evaluations were taken for the same one.
        """
        frames = self._kept.setdefault(key, {})
        if frame in frames:
            raise ValueError(f"frame {frame} is already stored at {key}")
        # A view would keep the whole batch alive, and the owner may change it in place.
        frames[frame] = tuple(tensor.detach().clone() for tensor in tokens)
        self.nbytes += sum(tensor.nbytes for tensor in tokens)

    def load(self, key: Key) -> dict[int, Tokens]:
        """Return what is kept at an address, by frame; empty if nothing is."""
        return self._kept.get(key, {})

    def drop(self, key: Key, frame: int) -> None:
        """Forget one frame at an address. Raises KeyError if it is not there."""
        tokens = self._kept[key].pop(frame)
        self.nbytes -= sum(tensor.nbytes for tensor in tokens)

    def __repr__(self) -> str:
        layers = {key.layer for key in self._kept}
        steps = {key.step for key in self._kept}
        devices = {
            str(tensor.device)
            for frames in self._kept.values()
            for tokens in frames.values()
            for tensor in tokens
        }
        size = readable_size(self.nbytes)
        where = ", ".join(sorted(devices)) or "empty"
        return f"Bank({len(layers)} layers, {len(steps)} steps, {size}, {where})"


def readable_size(nbytes: int) -> str:
    """Write a number of bytes in the largest binary unit that leaves at least 1."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
