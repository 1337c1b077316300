"""How a bank keeps tokens: on which device, and in which precision."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

AS_COMPUTED = "as computed"
INT8 = "int8 per token"
PRECISIONS = (AS_COMPUTED, INT8)
STEPS = 127  # of an int8, on either side of 0


@dataclass(frozen=True)
class Stored:
    """One kept tensor, (tokens, channels).

    values: the numbers in their stored form. scale: the scale of each token, (tokens, 1), or None
    if the values are unchanged. device, dtype: the device and dtype of the original.
    """

    values: Tensor
    scale: Tensor | None
    device: torch.device
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """The number of bytes that it takes."""
        return self.values.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def moved(self, target: torch.device) -> "Stored":
        """Return this tensor kept on a device; nothing is copied if it is there already."""
        scale = None if self.scale is None else self.scale.to(target)
        return replace(self, values=self.values.to(target), scale=scale)

    def computed_on(self, device: torch.device) -> "Stored":
        """Return this tensor with another device that it is restored to."""
        return replace(self, device=device)

    def restored(self) -> Tensor:
        """Return the original tensor, apart from what was lost by rounding."""
        values = self.values.to(self.device)
        if self.scale is None:
            return values
        return (values * self.scale.to(self.device)).to(self.dtype)


@dataclass(frozen=True)
class Storage:
    """Where and how precisely a bank keeps tokens.

    device: the device that keeps them; None means the device that computes them. precision: one
    of PRECISIONS. int8 keeps one scale per token and takes half the bytes of fp16 and a quarter of
    those of fp32. rounds_there: whether tokens are rounded on the device that keeps them. Rounding
    on the device that computes them is faster, because fewer bytes travel, but takes some memory
    there.
    """

    device: torch.device | None = None
    precision: str = AS_COMPUTED
    rounds_there: bool = False

    def in_system_memory(self) -> "Storage":
        """Return a storage of the same precision that takes no memory of the computing device."""
        return replace(self, device=torch.device("cpu"), rounds_there=True)

    @property
    def needs_device(self) -> bool:
        """Whether keeping tokens takes memory of the device that computes."""
        rounds = self.precision != AS_COMPUTED and not self.rounds_there
        return self.device != torch.device("cpu") or rounds

    def keep(self, tokens: Tensor) -> Stored:
        """Keep a copy of tokens, (tokens, channels)."""
        tokens = tokens.detach()
        device, dtype = tokens.device, tokens.dtype
        target = self.device or device
        if self.precision == AS_COMPUTED:
            # A view would keep the whole batch alive, and the owner may change it in place.
            return Stored(tokens.to(target, copy=True), None, device, dtype)
        if self.rounds_there:
            tokens = tokens.to(target)
        largest = tokens.abs().amax(dim=-1, keepdim=True).float()  # (tokens, 1)
        scale = (largest / STEPS).clamp(min=torch.finfo(torch.float32).tiny)
        values = (tokens / scale).round().to(torch.int8)
        return Stored(values.to(target), scale.to(target), device, dtype)

    def bytes_per_token(self, channels: int, itemsize: int) -> int:
        """Return how many bytes one token takes. itemsize: the bytes of a number as computed."""
        return channels * itemsize if self.precision == AS_COMPUTED else channels + 4
