"""Where an estimated flow can be trusted. Pairs are both ways at once, as in `variational`."""

from __future__ import annotations

from torch import Tensor

from .proposals import Surroundings, round_trip
from .variational import places, warped

# Forth and back may miss by OFF pixels plus OFF_SHARE of the distance, at the pixel and on average
# in its surroundings: in an area without structure the flow of a single pixel says little. Clips
# that are fused along the motion are steadier with 1 pixel than with less; 2 pixels gain little
# more, and cost newcomers some of their own look.
OFF = 1.0
OFF_SHARE = 0.05
LOST = 4.0  # pixels; what is off by more is simply lost
COLOUR = 0.1  # RGB; the most by which the two ends may differ
COLOUR_AROUND = 0.05  # RGB; the same on average in the surroundings
OTHER = 0.3  # RGB; what differs by more simply is something else


def trusted(pictures: Tensor, flow: Tensor) -> Tensor:
    """Return which pixels' flow can be trusted, (2, h, w), bool.

    pictures: (2, 3, h, w), RGB in 0..1. flow: (2, 2, h, w).
    A pixel is trusted if the way back leads to where it came from, if it stays on the picture, and
    if both ends have the same colour; the first and the last also on average in the part of its
    surroundings that has its colour.
    """
    around = Surroundings.of(pictures)
    off = round_trip(flow)  # (2, 1, h, w)
    limit = OFF + OFF_SHARE * flow.norm(dim=1, keepdim=True)
    differs = (warped(pictures.flip(0), flow) - pictures).abs().amax(dim=1, keepdim=True)
    kept: Tensor = (off < limit) & (around.mean(off.clamp(max=LOST)) < limit)
    kept &= (differs < COLOUR) & (around.mean(differs.clamp(max=OTHER)) < COLOUR_AROUND)
    return (kept & _well_inside(flow))[:, 0]


def _well_inside(flow: Tensor) -> Tensor:
    """Return whether pixels are led to a place half a pixel inside of the rim, (2, 1, h, w)."""
    x, y = (places(flow) + flow)[:, :, None].unbind(1)
    height, width = flow.shape[-2:]
    inside: Tensor = (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)
    return inside
