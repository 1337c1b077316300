"""Make a picture out of given gradients (the screened Poisson equation)."""

import math

import scipy.fft  # type: ignore[import-untyped]
import torch
from torch import Tensor


def gradients(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences to the next pixel, to the right and down; 0 at the rim.

    picture: (..., h, w). Both have this shape.
    """
    right, down = torch.zeros_like(picture), torch.zeros_like(picture)
    right[..., :-1] = picture[..., 1:] - picture[..., :-1]
    down[..., :-1, :] = picture[..., 1:, :] - picture[..., :-1, :]
    return right, down


def from_gradients(right: Tensor, down: Tensor, colours: Tensor, reach: float) -> Tensor:
    """Return the picture whose gradients are nearest to given ones, and whose colours to others.

    right, down: wanted differences, as `gradients` returns them; those at the rim do not count.
    colours: wanted colours. All have the shape (..., h, w). reach: in pixels; detail that is much
    smaller follows the gradients, and what is much larger follows the colours.
    It minimizes the sum of (gradient - wanted)^2 + (colour - wanted)^2 / reach^2 exactly, by a
    cosine transform (Bhat et al., Fourier Analysis of the 2D Screened Poisson Equation for Gradient
    Domain Problems, ECCV 2008).
    """
    pull = 1 / reach**2
    # The divergence of the gradients, of which none crosses the rim.
    divergence = torch.zeros_like(colours)
    divergence[..., :-1] += right[..., :-1]
    divergence[..., 1:] -= right[..., :-1]
    divergence[..., :-1, :] += down[..., :-1, :]
    divergence[..., 1:, :] -= down[..., :-1, :]
    wanted = scipy.fft.dctn((pull * colours - divergence).numpy(), axes=(-2, -1), norm="ortho")
    height, width = colours.shape[-2:]
    # The eigenvalues of the second difference with a closed rim.
    rows, columns = ((2 - 2 * torch.cos(math.pi * torch.arange(n) / n)) for n in (height, width))
    scale = pull + rows[:, None] + columns[None]
    picture = scipy.fft.idctn(wanted / scale.numpy(), axes=(-2, -1), norm="ortho")
    return torch.from_numpy(picture).to(colours)
