"""The exact motion in a clip of the small world, wherever an estimated one is expected."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch

from ..motion import PairMotion, check_frames, inside, on_grid
from .world import SIZE, Clip, moved_points, parts_at, pixel_centres


@dataclass(frozen=True, eq=False)
class ExactMotion:
    """Motion as it is. What is visible in both frames is trusted, edges included.

    clip: the description of the clip. See `crossframe.motion.Motion`.
    """

    clip: Clip

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.clip)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of frames in pixels."""
        return SIZE, SIZE

    @cached_property
    def fingerprint(self) -> str:
        """What tells this motion from that of another clip."""
        told = hashlib.sha256(b"exact")
        for values in vars(self.clip).values():
            told.update(values.contiguous().numpy().tobytes())
        return told.hexdigest()[:16]

    def between(self, frame: int, other: int, grid: tuple[int, int] | None = None) -> PairMotion:
        """Return the exact motion between two frames. See `crossframe.motion.Motion`."""
        check_frames(self, frame, other)
        start, end = torch.tensor([frame]), torch.tensor([other])
        points = pixel_centres(SIZE).reshape(1, -1, 2)
        instance, _ = parts_at(self.clip, points, start)
        there = moved_points(self.clip, points, instance, start, end)
        shown, _ = parts_at(self.clip, there, end)
        flow = (there - points).reshape(SIZE, SIZE, 2)
        visible = (shown == instance).reshape(SIZE, SIZE) & inside(there.reshape(SIZE, SIZE, 2))
        return on_grid(flow.permute(2, 0, 1), visible, grid or self.size)
