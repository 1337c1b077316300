"""Estimators of the flow between two pictures, both ways at once.

They take pictures, (2, 3, h, w), RGB in 0..1, and return flows, (2, 2, h, w), x before y, in
pixels: the first leads from the first picture to the second, the second one back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .proposals import best_of
from .variational import coarse_to_fine, median, refined, resized, shrunk

BUILT_IN, RAFT = "built in", "RAFT"
METHODS = (BUILT_IN, RAFT)
LEAST_HALF = 8  # pixels; narrower pictures are not halved


class Estimator(Protocol):
    """Finds the flow between two pictures.

    name: of the method. longest_side: the size in pixels that it wants pictures to be shrunk to.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def longest_side(self) -> int: ...  # noqa: D102

    def __call__(self, pictures: Tensor, chained: Tensor | None) -> Tensor:
        """Return the flows.

        chained: the flows that come of going from frame to frame, if others lie in between.
        """


@dataclass(frozen=True)
class BuiltIn:
    """Finds large motions by comparing proposals, and is exact by refining the best of them.

    The proposals are the way from frame to frame, which finds what has moved far, a flow that is
    found from small to large, no motion, and the motion of most of the picture. They are compared
    at half the size. The winner is refined at full size by total variation.
    """

    longest_side: int = 128
    name: str = BUILT_IN

    def __call__(self, pictures: Tensor, chained: Tensor | None) -> Tensor:
        """Return the flows. See `Estimator`."""
        height, width = pictures.shape[-2:]
        half = (height // 2, width // 2)
        small = shrunk(pictures, half) if min(half) >= LEAST_HALF else pictures
        size = (small.shape[-2], small.shape[-1])
        found = coarse_to_fine(small)
        proposals = [found] if chained is None else [resized(chained, size), found]
        proposals += [torch.zeros_like(found), _of_most(proposals[0])]
        best = median(best_of(small, proposals))
        return refined(pictures, resized(best, (height, width)))


@dataclass(frozen=True)
class Network:
    """Asks a network, and takes the way from frame to frame where that fits better.

    flow: takes two pictures, (3, h, w), and returns the flow, (2, h, w).
    """

    flow: Callable[[Tensor, Tensor], Tensor]
    longest_side: int = 256
    name: str = RAFT

    def __call__(self, pictures: Tensor, chained: Tensor | None) -> Tensor:
        """Return the flows. See `Estimator`."""
        one, other = pictures
        found = torch.stack((self.flow(one, other), self.flow(other, one))).to(pictures)
        return found if chained is None else best_of(pictures, [found, chained])


def _of_most(flow: Tensor) -> Tensor:
    """Return the median flow everywhere, (2, 2, h, w)."""
    middle = flow.flatten(2).median(dim=2).values
    return middle[:, :, None, None].expand_as(flow)
