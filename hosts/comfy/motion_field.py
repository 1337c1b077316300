"""Motion that is made up for a clip."""

from collections.abc import Callable
from typing import Any

import comfy.model_management
from torch import Tensor

from ...motion import KeyframedMotion
from ...motion.field import EVEN, PACES, MotionField, along
from ...motion.keyframes import keyframes
from .errors import BadInputError
from .motion import motion_pictures

PREVIEW_SIDE = 128  # pixels


def made_motion(
    frames: int,
    size: tuple[int, int],
    shift: tuple[float, float],
    zoom: float,
    turn: float,
    pace: str,
    curve: Any = None,
) -> tuple[KeyframedMotion, Tensor]:
    """Make up the motion of a clip; return it and a picture of it for each frame.

    size: height and width in pixels. shift: x and y, in pixels per frame. zoom: the factor per
    frame. turn: degrees per frame. pace: a name in PACES. curve: a CURVE of ComfyUI from 0 to 1,
    which counts instead. The pictures, (frames, h, w, 3), show the motion to the next frame. Raises
    BadInputError.
    """
    places = along(frames, _pace(pace, curve))
    motion = MotionField(size, *shift, zoom, turn, places)
    found = keyframes(motion, comfy.model_management.throw_exception_if_processing_interrupted)
    return KeyframedMotion(motion, tuple(found)), motion_pictures(motion, _grid(size))


def _grid(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the pictures of a motion of pictures of a size."""
    factor = min(1.0, PREVIEW_SIDE / max(size))
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def _pace(pace: str, curve: Any) -> Callable[[float], float]:
    if curve is None:
        return PACES[pace]
    if pace != EVEN:
        raise BadInputError(
            "pace",
            f"it is '{pace}', but a curve is connected, which counts instead.",
            f"Set it to '{EVEN}', or disconnect the curve.",
        )
    if not callable(getattr(curve, "interp", None)):
        raise BadInputError(
            "curve",
            f"it is not a curve, but a {type(curve).__name__}.",
            "Connect a Curve Editor.",
        )

    def follow(time: float) -> float:
        return float(curve.interp(time)) - float(curve.interp(0.0))

    return follow
