"""Soft masks of what another frame does not show, as Rerender A Video makes them."""

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

WIDEN = 9  # pixels; the side of the square by which hidden places grow
BLUR, SIGMA = 9, 18.0  # pixels; the kernel with which they fade out


def soft_occlusion(trust: Tensor) -> Tensor:
    """Return how little each pixel can be taken from another frame, from 0 to 1.

    trust: how far the motion to that frame can be trusted, 0 to 1, (height, width) in pixels.
    Hidden pixels get 1, and around them the mask fades to 0 within a few pixels. So seams between
    the other frame and this one are soft. Source: Yang et al. 2023, section 4.1.3, and its
    published code.
    Returns (height, width).
    """
    hidden = (1 - trust)[None, None]
    wide = torch.nn.functional.max_pool2d(hidden, WIDEN, stride=1, padding=WIDEN // 2)
    soft: Tensor = gaussian_blur2d(wide, (BLUR, BLUR), (SIGMA, SIGMA))
    return (soft + hidden).clamp(0, 1)[0, 0]


def on_cells(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the largest value of a mask in each cell of a grid, for example of a latent.

    mask: (height, width) in pixels, with at least as many rows and columns as the grid.
    """
    return torch.nn.functional.adaptive_max_pool2d(mask[None], grid)[0]
