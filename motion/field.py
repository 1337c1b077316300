"""A motion that is made up and not found: the whole picture shifts, grows and turns.

Text2Video-Zero (Khachatryan et al. 2023, section 3.3.1, motion dynamics) moves the first frame's
latent in this way: by a constant shift per frame. Growing and turning are the same idea.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cached_property

import torch
from torch import Tensor

from .correspondence import inside, pixel_grid
from .motion import check_frames
from .pair import PairMotion

EVEN = "even"
# How far along its way the picture is, from 0 to 1, after a share of the time, from 0 to 1.
PACES: dict[str, Callable[[float], float]] = {
    EVEN: lambda time: time,
    "ease in": lambda time: time**2,
    "ease out": lambda time: time * (2 - time),
    "ease in and out": lambda time: time**2 * (3 - 2 * time),
    "there and back": lambda time: min(time, 1 - time),
}


def along(frames: int, pace: Callable[[float], float]) -> tuple[float, ...]:
    """Return how far along the way each frame is, in frames of even motion. pace: see PACES."""
    last = max(frames - 1, 1)
    return tuple(last * pace(frame / last) for frame in range(frames))


@dataclass(frozen=True)
class MotionField:
    """Motion of the whole picture, the same everywhere. See `Motion`.

    size: height and width of the frames, in pixels. x, y: how far the picture moves from frame to
    frame, in pixels, to the right and down. zoom: the factor by which it grows from frame to frame,
    about its centre. turn: by how many degrees it turns from frame to frame about its centre,
    clockwise. places: how far along its way each frame is, in frames; see `along`.
    """

    size: tuple[int, int]
    x: float
    y: float
    zoom: float
    turn: float
    places: tuple[float, ...]

    @property
    def frames(self) -> int:
        """See `Motion`."""
        return len(self.places)

    @cached_property
    def fingerprint(self) -> str:
        """See `Motion`."""
        return hashlib.sha256(f"field {astuple(self)}".encode()).hexdigest()[:16]

    def between(self, frame: int, other: int, grid: tuple[int, int] | None = None) -> PairMotion:
        """See `Motion`. What another frame shows is trusted, and nothing else."""
        check_frames(self, frame, other)
        rows, columns = grid or self.size
        height, width = self.size
        cell = torch.tensor([width / columns, height / rows], dtype=torch.float64)
        points = pixel_grid(torch.empty(rows, columns, 2, dtype=torch.float64)) * cell
        there = self._moved(points, frame, other) / cell
        positions = there.float()
        return PairMotion(positions, inside(positions).float())

    def _moved(self, points: Tensor, frame: int, other: int) -> Tensor:
        """Return where points of one frame lie in another frame, both (..., 2), in pixels."""
        height, width = self.size
        centre = points.new_tensor([width / 2, height / 2])
        step = points.new_tensor([self.x, self.y])
        start, end = self.places[frame], self.places[other]
        away = points - centre - start * step  # as in a frame that has not been shifted
        return self._grown(away, end - start) + centre + end * step

    def _grown(self, away: Tensor, steps: float) -> Tensor:
        """Zoom and turn points about the origin by a number of frames, (..., 2)."""
        angle, factor = math.radians(steps * self.turn), self.zoom**steps
        x, y = away.unbind(-1)  # y points down, so this turns clockwise
        turned = (
            x * math.cos(angle) - y * math.sin(angle),
            x * math.sin(angle) + y * math.cos(angle),
        )
        grown: Tensor = factor * torch.stack(turned, dim=-1)
        return grown
