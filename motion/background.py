"""A motion that is trusted in the background only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .motion import Motion
from .pair import PairMotion


@dataclass(frozen=True, eq=False)
class BackgroundMotion:
    """The motion of a clip, trusted where neither of two frames shows the foreground.

    Text2Video-Zero (Khachatryan et al. 2023, section 3.3.3, background smoothing) keeps the
    background of frames close to that of the first one in this way. See `Motion`.

    foreground: what is not to be held, from 0 to 1, (1, height, width) for all frames or (frames,
    height, width), of any size.
    """

    motion: Motion
    foreground: Tensor

    @property
    def frames(self) -> int:
        """See `Motion`."""
        return self.motion.frames

    @property
    def size(self) -> tuple[int, int]:
        """See `Motion`."""
        return self.motion.size

    @cached_property
    def fingerprint(self) -> str:
        """See `Motion`."""
        found = hashlib.sha256(f"{self.motion.fingerprint} {self.foreground.shape}".encode())
        for mask in self.foreground:
            found.update(mask.cpu().float().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def between(self, frame: int, other: int, grid: tuple[int, int] | None = None) -> PairMotion:
        """See `Motion`."""
        found = self.motion.between(frame, other, grid)
        here, there = (self._background(number, found.grid) for number in (frame, other))
        return replace(found, trust=found.trust * here * found.carry(there))

    def _background(self, frame: int, grid: tuple[int, int]) -> Tensor:
        """Return how much of each cell is background, (rows, columns).

        A cell counts as foreground as much as any pixel in it.
        """
        mask = self.foreground[frame if len(self.foreground) > 1 else 0]
        largest = torch.nn.functional.adaptive_max_pool2d(mask[None].cpu().float(), grid)[0]
        return 1 - largest.clamp(0, 1)
