"""Pictures of a motion: colours say where things go, dark places are not trusted."""

import math

import torch
from torch import Tensor

from .correspondence import pixel_grid
from .pair import PairMotion

DISTRUSTED = 0.15  # the brightness of places that are not trusted
FASTEST = 0.98  # the share of trusted places that move less than what gets the strongest colour
LEAST = 1.0  # cells; slower motion than this never gets the strongest colour


def motion_picture(motion: PairMotion, strongest: float) -> Tensor:
    """Draw a motion: (3, h, w), RGB in 0..1.

    strongest: how many cells a place moves that gets the strongest colour. The hue is the
    direction, as on the colour circle with red to the right; white stands still. Where the motion
    is not trusted the picture is dark.
    """
    right, down = (motion.positions - pixel_grid(motion.positions)).unbind(-1)
    hue = torch.atan2(down, right) / (2 * math.pi) * 6  # in sixths of the circle
    strength = (torch.hypot(right, down) / strongest).clamp(max=1)
    # Each colour is full up to a sixth of the circle from its own place, and then falls off.
    colours = [((hue - place + 3) % 6 - 3).abs() for place in (0, 2, 4)]
    full = torch.stack([(2 - away).clamp(0, 1) for away in colours])
    picture = 1 - strength * (1 - full)
    return picture * (DISTRUSTED + (1 - DISTRUSTED) * motion.trust)


def strongest_of(motions: list[PairMotion]) -> float:
    """Return how many cells the fastest trusted places of several motions move, at least LEAST."""
    speeds = [
        (motion.positions - pixel_grid(motion.positions)).norm(dim=-1)[motion.trust > 0]
        for motion in motions
    ]
    known = torch.cat(speeds)
    if not len(known):
        return LEAST
    ordered = known.sort().values
    return max(float(ordered[int(FASTEST * (len(ordered) - 1))]), LEAST)
