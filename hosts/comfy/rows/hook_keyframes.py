"""Keyframes of hooks, which remember from one sampling to the next how far they have come.

ComfyUI's hooks go through their keyframes while a clip is sampled. Frame by frame every frame is
sampled by itself, so the keyframes must be restored before each frame.
"""

from collections.abc import Iterable


class HookKeyframes:
    """The positions of the keyframes of all hooks in conds, at the time when it is made."""

    def __init__(self, conds: Iterable[list[dict]]) -> None:
        """conds: lists of cond dicts, as a guider has them."""
        hooks = [cond["hooks"] for entries in conds for cond in entries if cond.get("hooks")]
        groups = [getattr(hook, "hook_keyframe", None) for group in hooks for hook in group.hooks]
        self._stood = [(group, dict(vars(group))) for group in groups if group is not None]

    def restore(self) -> None:
        """Put all keyframes back to these positions."""
        for group, stood in self._stood:
            vars(group).update(stood)
