"""Scenes that the user names, told back: which of them begin among the frames of a latent."""

import logging

from ....attention import Policy
from ....attention.references import Scenes
from .graph import show_on_executed

log = logging.getLogger("crossframe")


def unreached_scenes(policy: Policy, frames: int) -> str:
    """Say which scenes begin after the last frame; nothing if there are none.

    frames: number of the last frame, plus 1. Where a clip is painted in pieces such scenes are
    no mistake: they begin in a later piece.
    """
    beyond = [start for start in _starts(policy) if start >= frames]
    if not beyond:
        return ""
    return f"No scene begins at {_names(beyond)}, since the last frame here is frame {frames - 1}."


def show_scenes(policy: Policy, first: int, frames: int) -> None:
    """Show on the node that is executed which scenes begin among frames; nothing without scenes.

    first: number of the first frame. frames: of the last, plus 1. It is said in any case, so that
    what a stock sampler has said about other scenes before does not stay on it.
    """
    starts = _starts(policy)
    begun = [start for start in starts if first <= start < frames]
    lines = [f"A scene begins at {_names(begun)}."] if begun else []
    if unreached := unreached_scenes(policy, frames):
        log.info("Cross-frame attention: %s", unreached)
        lines.append(unreached)
    if lines:
        show_on_executed("\n".join(lines))


def _starts(policy: Policy) -> tuple[int, ...]:
    return policy.starts if isinstance(policy, Scenes) else ()


def _names(frames: list[int]) -> str:
    return ("frame " if len(frames) == 1 else "frames ") + ", ".join(map(str, frames))
