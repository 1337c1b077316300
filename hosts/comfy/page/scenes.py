"""Tell the user which scenes begin among the frames of a latent, and what its keyframes are."""

import logging

from ....attention import Policy
from ....attention.references import Scenes
from .graph import show_on_executed

log = logging.getLogger("crossframe")


def unreached_scenes(policy: Policy, frames: int) -> str:
    """Say which scenes begin after the last frame; return an empty text if there are none.

    frames: the number of the last frame, plus 1. If a clip is painted in pieces, such scenes are
    no mistake: they begin in a later piece.
    """
    beyond = [start for start in _starts(policy) if start >= frames]
    if not beyond:
        return ""
    return f"No scene begins at {_names(beyond)}, since the last frame here is frame {frames - 1}."


def keyframes_of(policy: Policy) -> str:
    """Say which frames are keyframes; return an empty text if there are none."""
    return f"Keyframes: {', '.join(map(str, sorted(policy.named)))}." if policy.named else ""


def show_scenes(policy: Policy, first: int, frames: int) -> None:
    """Show on the executed node which scenes begin among frames, and the keyframes.

    first: the number of the first frame. frames: the number of the last frame, plus 1. With
    scenes, something is always shown. Otherwise an older text about other scenes would stay on a
    stock sampler. Nothing is shown without scenes and keyframes.
    """
    starts = _starts(policy)
    begun = [start for start in starts if first <= start < frames]
    lines = [f"A scene begins at {_names(begun)}."] if begun else []
    if unreached := unreached_scenes(policy, frames):
        log.info("Cross-frame attention: %s", unreached)
        lines.append(unreached)
    if keyframes := keyframes_of(policy):
        lines.append(keyframes)
    if lines:
        show_on_executed("\n".join(lines))


def _starts(policy: Policy) -> tuple[int, ...]:
    return policy.starts if isinstance(policy, Scenes) else ()


def _names(frames: list[int]) -> str:
    return ("frame " if len(frames) == 1 else "frames ") + ", ".join(map(str, frames))
