"""Frames between keyframes: bring the keyframes' pictures along the motion.

It is the last stage of Rerender A Video (Yang et al. 2023, section 4.3): each frame is carried from
the keyframes before and after it, the one that explains the source better is chosen for every
place, and seams are blended in gradients. There, an external program matches patches (EbSynth,
Jamriska et al. 2019); here, the motion says where things lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from .gradients import from_gradients, gradients
from .pair import PairMotion

DISTRUST = 0.5  # RGB; by how much what is not trusted counts as worse explained
TOLERANCE = 0.03  # RGB; so much worse explained counts e times less
REACH = 1 / 32  # of the longer side; what is larger than this changes gradually over time
COHERENT = 1 / 100  # of the longer side; over this distance places are chosen together


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
    Where one keyframe explains the source much better, detail and colour come from it. Where both
    do, detail comes from the better one, and colours pass over from one to the other in time, so
    that nothing jumps. Where neither does, the less wrong of both is taken.
    """
    carried = [neighbour.motion.carry(neighbour.picture) for neighbour in neighbours]
    if len(neighbours) == 1:
        return carried[0]
    radius = COHERENT * max(source.shape[-2:])
    costs = [_cost(source, neighbour, radius) for neighbour in neighbours]
    near = [1 / neighbour.distance for neighbour in neighbours]
    # The share of the first of both at every place, (h, w).
    odds = (costs[1] - costs[0]) / TOLERANCE + torch.tensor(near[0] / near[1]).log()
    share = torch.sigmoid(odds)
    chosen = _blurred((share > 0.5).to(share), max(radius / 2, 0.5))
    colours = share * carried[0] + (1 - share) * carried[1]
    (right, down), (right_other, down_other) = map(gradients, carried)
    reach = REACH * max(source.shape[-2:])
    picture = from_gradients(
        chosen * right + (1 - chosen) * right_other,
        chosen * down + (1 - chosen) * down_other,
        colours,
        reach,
    )
    return picture.clamp(0, 1)


def _cost(source: Tensor, neighbour: Neighbour, radius: float) -> Tensor:
    """Return how badly a keyframe explains each place of a frame, (h, w), in RGB."""
    explained = neighbour.motion.carry(neighbour.source)
    error = (source - explained).abs().mean(dim=0)
    return _blurred(error + DISTRUST * (1 - neighbour.motion.trust), radius)


def _blurred(values: Tensor, radius: float) -> Tensor:
    """Return values blurred by a Gaussian. values: (h, w). radius: its deviation in pixels."""
    half = max(round(2 * radius), 1)
    half = min(half, min(values.shape) - 1)  # the rim is mirrored, so there must be enough inside
    size = 2 * half + 1
    blurred: Tensor = gaussian_blur2d(values[None, None], (size, size), (radius, radius))
    return blurred[0, 0]
