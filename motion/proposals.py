"""Choosing, for every pixel, between several flows that have been proposed.

The cost of each proposal is averaged over the neighbourhood within edges, as in Rhemann et al.,
Fast Cost-Volume Filtering for Visual Correspondence and Beyond (2011), and the cheapest one wins.
Pairs are both ways at once, as in `variational`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .variational import features, on_picture, warped

REACH = (1, 2, 4)  # pixels; the neighbours whose costs are averaged, one distance after the other
EDGE = 0.25  # the sum of the differences of RGB on the way that makes a neighbour count 1 / e
MOST = 0.35  # no pixel costs more, so that a hidden one does not spoil its neighbours
OUTSIDE = 0.7 * MOST  # the cost of leading out of the picture
ROUND_TRIP = 0.1  # the cost of a way back that leads elsewhere


def best_of(pictures: Tensor, proposals: Sequence[Tensor]) -> Tensor:
    """Return the flow that takes, at every pixel, the proposal that costs least there.

    pictures: (2, 3, h, w), RGB in 0..1. proposals: flows, (2, 2, h, w). The first wins a tie.
    """
    costs = torch.cat([_cost(pictures, flow) for flow in proposals], dim=1)
    costs = Surroundings.of(pictures).mean(costs)
    best = costs.argmin(dim=1)[:, None, None].expand(-1, 1, 2, -1, -1)
    return torch.stack(list(proposals), dim=1).gather(1, best)[:, 0]


def _cost(pictures: Tensor, flow: Tensor) -> Tensor:
    """Return what a flow costs at every pixel, (2, 1, h, w)."""
    here = features(pictures)
    differs = (warped(here.flip(0), flow) - here).abs().sum(dim=1, keepdim=True).clamp(max=MOST)
    off = round_trip(flow)
    cost = differs + ROUND_TRIP * off / (1 + off)
    return torch.where(on_picture(flow) > 0, cost, OUTSIDE)


def round_trip(flow: Tensor) -> Tensor:
    """Return by how many pixels forth and back miss where they began, (2, 1, h, w).

    The check is that of Sundaram, Brox and Keutzer, Dense Point Trajectories by GPU-accelerated
    Large Displacement Optical Flow (2010).
    """
    off: Tensor = (flow + warped(flow.flip(0), flow)).norm(dim=1, keepdim=True)
    return off


@dataclass(frozen=True)
class Surroundings:
    """How much each pixel has in common with those around it.

    weights: for each distance of REACH and each axis, those of the neighbour before and of the one
    after, (pictures, 1, h, w).
    """

    weights: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, pictures: Tensor) -> Surroundings:
        """Return the surroundings in pictures, (pictures, 3, h, w): they end at edges."""
        found = []
        for distance in REACH:
            for axis in (-1, -2):
                change = (pictures - neighbour(pictures, 1, axis)).abs().sum(dim=1, keepdim=True)
                way = torch.stack([neighbour(change, n, axis) for n in range(distance)]).sum(0)
                after = torch.exp(-way / EDGE)
                found.append((neighbour(after, -distance, axis), after))
        return cls(tuple(found))

    def mean(self, values: Tensor) -> Tensor:
        """Return the means of values around every pixel, (pictures, channels, h, w)."""
        for number, (before, after) in enumerate(self.weights):
            distance, axis = REACH[number // 2], (-1, -2)[number % 2]
            total = values + after * neighbour(values, distance, axis)
            total = total + before * neighbour(values, -distance, axis)
            values = total / (1 + before + after)
        return values


def neighbour(values: Tensor, distance: int, axis: int) -> Tensor:
    """Return the value so many pixels further along an axis; beyond the rim, that at the rim."""
    length = values.shape[axis]
    return values.index_select(axis, _further(length, distance, values.device))


def _further(length: int, distance: int, device: torch.device) -> Tensor:
    return (torch.arange(length, device=device) + distance).clamp(0, length - 1)
