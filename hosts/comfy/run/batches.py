"""Choose how many frames of a clip are run in one batch: the fastest number that fits.

ComfyUI's own memory estimate decides what fits.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain, pairwise

from ....attention.painting_order import Group

# On a CPU, many more frames at once are slower, because they do not fit its caches, and they take
# more memory. See docs/speed.md.
FRAMES_ON_A_CPU = 8
# ComfyUI puts conds into one batch only if 1.5 times the estimated memory is free.
HEADROOM = 1.5


def fastest(device_type: str, frames: int) -> int:
    """Return the number of frames, 1 to `frames`, beyond which a batch gets slower.

    device_type: the type of the device that computes: "cpu", "cuda", ... The limit was measured on
    CPUs. On graphics cards a larger batch is assumed not to be slower.
    """
    return min(frames, FRAMES_ON_A_CPU) if device_type == "cpu" else frames


def frames_that_fit(required: Callable[[int], float], free: float, frames: int) -> int:
    """Return the most frames, 1 to `frames`, whose estimate times HEADROOM is below `free`.

    required: returns the bytes that ComfyUI expects for a number of frames; more frames must not
    need fewer bytes.
    """
    fits, over = 1, frames + 1
    while over - fits > 1:
        middle = (fits + over) // 2
        if required(middle) * HEADROOM < free:
            fits = middle
        else:
            over = middle
    return fits


def batches(groups: Sequence[Group], most: int) -> list[Group]:
    """Split frames into as few batches as possible, of nearly equal size and at most `most` frames.

    groups: frames that must be run together, in the order of painting. A group of more than
    `most` frames is a batch by itself.
    """
    largest = max(map(len, groups))
    if any(len(group) != largest for group in groups):
        return _filled(groups, most)
    count = math.ceil(len(groups) / max(most // largest, 1))
    edges = [round(i * len(groups) / count) for i in range(count + 1)]
    # Within a batch the order does not matter. The clip's own order avoids copies.
    return [tuple(sorted(chain(*groups[start:stop]))) for start, stop in pairwise(edges)]


def _filled(groups: Sequence[Group], most: int) -> list[Group]:
    """Put groups of different sizes into batches, one after another, until a batch is full."""
    filled = [groups[0]]
    for group in groups[1:]:
        if len(filled[-1]) + len(group) <= most:
            filled[-1] = tuple(sorted((*filled[-1], *group)))
        else:
            filled.append(group)
    return filled
