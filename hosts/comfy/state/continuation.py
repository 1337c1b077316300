"""How a run continues from an earlier run, and what it leaves for a later run."""

from dataclasses import dataclass, replace
from typing import Any

from ....attention import Policy, with_scenes
from ..errors import BadInputError
from ..model.carried import carried_by
from ..model.settings import NODE
from .comfy_state import ComfyState, checked_state

KEEP = "keep the first frame"
ANEW = "start anew"
ANCHORS = (KEEP, ANEW)


@dataclass(frozen=True)
class Continuation:
    """What the user chose about frames before and after those of a latent.

    state: what earlier frames have left. anchor: one of ANCHORS. ANEW begins a new scene, so that
    frames look only at frames of this latent. carry: whether to leave a state. reference_only:
    whether frames are only looked at, and not painted.
    """

    state: ComfyState | None = None
    anchor: str = KEEP
    carry: bool = False
    reference_only: bool = False

    @property
    def first(self) -> int:
        """The number of the latent's first frame in the clip."""
        return 0 if self.state is None else self.state.frames

    @property
    def has_origin(self) -> bool:
        """Whether the run needs an origin, because it continues from a state or leaves one."""
        return self.state is not None or self.carry

    def policy(self, policy: Policy, frames: int) -> Policy:
        """Return a policy for the frames of this run.

        It has the scene of the state, the scene that this run may begin, and keyframes if it needs
        some. frames: the number of the last frame, plus 1. Raises BadInputError if keyframes are
        beyond the clip, or if they are needed and cannot be chosen.
        """
        if self.state is not None:
            starts = {self.state.scene}
            if self.anchor == ANEW:
                starts.add(self.state.frames)
            policy = with_scenes(policy, starts)
        if beyond := sorted(frame for frame in policy.named if frame >= frames):
            raise BadInputError(
                "keyframes",
                f"frame {beyond[0]} is beyond the clip, whose last frame here is {frames - 1}.",
                "Name frames of the clip. If it is painted in parts, name for each part the "
                "keyframes up to its end.",
            )
        chosen = policy.of_clip([range(self.first, frames)])
        if chosen != policy and self.state is not None:
            raise BadInputError(
                "keyframes",
                "there are none, and they can only be chosen for a clip that begins here.",
                "Write the numbers of the keyframes, those of earlier parts included.",
            )
        return chosen


NOTHING = Continuation()


def state_at(state: Any, first_frame: int) -> ComfyState | None:
    """Return a state for frames that begin at `first_frame`; 0 means right after the state's own.

    state: what arrives at the node's input, or None if nothing is connected. Raises BadInputError
    if the state was not kept, if `first_frame` is given without a state, or if these frames are
    already painted.
    """
    state = checked_state(state)
    if first_frame == 0:
        return state
    if state is None:
        raise BadInputError(
            "first_frame",
            f"it is {first_frame}, but there is no state.",
            "Connect the state that these frames continue from, or set first_frame to 0.",
        )
    if first_frame < state.frames:
        raise BadInputError(
            "first_frame",
            f"it is {first_frame}, but the state comes after {state.frames} frames.",
            f"Set it to {state.frames} or more, or to 0, which means right after the state.",
        )
    return state.moved(first_frame)


def with_state_of_model(guider, continuation: Continuation) -> Continuation:
    """Add the state that a guider's MODEL brings, if there is one.

    Raises BadInputError if the node has a state, too.
    """
    carried = carried_by(guider.model_options)
    if carried is None or carried.settings.state is None:
        return continuation
    if continuation.state is not None:
        raise BadInputError(
            "state",
            f"there is one here and another on the {NODE} node.",
            "Connect only one of the two.",
        )
    return replace(continuation, state=carried.settings.state)
