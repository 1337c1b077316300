"""The bank: hidden states of frames already painted, kept for frames still to come."""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, KeysView, Mapping, Set
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .layers import Layer
from .out_of_memory import is_out_of_memory
from .storage import Storage, Stored

log = logging.getLogger("crossframe")

# What one frame leaves at one address: one (tokens, channels) tensor that keys and values
# are both projected from, or two where another patch feeds them differently.
Tokens = tuple[Tensor, ...]


class Key(NamedTuple):
    """Address of hidden states: which model evaluation, layer, cond entry and token count.

    step: ordinal of the model evaluation within a sampling (a noise level is no address:
        two-evaluation samplers visit one twice).
    entry: identity of the conditioning that was run, the same for every frame.
    tokens: token count, so that a cropped area never meets a full frame.
    visit: how often the layer has been run on this entry before in the same evaluation. Another
        node may run the model several times in one evaluation, for example tile after tile.
    """

    step: int
    layer: Layer
    entry: Hashable
    tokens: int
    visit: int = 0


class Bank:
    """Hidden states by address and frame: STORE writes a copy, LOAD reads it back."""

    def __init__(self, storage: Storage = Storage()) -> None:  # noqa: B008  (frozen)
        self.storage = storage
        self.nbytes = 0
        self._kept: dict[Key, dict[int, tuple[Stored, ...]]] = {}

    def store(self, key: Key, frame: int, tokens: Tokens) -> None:
        """Keep a copy of a frame's tokens, each (tokens, channels).

        If the device has no memory left, these tokens and all later ones go to system memory.
        Raises ValueError if the frame is already there: a second write at one address means that
        two different evaluations were taken for the same one.
        """
        frames = self._kept.setdefault(key, {})
        if frame in frames:
            raise ValueError(f"frame {frame} is already stored at {key}")
        device = tokens[0].device
        self._put(frames, frame, device, lambda storage: map(storage.keep, tokens))

    def adopt(self, key: Key, kept: Mapping[int, tuple[Stored, ...]], device: torch.device) -> None:
        """Take over what another bank held at an address, unless this bank already has the address.

        device: the device that computes the tokens here.
        """
        if key in self._kept:
            return
        frames = self._kept[key] = {}
        for frame, tokens in kept.items():
            self._put(frames, frame, device, partial(_moved, tokens, device))

    def _put(
        self,
        frames: dict[int, tuple[Stored, ...]],
        frame: int,
        device: torch.device,
        make: Callable[[Storage], Iterable[Stored]],
    ) -> None:
        """Store what `make` returns, in system memory if the device has no memory left."""
        try:
            made = tuple(make(self.storage))
        except RuntimeError as error:
            if not self.storage.needs_device or not is_out_of_memory(error):
                raise
            made = ()
        if not made:  # outside the handler, which would keep the failed attempt's tensors alive
            self._leave_device(device)
            made = tuple(make(self.storage))
        frames[frame] = made
        self.nbytes += sum(stored.nbytes for stored in made)

    def _leave_device(self, device: torch.device) -> None:
        """Keep everything in system memory from now on, and log that."""
        log.warning(
            "Cross-frame attention: there is no memory left on %s for hidden states (the bank "
            "holds %s). The rest is kept in system memory, which is slower.",
            device,
            readable_size(self.nbytes),
        )
        self.storage = self.storage.in_system_memory()

    def addresses(self) -> KeysView[Key]:
        """Return all addresses as a view, which changes with the bank."""
        return self._kept.keys()

    def stored(self, key: Key, frame: int) -> tuple[Stored, ...]:
        """Return what is kept of a frame, in its stored form. Raises KeyError if nothing is."""
        return self._kept[key][frame]

    def frames(self, key: Key) -> Set[int]:
        """Return the frames that are kept at an address as a view, which changes with the bank."""
        return self._kept.get(key, {}).keys()

    def load(self, key: Key, frame: int) -> Tokens:
        """Return the tokens of a frame, on the device that computed them.

        Raises KeyError if nothing is kept of it.
        """
        return tuple(stored.restored() for stored in self.stored(key, frame))

    def drop(self, key: Key, frame: int) -> None:
        """Forget one frame at an address. Raises KeyError if it is not there."""
        self.nbytes -= sum(stored.nbytes for stored in self._kept[key].pop(frame))

    def __repr__(self) -> str:
        layers = {key.layer for key in self._kept}
        steps = {key.step for key in self._kept}
        devices = {
            str(stored.values.device)
            for frames in self._kept.values()
            for tokens in frames.values()
            for stored in tokens
        }
        size = readable_size(self.nbytes)
        where = ", ".join(sorted(devices)) or "empty"
        return f"Bank({len(layers)} layers, {len(steps)} steps, {size}, {where})"


def _moved(tokens: tuple[Stored, ...], device: torch.device, storage: Storage) -> Iterator[Stored]:
    """Yield tokens moved to where a storage keeps them, to be computed on a device."""
    for stored in tokens:
        yield stored.moved(storage.device or device).computed_on(device)


def readable_size(nbytes: int) -> str:
    """Write a number of bytes in the largest binary unit that leaves at least 1."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
