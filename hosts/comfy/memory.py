"""How many frames of a clip are run in one batch, by ComfyUI's own memory estimate."""

import math
from collections.abc import Callable
from itertools import pairwise

# ComfyUI puts conds into one batch only if 1.5 times their estimate is free.
HEADROOM = 1.5


def frames_that_fit(required: Callable[[int], float], free: float, frames: int) -> int:
    """Return the most frames, 1 to `frames`, whose estimate times HEADROOM is below `free`.

    required: bytes that ComfyUI expects for a number of frames; it must not fall.
    """
    fits, over = 1, frames + 1
    while over - fits > 1:
        middle = (fits + over) // 2
        if required(middle) * HEADROOM < free:
            fits = middle
        else:
            over = middle
    return fits


def batches(frames: int, at_most: int, first: int = 0) -> list[range]:
    """Split frames into as few batches as `at_most` each allow, of nearly equal size.

    first: number of the first frame.
    """
    count = math.ceil(frames / at_most)
    edges = [first + round(i * frames / count) for i in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]
