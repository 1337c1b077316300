"""Motion estimated from the source video, where no exact motion is known.

The estimator is scikit-image's TV-L1 (Zach, Pock and Bischof, A Duality Based Approach for
Realtime TV-L1 Optical Flow, 2007): it needs no weights, keeps the edges of moving things, and
brings no package that others in the same environment replace.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .correspondence import Correspondence, inside, pixel_grid, sample

LONGEST_SIDE = 256  # pixels on which motion is estimated; more takes much longer, gains little
ROUND_TRIP = 0.5  # pixels that a point may be off after going forth and back, plus
ROUND_TRIP_SHARE = 0.05  # this share of its way
SAME_COLOUR = 0.06  # by how much the source itself may differ between a point and its pixel
CALM = 0.1  # how much colours may differ around either: steeper edges are not compared


def estimate_motion(source: Tensor, progress: Callable[[], None] = lambda: None) -> Correspondence:
    """Estimate the motion between every two neighbouring frames of a source video.

    source: (frames, 3, height, width), RGB in 0..1. progress: called after each pair.
    A point is valid if the way back leads to where it came from (forward-backward check of
    Sundaram, Brox and Keutzer, Dense Point Trajectories by GPU-accelerated Large Displacement
    Optical Flow, 2010), if it lies on the picture, and if the source has the same colour at
    both ends and all around them: at edges, sampling would mix what moves differently.
    """
    pairs = len(source) - 1
    grey = _small(source.mean(dim=1, keepdim=True))[:, 0].cpu().double().numpy()
    height, width = source.shape[-2:]
    size = height, width
    forth, back = [], []
    for number in range(pairs):
        forth.append(_flow(grey[number], grey[number + 1], size))
        back.append(_flow(grey[number + 1], grey[number], size))
        progress()
    flow = torch.stack(forth).to(source)  # (pairs, h, w, 2)
    points = pixel_grid(flow) + flow
    returned = flow + sample(torch.stack(back).to(source).permute(0, 3, 1, 2), points).permute(
        0, 2, 3, 1
    )
    tolerance = ROUND_TRIP + ROUND_TRIP_SHARE * flow.norm(dim=-1)
    numbers = torch.arange(pairs)
    valid = (returned.norm(dim=-1) < tolerance) & inside(points)
    motion = Correspondence(numbers, numbers + 1, points, valid)
    return _where_colours_agree(source, motion)


def motions_apart(
    neighbours: Correspondence, lags: Sequence[int]
) -> Iterator[tuple[int, Correspondence]]:
    """Follow points through the motion between neighbours; yield (lag, motion), lags rising."""
    motion = neighbours
    for lag in range(1, max(lags) + 1):
        if lag > 1:
            motion = motion.then(neighbours)
        if lag in lags:
            yield lag, motion


def _flow(here: np.ndarray, there: np.ndarray, size: tuple[int, int]) -> Tensor:
    """The flow between two grey pictures, in pixels of a picture of `size`: (*size, 2)."""
    from skimage.registration import optical_flow_tvl1

    down, right = optical_flow_tvl1(  # type: ignore[no-untyped-call]
        here, there, dtype=here.dtype
    )
    flow = torch.from_numpy(np.stack((right, down)))[None]  # (1, 2, h, w)
    factors = torch.tensor([size[1] / here.shape[1], size[0] / here.shape[0]])
    enlarged = torch.nn.functional.interpolate(flow, size, mode="bilinear", align_corners=False)
    return enlarged[0].permute(1, 2, 0) * factors


def _where_colours_agree(source: Tensor, motion: Correspondence) -> Correspondence:
    """Compare only where the source shows one colour around a pixel and around its point."""
    rough = _contrast(source)  # (frames, h, w)
    moved = sample(source[motion.later], motion.points)
    rough_there = sample(rough[motion.later][:, None], motion.points)[:, 0]
    same = (source[motion.earlier] - moved).abs().amax(dim=1) < SAME_COLOUR
    calm = (rough[motion.earlier] < CALM) & (rough_there < CALM)
    return Correspondence(motion.earlier, motion.later, motion.points, motion.valid & same & calm)


def _contrast(frames: Tensor) -> Tensor:
    """The range of values among each pixel and its neighbours, (frames, h, w)."""
    highest = torch.nn.functional.max_pool2d(frames, 3, stride=1, padding=1)
    lowest = -torch.nn.functional.max_pool2d(-frames, 3, stride=1, padding=1)
    return (highest - lowest).amax(dim=1)


def _small(pictures: Tensor) -> Tensor:
    """Shrink pictures whose longer side exceeds LONGEST_SIDE."""
    factor = LONGEST_SIDE / max(pictures.shape[-2:])
    if factor >= 1:
        return pictures
    return torch.nn.functional.interpolate(
        pictures, scale_factor=factor, mode="bilinear", antialias=True, align_corners=False
    )
