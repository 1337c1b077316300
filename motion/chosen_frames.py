"""The motion of some frames of a clip, as if they were a clip of their own."""

from __future__ import annotations

from dataclasses import dataclass

from .motion import Motion, check_frames
from .pair import PairMotion


@dataclass(frozen=True)
class ChosenFrames:
    """The motion between some frames of a clip. See `Motion`.

    chosen: their numbers in the clip, ascending; here they count from 0.
    """

    motion: Motion
    chosen: tuple[int, ...]

    @property
    def frames(self) -> int:
        """See `Motion`."""
        return len(self.chosen)

    @property
    def size(self) -> tuple[int, int]:
        """See `Motion`."""
        return self.motion.size

    @property
    def keyframes(self) -> tuple[int, ...]:
        """All of them, since they have been chosen to be painted."""
        return tuple(range(len(self.chosen)))

    @property
    def fingerprint(self) -> str:
        """See `Motion`."""
        return f"{self.motion.fingerprint} {self.chosen}"

    def between(self, frame: int, other: int, grid: tuple[int, int] | None = None) -> PairMotion:
        """See `Motion`."""
        check_frames(self, frame, other)
        return self.motion.between(self.chosen[frame], self.chosen[other], grid)
