"""Optical flow that changes little from pixel to pixel and matches colours and their slopes.

It minimises total variation plus an L1 match, as Zach, Pock and Bischof do (A Duality Based
Approach for Realtime TV-L1 Optical Flow, 2007), but matches five channels, with weights that are
renewed on the way, and solves by the method of Chambolle and Pock (A First-Order Primal-Dual
Algorithm for Convex Problems with Applications to Imaging, 2011). The median between warps follows
Wedel et al., An Improved Algorithm for TV-L1 Optical Flow (2009).

Pairs are both ways at once: pictures (2, 3, h, w), flows (2, 2, h, w) with x before y, in pixels.
The first flow leads from the first picture to the second, the second one back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, pad

COARSEST = 16  # pixels; the shorter side of the smallest picture in a pyramid
WARPS = 5  # how often the later picture is read again where the flow leads, at every size
ITERATIONS = 15  # of the solver after each warp
RENEW = 5  # after so many iterations the weights of the match are worked out again
SMOOTHNESS = 0.15  # the weight of the total variation
SLOPES = 2.0  # the weight of slopes beside colours
ROUND = 0.01  # RGB; smaller differences count as squares
STEP = 0.35  # of both variables of the solver; its square times 8 is below 1


def features(pictures: Tensor) -> Tensor:
    """Return the channels that are matched: colours and two slopes, (pictures, 5, h, w)."""
    grey = pictures.mean(dim=1, keepdim=True)
    return torch.cat((pictures, *(SLOPES * slope for slope in slopes(grey))), dim=1)


def coarse_to_fine(pictures: Tensor) -> Tensor:
    """Return the flow of a pair of pictures, (2, 2, h, w), found from small to large."""
    height, width = pictures.shape[-2:]
    half = (max(height // 2, 1), max(width // 2, 1))
    if min(half) >= COARSEST:
        flow = resized(coarse_to_fine(shrunk(pictures, half)), (height, width))
    else:
        flow = torch.zeros_like(pictures[:, :2])
    return refined(pictures, flow)


def refined(pictures: Tensor, flow: Tensor) -> Tensor:
    """Return a flow that matches better, near to the one that is given."""
    here = features(pictures)
    there = here.flip(0)
    own_slopes = slopes(here)
    for _ in range(WARPS):
        moved = warped(there, flow)
        right, down = (
            (slope + own) / 2 for slope, own in zip(slopes(moved), own_slopes, strict=True)
        )
        miss = moved - here - right * flow[:, :1] - down * flow[:, 1:]
        flow = median(_solved(flow, right, down, miss, on_picture(flow)))
    return flow


def _solved(flow: Tensor, right: Tensor, down: Tensor, miss: Tensor, inside: Tensor) -> Tensor:
    """Return the flow with the least total variation and linearised match.

    right, down, miss: what the match gains with each pixel of flow, and where it begins,
    (2, 5, h, w). inside: where there is something to match, (2, 1, h, w).
    """
    dual_x, dual_y = torch.zeros_like(flow), torch.zeros_like(flow)
    ahead = flow
    for iteration in range(ITERATIONS):
        if iteration % RENEW == 0:
            error = miss + right * flow[:, :1] + down * flow[:, 1:]
            weight = STEP * inside * (error.square() + ROUND**2).rsqrt()
            inverse, pull = _match(weight, right, down, miss)
        dual_x[..., :-1] += STEP * (ahead[..., 1:] - ahead[..., :-1])
        dual_y[..., :-1, :] += STEP * (ahead[..., 1:, :] - ahead[..., :-1, :])
        length = (dual_x.square() + dual_y.square()).sum(dim=1, keepdim=True).sqrt()
        length = (length / SMOOTHNESS).clamp(min=1)
        dual_x /= length
        dual_y /= length
        wanted = dual_x + dual_y
        wanted[..., 1:] -= dual_x[..., :-1]
        wanted[..., 1:, :] -= dual_y[..., :-1, :]
        x, y = (flow + STEP * wanted - pull).unbind(1)
        xx, xy, yy = inverse
        better = torch.stack((xx * x + xy * y, xy * x + yy * y), dim=1)
        ahead = 2 * better - flow
        flow = better
    return flow


def _match(
    weight: Tensor, right: Tensor, down: Tensor, miss: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Return what a step of the match is, with squares of these weights.

    It is a symmetric matrix at every pixel, its inverse as three of (2, h, w), and a vector,
    (2, 2, h, w).
    """
    weighted = weight * right
    xx, xy = (weighted * right).sum(dim=1) + 1, (weighted * down).sum(dim=1)
    x = (weighted * miss).sum(dim=1)
    weighted = weight * down
    yy, y = (weighted * down).sum(dim=1) + 1, (weighted * miss).sum(dim=1)
    determinant = xx * yy - xy * xy
    inverse = (yy / determinant, -xy / determinant, xx / determinant)
    return inverse, torch.stack((x, y), dim=1)


def slopes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the central differences along x and along y, in the shape of values."""
    wide = pad(values, (1, 1, 1, 1), mode="replicate")
    right = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return right, down


def places(like: Tensor) -> Tensor:
    """Return the centres of all pixels, (2, h, w), x before y. like: (..., h, w)."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device) + 0.5,
        torch.arange(width, dtype=like.dtype, device=like.device) + 0.5,
        indexing="ij",
    )
    return torch.stack((x, y))


def on_picture(flow: Tensor) -> Tensor:
    """Return whether each pixel is led to a place on the picture, (..., 1, h, w), as 0 or 1."""
    x, y = (places(flow) + flow).unbind(-3)
    height, width = flow.shape[-2:]
    return ((x > 0) & (x < width) & (y > 0) & (y < height))[..., None, :, :].to(flow)


def warped(values: Tensor, flow: Tensor) -> Tensor:
    """Read values where the flow leads, bilinearly, (pairs, channels, h, w).

    values: (pairs, channels, h, w). flow: (pairs, 2, h, w). Beyond the rim is the value at the rim.
    """
    height, width = flow.shape[-2:]
    size = flow.new_tensor([width, height])
    points = (places(flow) + flow).permute(0, 2, 3, 1)
    return grid_sample(values, 2 * points / size - 1, padding_mode="border", align_corners=False)


def after(first: Tensor, second: Tensor) -> Tensor:
    """Return the flow that goes the first way and then the second, (pairs, 2, h, w)."""
    return first + warped(second, first)


def resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a flow for pictures of another size, (height, width)."""
    height, width = flow.shape[-2:]
    if size == (height, width):
        return flow
    unit = flow.new_tensor([size[1] / width, size[0] / height])[:, None, None]
    return interpolate(flow, size, mode="bilinear", align_corners=False) * unit


def shrunk(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Return smaller pictures, (pictures, channels, *size)."""
    return interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)


# Pairs of places in a list of nine that are put in order, one after the other: first within three
# rows, then the largest of the least, the median of the medians and the least of the largest. Their
# median is the median of all.
_ORDERING = (
    *((0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7)),
    *((0, 3), (3, 6), (1, 4), (4, 7), (1, 4), (5, 8), (2, 5), (4, 6), (2, 4), (4, 6)),
)


def median(flow: Tensor) -> Tensor:
    """Return the median of each value and its eight neighbours, in the shape of the flow."""
    height, width = flow.shape[-2:]
    wide = pad(flow, (1, 1, 1, 1), mode="replicate")
    nine = [wide[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    for low, high in _ORDERING:
        nine[low], nine[high] = (
            torch.minimum(nine[low], nine[high]),
            torch.maximum(nine[low], nine[high]),
        )
    return nine[4]
