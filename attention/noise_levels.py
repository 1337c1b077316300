"""When two noise levels count as the same.

A schedule is computed in float32. Tables of a thousand multiplied factors, logarithms and powers
round a little differently on each machine and with each version of torch, by about 1e-6 of a noise
level. Schedules that a user can choose differ by far more: neighbouring steps differ by 6e-4 even
if there are ten thousand of them, and lowering denoise by 0.01 makes a larger difference than that.
"""

import math
from collections.abc import Sequence

TOLERANCE = 1e-5  # relative


def same_level(one: float, other: float) -> bool:
    """Return whether two noise levels (sigmas or timesteps) differ only by rounding."""
    return math.isclose(one, other, rel_tol=TOLERANCE)


def at_most(one: float, other: float) -> bool:
    """Return whether the first noise level is below the other or the same."""
    return one <= other or same_level(one, other)


def first_difference(ones: Sequence[float], others: Sequence[float]) -> int | None:
    """Return the first position at which two schedules differ, or None if they are the same.

    If one schedule only continues the other, this is the length of the shorter one.
    """
    for place, (one, other) in enumerate(zip(ones, others)):
        if not same_level(one, other):
            return place
    return None if len(ones) == len(others) else min(len(ones), len(others))


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Write two different numbers with as few digits as show the difference, but at least four."""
    for digits in range(4, 18):
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts
