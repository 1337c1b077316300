"""Smoothing of pictures, also of such that are known only in places."""

from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

CELLS = 64  # along the longer side; what changes slowly needs no more
RADII = (1 / 4, 1 / 8, 1 / 16, 1 / 32)  # of the longer side, from coarse to fine
ENOUGH = 0.02  # a place whose surroundings have less weight than this is filled from wider ones
LEAST = 0.005  # a whole picture that has less weight than this says nothing


def blurred(values: Tensor, radius: float) -> Tensor:
    """Return values blurred by a Gaussian, (..., h, w). radius: its deviation in pixels."""
    height, width = values.shape[-2:]
    half = max(round(2 * radius), 1)
    half = min(half, height - 1, width - 1)  # the rim is mirrored, so there must be enough inside
    size = 2 * half + 1
    flat = values.reshape(1, -1, height, width)  # (..., h, w) -> (1, channels, h, w)
    smooth: Tensor = gaussian_blur2d(flat, (size, size), (radius, radius))
    return smooth.reshape(values.shape)


def slow_part(values: Tensor, weights: Tensor) -> Tensor:
    """Return what changes slowly over a picture, (channels, h, w), also where nothing is known.

    values: (channels, h, w). weights: how far each place is known, 0 to 1, (h, w).
    It is the weighted mean of the surroundings. Where these are unknown, those at twice the radius
    count, and at last the mean of the whole picture; where hardly anything is known it is 0.
    """
    height, width = weights.shape
    shrink = min(CELLS / max(height, width), 1)
    grid = max(round(height * shrink), 1), max(round(width * shrink), 1)
    sums = adaptive_avg_pool2d((values * weights)[None], grid)[0]  # (channels, *grid)
    known = adaptive_avg_pool2d(weights[None], grid)[0]  # grid
    mean = sums.mean(dim=(-2, -1)) / (known.mean() + LEAST)
    found = mean[:, None, None].expand_as(sums)
    for share in RADII:
        radius = share * max(grid)
        around = blurred(sums, radius) + ENOUGH * found
        found = around / (blurred(known, radius) + ENOUGH)
    return interpolate(found[None], (height, width), mode="bilinear", align_corners=False)[0]
