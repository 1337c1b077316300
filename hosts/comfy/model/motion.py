"""Check the motion of a clip that arrives at a node, and read its keyframes."""

from typing import Any

from torch import Tensor

from ....latents.fusion import FIRST_AND_PREVIOUS, KEYFRAMES
from ....motion import Motion
from ..errors import BadInputError
from .policy import frames_in


def checked_motion(motion: Any) -> Motion:
    """Return what arrives at an input `motion`. Raises BadInputError if it is no motion."""
    if isinstance(motion, Motion):
        return motion
    raise BadInputError(
        "motion",
        f"it is not the motion of a clip, but a {type(motion).__name__}.",
        "Connect the output 'motion' of CrossFrameMotion.",
    )


def checked_foreground(foreground: Any, frames: int) -> Tensor:
    """Return a MASK as (1 or frames, height, width). frames: those of the clip.

    Raises BadInputError if it is no mask, or has neither one row nor one per frame.
    """
    if not isinstance(foreground, Tensor) or foreground.ndim not in (2, 3):
        raise BadInputError("foreground", "it is not a mask.", "Connect a MASK.")
    masks = foreground[None] if foreground.ndim == 2 else foreground
    if len(masks) not in (1, frames):
        raise BadInputError(
            "foreground",
            f"it has {len(masks)} masks for a clip of {frames} frames.",
            f"Give 1 for all frames, or {frames}.",
        )
    return masks


def fused_keyframes(to: str, text: str, motion: Any) -> tuple[int, ...]:
    """Return the keyframes that frames are fused to. text: their numbers, or empty.

    Raises BadInputError if the text has anything but numbers, or if nobody is fused to keyframes.
    """
    if to != KEYFRAMES:
        if text.strip():
            raise BadInputError(
                "keyframes",
                f"frames are fused to '{to}', so keyframes do nothing.",
                f"Leave it empty, or set to to '{KEYFRAMES}'.",
            )
        return ()
    frames = frames_in("keyframes", text)
    if not text.strip():
        frames = list(getattr(motion, "keyframes", ()))
    if not frames:
        raise BadInputError(
            "keyframes",
            "there are none, neither here nor in the motion.",
            f"Write their numbers, e.g. 0, 24, or set to to '{FIRST_AND_PREVIOUS}'.",
        )
    return tuple(sorted(set(frames)))
