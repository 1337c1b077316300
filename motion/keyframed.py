"""A motion together with the frames that should be painted first."""

from __future__ import annotations

from dataclasses import dataclass

from .motion import Motion
from .pair import PairMotion


@dataclass(frozen=True)
class KeyframedMotion:
    """The motion of a clip whose keyframes are known. See `Motion`.

    keyframes: numbers of frames, ascending.
    """

    motion: Motion
    keyframes: tuple[int, ...]

    @property
    def frames(self) -> int:
        """See `Motion`."""
        return self.motion.frames

    @property
    def size(self) -> tuple[int, int]:
        """See `Motion`."""
        return self.motion.size

    @property
    def fingerprint(self) -> str:
        """See `Motion`."""
        return self.motion.fingerprint

    def between(self, frame: int, other: int, grid: tuple[int, int] | None = None) -> PairMotion:
        """See `Motion`."""
        return self.motion.between(frame, other, grid)
