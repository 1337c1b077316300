"""Frames between keyframes: bring the keyframes' pictures along the motion.

It is the last stage of Rerender A Video (Yang et al. 2023, section 4.2): each frame is carried from
the keyframes before and after it, and for every place the one that explains the source better
counts. There, an external program matches patches (EbSynth, Jamriska et al. 2019); here, the motion
says where things lie. There, the two are blended with the help of histograms, and in EbSynth of
gradients; here, both get the same colours before they are mixed, which leaves no seams to blend and
no stains around moving things.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .pair import PairMotion
from .resample import carried_sharply
from .smooth import blurred, slow_part

DISTRUST = 0.5  # RGB; by how much what is not trusted counts as worse explained
TOLERANCE = 0.02  # RGB; so much worse explained counts e times less
ALIKE = 0.05  # RGB; colours are compared e times less where the source is worse explained by this
COHERENT = 1 / 400  # of the longer side; over this distance places are chosen together
LEAST_COHERENT = 0.3  # pixels
SOFT = 1 / 256  # of the longer side; over this distance one picture passes over into the other


@dataclass(frozen=True)
class Neighbour:
    """A keyframe beside a frame.

    picture: what was painted, (3, h, w). source: what it was painted from, (3, h, w). motion: from
    the frame to the keyframe, on these pixels. distance: in frames, at least 1.
    """

    picture: Tensor
    source: Tensor
    motion: PairMotion
    distance: int


def propagated(source: Tensor, neighbours: Sequence[Neighbour]) -> Tensor:
    """Return the picture of a frame between one or two keyframes, (3, h, w).

    source: the frame, (3, h, w), RGB in 0..1.
    Where one keyframe explains the source much better, the picture comes from it. Where both do,
    they are mixed by their distance in time. Where neither does, the less wrong of both is taken.
    """
    carried = [carried_sharply(beside.motion, beside.picture) for beside in neighbours]
    if len(neighbours) == 1:
        return carried[0]
    misses = [_miss(source, beside) for beside in neighbours]
    first, second = _with_equal_colours(carried, misses, neighbours)
    share = _share_of_first(misses, neighbours)
    return (share * first + (1 - share) * second).clamp(0, 1)


def _miss(source: Tensor, neighbour: Neighbour) -> Tensor:
    """Return how far a keyframe's source, carried to a frame, is off its source, (h, w), in RGB."""
    explained = carried_sharply(neighbour.motion, neighbour.source)
    radius = max(COHERENT * max(source.shape[-2:]), LEAST_COHERENT)
    return blurred((source - explained).abs().mean(dim=0), radius)


def _share_of_first(misses: Sequence[Tensor], neighbours: Sequence[Neighbour]) -> Tensor:
    """Return how much the first of two keyframes counts at every place, 0 to 1, (h, w).

    Trust is not blurred before both are compared: its rim is where something comes out from behind
    something else, and there one picture is right and the other one wrong.
    """
    one, other = neighbours
    costs = [
        miss + DISTRUST * (1 - beside.motion.trust)
        for miss, beside in zip(misses, neighbours, strict=True)
    ]
    in_time = math.log(other.distance / one.distance)
    share = torch.sigmoid((costs[1] - costs[0]) / TOLERANCE + in_time)
    return blurred(share, SOFT * max(share.shape))


def _with_equal_colours(
    carried: Sequence[Tensor], misses: Sequence[Tensor], neighbours: Sequence[Neighbour]
) -> tuple[Tensor, Tensor]:
    """Return two carried pictures, (3, h, w), with the colours that are due at this time.

    How they differ is compared where both show the same. What changes slowly of it passes over from
    one to the other in time, everywhere: also a place that only one of them shows follows, so it
    neither stands out from what is around it nor jumps.
    """
    one, other = neighbours
    alike = torch.exp(-(misses[0] + misses[1]) / ALIKE)
    difference = slow_part(carried[1] - carried[0], one.motion.trust * other.motion.trust * alike)
    passed = one.distance / (one.distance + other.distance)
    return carried[0] + passed * difference, carried[1] - (1 - passed) * difference
