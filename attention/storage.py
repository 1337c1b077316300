"""How a bank keeps tokens: on which device, and how precisely."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .transfer import Lane

AS_COMPUTED = "as computed"
INT8 = "int8 per token"
PRECISIONS = (AS_COMPUTED, INT8)
STEPS = 127  # of an int8, on either side of 0


@dataclass(frozen=True)
class Stored:
    """One kept tensor, (tokens, channels).

    values: as they are kept. scale: of each token, (tokens, 1), or None if values are as they
    were. device, dtype: of the original. lane, complete: on which way they went to system
    memory, and what tells that they are there; None if they were copied at once.
    """

    values: Tensor
    scale: Tensor | None
    device: torch.device
    dtype: torch.dtype
    lane: Lane | None = None
    complete: torch.cuda.Event | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return sum(part.nbytes for part in self._parts)

    @property
    def _parts(self) -> list[Tensor]:
        return [self.values] if self.scale is None else [self.values, self.scale]

    def moved(self, target: torch.device) -> "Stored":
        """The same, kept on a device in ordinary memory; itself if it is there already."""
        if self.lane is not None:
            assert self.complete is not None
            self.complete.synchronize()
        # Page-locked memory is not to be held for longer than a run.
        copy = self.lane is not None
        values, *scale = (part.to(target, copy=copy) for part in self._parts)
        scales = scale[0] if scale else None
        return replace(self, values=values, scale=scales, lane=None, complete=None)

    def computed_on(self, device: torch.device) -> "Stored":
        """The same, restored to another device."""
        return replace(self, device=device)

    def restored(self) -> Tensor:
        """The tensor as it was, but for what its precision has lost."""
        return self.fetched()()

    def fetched(self) -> Callable[[], Tensor]:
        """Begin to bring it back, if that takes time; what is returned waits for it."""
        lane, complete = self.lane, self.complete
        if lane is None or complete is None:
            return lambda: self._exact([part.to(self.device) for part in self._parts])
        coming = [lane.back(part, complete) for part in self._parts]
        return lambda: self._exact([lane.take(*part) for part in coming])

    def _exact(self, parts: list[Tensor]) -> Tensor:
        """The tensor from its parts, which are where it was."""
        values, *scale = parts
        return (values * scale[0]).to(self.dtype) if scale else values


@dataclass(frozen=True)
class Storage:
    """Where and how precisely a bank keeps tokens.

    device: None for the device that computes them. precision: one of PRECISIONS. int8 keeps
    one scale per token, half the bytes of fp16 and a quarter of fp32.
    """

    device: torch.device | None = None
    precision: str = AS_COMPUTED

    def keep(self, tokens: Tensor, lane: Lane | None = None) -> Stored:
        """Keep a copy of tokens, (tokens, channels). lane: their way to where they are kept."""
        tokens = tokens.detach()
        device, dtype = tokens.device, tokens.dtype
        target = self.device or device
        if self.precision == AS_COMPUTED:
            parts = [tokens]
        else:
            largest = tokens.abs().amax(dim=-1, keepdim=True).float()  # (tokens, 1)
            scale = (largest / STEPS).clamp(min=torch.finfo(torch.float32).tiny)
            parts = [(tokens / scale).round().to(torch.int8), scale]
        if lane is not None:
            sent = [lane.out(part) for part in parts]
            parts, complete = [part for part, _ in sent], sent[-1][1]
        else:
            # A view would keep the whole batch alive, and the owner may change it in place.
            parts = [part.to(target, copy=part is tokens) for part in parts]
            complete = None
        values, *scales = parts
        return Stored(values, scales[0] if scales else None, device, dtype, lane, complete)

    def bytes_per_token(self, channels: int, itemsize: int) -> int:
        """Bytes that one token takes. itemsize: bytes of a number as computed."""
        return channels * itemsize if self.precision == AS_COMPUTED else channels + 4
