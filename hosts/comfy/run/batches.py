"""How many frames of a clip are run in one batch: what runs fastest of what fits.

What fits, ComfyUI's own memory estimate tells.
"""

import math
from collections.abc import Callable
from itertools import pairwise

# Many more at once are slower there, as they leave its caches, and take memory: docs/speed.md.
FRAMES_ON_A_PROCESSOR = 8
# ComfyUI puts conds into one batch only if 1.5 times their estimate is free.
HEADROOM = 1.5


def fastest(device_type: str, frames: int) -> int:
    """The most frames, 1 to `frames`, beyond which a batch gets slower, however much would fit.

    device_type: of the device that computes, "cpu", "cuda", ... Measured on processors; on
    graphics cards a larger batch is taken not to be slower.
    """
    return min(frames, FRAMES_ON_A_PROCESSOR) if device_type == "cpu" else frames


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
