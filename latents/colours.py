"""Colours of a picture matched to those of another one."""

import numpy as np
import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor


def with_colours_of(picture: Tensor, other: Tensor) -> Tensor:
    """Return a picture with the colours of another one, and its own lightness.

    Both are (height, width, 3), RGB in 0..1, of any two sizes. In the colour space CIELAB, the
    values of each of the two colour channels are replaced so that their histogram is that of the
    other picture. Lightness, and so all shapes, stay. Returns the shape of `picture`.

    Rerender A Video's published code does this to the source before it is encoded, if the user does
    not want to keep its colours. It maps the only colour of a grey picture to the strongest one of
    the other; here it becomes the middle one.
    """
    own, wanted = _lab(picture), _lab(other)
    colours = [_matched(own[channel], wanted[channel]) for channel in (1, 2)]
    matched = torch.stack([own[0], *colours])
    return lab_to_rgb(matched[None])[0].movedim(0, -1).clamp(0, 1)


def _lab(picture: Tensor) -> Tensor:
    """Return lightness and two colour channels, (3, height, width)."""
    return rgb_to_lab(picture[..., :3].movedim(-1, 0)[None].float().cpu())[0]


def _matched(values: Tensor, wanted: Tensor) -> Tensor:
    """Return values that are distributed as `wanted`, in the same order.

    Colours that the eye cannot tell apart (less than one unit of CIELAB) count as equal. Otherwise
    the rounding errors of grey would be spread over all colours.
    """
    mine = values.numpy().ravel()
    knots, counts = np.unique(mine.round(), return_counts=True)
    # The share of values below each knot, where those that equal it count half.
    shares = (np.cumsum(counts) - counts / 2) / len(mine)
    theirs = np.sort(wanted.numpy().ravel())
    middles = (np.arange(len(theirs)) + 0.5) / len(theirs)
    matched = np.interp(mine, knots, np.interp(shares, middles, theirs))
    return torch.from_numpy(matched).to(values).reshape(values.shape)
