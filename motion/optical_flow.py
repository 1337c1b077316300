"""Motion estimated from the source video, where no exact motion is known.

The estimator is scikit-image's TV-L1 (Zach, Pock and Bischof, A Duality Based Approach for
Realtime TV-L1 Optical Flow, 2007). It needs no weights, keeps the edges of moving things, and
requires no package that other packs in the same environment replace.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .correspondence import Correspondence, inside, pixel_grid, sample

LONGEST_SIDE = 256  # pixels; larger pictures are shrunk, as they take much longer and gain little
SHORTEST_SIDE = 16  # pixels; no side is shrunk below this, so that narrow pictures stay usable
LEAST_SIDE = 2  # pixels of the smallest usable side: the estimator looks at differences
# After going forth and back, a point may be off by ROUND_TRIP pixels plus ROUND_TRIP_SHARE of the
# distance it went.
ROUND_TRIP = 0.5
ROUND_TRIP_SHARE = 0.05
SAME_COLOUR = 0.06  # the most by which the source itself may differ between a pixel and its point
CALM = 0.1  # the most by which colours may differ around either: steeper edges are not compared


def follow_motion(
    source: Tensor, farthest: int, progress: Callable[[], None] = lambda: None
) -> Iterator[Correspondence]:
    """Follow the points of a source video; yield the pairs that end at each frame but the first.

    source: (frames, 3, height, width), RGB in 0..1. farthest: how many frames a point is followed.
    progress: called after each pair of neighbouring frames. What is yielded for a frame has
    one pair for each of the `farthest` frames before it, so memory does not grow with the clip.
    """
    trails: Correspondence | None = None
    for frame in range(1, len(source)):
        step = estimate_motion(source[frame - 1], source[frame], frame - 1)
        progress()
        trails = step if trails is None else trails.then(step).and_also(step)
        trails = trails.last(farthest)
        yield trails


def estimate_motion(here: Tensor, there: Tensor, number: int = 0) -> Correspondence:
    """Estimate the motion between two neighbouring frames, (3, height, width), RGB in 0..1.

    Returns one pair: frames `number` and `number + 1`. A point is valid if the way back leads
    to where it came from (forward-backward check of Sundaram, Brox and Keutzer, Dense Point
    Trajectories by GPU-accelerated Large Displacement Optical Flow, 2010), if it lies on the
    picture, and if the source has the same colour at both ends and around them, because at edges
    sampling would mix things that move differently.
    Raises ValueError for pictures with a side of fewer than LEAST_SIDE pixels.
    """
    if min(here.shape[-2:]) < LEAST_SIDE:
        height, width = here.shape[-2:]
        raise ValueError(f"motion cannot be estimated in pictures of {width} x {height} pixels")
    pair = torch.stack((here, there))  # (2, 3, h, w)
    grey = _small(pair.mean(dim=1, keepdim=True))[:, 0].cpu().double().numpy()
    flow = _flow(grey[0], grey[1], pair.shape[-2:])[None].to(pair)  # (1, h, w, 2)
    back = _flow(grey[1], grey[0], pair.shape[-2:])[None].to(pair)
    points = pixel_grid(flow) + flow
    returned = flow + sample(back.permute(0, 3, 1, 2), points).permute(0, 2, 3, 1)
    tolerance = ROUND_TRIP + ROUND_TRIP_SHARE * flow.norm(dim=-1)
    valid = (returned.norm(dim=-1) < tolerance) & inside(points)
    valid &= _colours_agree(pair, points)
    return Correspondence(torch.tensor([number]), torch.tensor([number + 1]), points, valid)


def _flow(here: np.ndarray, there: np.ndarray, size: Sequence[int]) -> Tensor:
    """Return the flow between two grey pictures, in pixels of a picture of `size`: (*size, 2)."""
    from skimage.registration import optical_flow_tvl1

    down, right = optical_flow_tvl1(here, there, dtype=here.dtype)
    flow = torch.from_numpy(np.stack((right, down)))[None]  # (1, 2, h, w)
    factors = torch.tensor([size[1] / here.shape[1], size[0] / here.shape[0]])
    enlarged = torch.nn.functional.interpolate(
        flow, tuple(size), mode="bilinear", align_corners=False
    )
    return enlarged[0].permute(1, 2, 0) * factors


def _colours_agree(pair: Tensor, points: Tensor) -> Tensor:
    """Return whether a pair of frames shows the same colour around a pixel and around its point.

    pair: (2, 3, h, w). points: (1, h, w, 2). Returns (1, h, w), bool.
    """
    rough = _contrast(pair)  # (2, h, w)
    moved = sample(pair[1:], points)
    rough_there = sample(rough[1:, None], points)[:, 0]
    same = (pair[:1] - moved).abs().amax(dim=1) < SAME_COLOUR
    return same & (rough[:1] < CALM) & (rough_there < CALM)


def _contrast(frames: Tensor) -> Tensor:
    """Return the range of values among each pixel and its neighbours, (frames, h, w)."""
    highest = torch.nn.functional.max_pool2d(frames, 3, stride=1, padding=1)
    lowest = -torch.nn.functional.max_pool2d(-frames, 3, stride=1, padding=1)
    return (highest - lowest).amax(dim=1)


def _small(pictures: Tensor) -> Tensor:
    """Shrink pictures whose longer side exceeds LONGEST_SIDE, as far as the shorter one allows."""
    longer, shorter = max(pictures.shape[-2:]), min(pictures.shape[-2:])
    factor = max(LONGEST_SIDE / longer, SHORTEST_SIDE / shorter)
    if factor >= 1:
        return pictures
    return torch.nn.functional.interpolate(
        pictures, scale_factor=factor, mode="bilinear", antialias=True, align_corners=False
    )
