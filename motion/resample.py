"""Bring a picture along the motion without blurring it."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d, pad

from .pair import PairMotion


def carried_sharply(motion: PairMotion, picture: Tensor) -> Tensor:
    """Return a picture of the other frame at the places of this frame, (channels, h, w).

    picture: (channels, h, w), on the grid of the motion; places beyond the rim get the value at
    the rim. Bilinear reading, as `PairMotion.carry` does it, blurs whatever has moved by half a
    pixel: frames between keyframes then lose detail that keyframes have, and the clip pulses.
    Bicubic reading keeps detail. It can overshoot at edges, so every value stays between those of
    the four pixels around its place.
    """
    height, width = picture.shape[-2:]
    size = picture.new_tensor([width, height])
    values = picture[None]  # (1, channels, h, w)
    places = (2 * motion.positions / size - 1)[None]  # (1, h, w, 2)
    read = grid_sample(values, places, mode="bicubic", padding_mode="border", align_corners=False)
    # The pixel up and to the left of each place, of which the other three are the next ones.
    corner = (2 * ((motion.positions - 0.5).floor() + 0.5) / size - 1)[None]
    largest, smallest = _largest_of_four(values), -_largest_of_four(-values)
    most, least = (
        grid_sample(bound, corner, mode="nearest", padding_mode="border", align_corners=False)
        for bound in (largest, smallest)
    )
    return torch.minimum(torch.maximum(read, least), most)[0]


def _largest_of_four(values: Tensor) -> Tensor:
    """Return the largest of each pixel and the next ones right, down and both, in its shape."""
    return max_pool2d(pad(values, (0, 1, 0, 1), mode="replicate"), 2, stride=1)
