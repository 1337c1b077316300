"""When two noise levels count as the same one.

A schedule is computed in float32 on whatever machine and with whatever torch there is. Tables of
a thousand multiplied factors, logarithms and powers round there a little differently, which
comes to some 1e-6 of a noise level. Schedules that can be chosen differ by far more: neighbouring
steps by 6e-4 even if there are ten thousand of them, and a denoise that is 0.01 lower by more.
"""

import math
from collections.abc import Sequence

TOLERANCE = 1e-5  # relative


def same_level(one: float, other: float) -> bool:
    """Whether two noise levels, sigmas or timesteps, differ by rounding at most."""
    return math.isclose(one, other, rel_tol=TOLERANCE)


def at_most(one: float, other: float) -> bool:
    """Whether a noise level is below another or the same."""
    return one <= other or same_level(one, other)


def first_difference(ones: Sequence[float], others: Sequence[float]) -> int | None:
    """Where two schedules first have another noise level; None if they have the same ones.

    If one is only longer, this is where the shorter one ends.
    """
    for place, (one, other) in enumerate(zip(ones, others)):
        if not same_level(one, other):
            return place
    return None if len(ones) == len(others) else min(len(ones), len(others))


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Two different numbers in as few digits, at least four, as show that they differ."""
    for digits in range(4, 18):
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts
