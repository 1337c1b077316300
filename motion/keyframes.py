"""Which frames should be painted first: those that show what no keyframe before them shows."""

from collections.abc import Callable

from .motion import Motion

NEW = 0.5  # the share of a frame that the last keyframe does not show, so that it becomes the next
GRID = 32  # cells along the longer side; the share needs no more


def keyframes(motion: Motion, progress: Callable[[], None] = lambda: None) -> list[int]:
    """Return the first frame, and each frame of which the last keyframe shows too little.

    Too little is what comes in gradually, and a cut. What cannot be found counts as not shown.
    progress: called after each frame but the first.
    """
    found = [0]
    for frame in range(1, motion.frames):
        if newly_shown(motion, frame, found[-1]) > NEW:
            found.append(frame)
        progress()
    return found


def newly_shown(motion: Motion, frame: int, other: int) -> float:
    """Return the share of a frame that is not found in another one, from 0 to 1."""
    height, width = motion.size
    shrink = min(GRID / max(height, width), 1)
    grid = max(round(height * shrink), 1), max(round(width * shrink), 1)
    return 1 - float(motion.between(frame, other, grid).trust.mean())
