"""How a run goes on from an earlier one, and what it leaves for a later one."""

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

    state: what earlier frames have left. anchor: one of ANCHORS; ANEW begins a new scene, so
    that frames look at nothing but the frames of this latent. carry: whether to leave a state.
    reference_only: whether frames are only looked at, not painted.
    """

    state: ComfyState | None = None
    anchor: str = KEEP
    carry: bool = False
    reference_only: bool = False

    @property
    def first(self) -> int:
        """Number of the latent's first frame in the clip."""
        return 0 if self.state is None else self.state.frames

    @property
    def has_origin(self) -> bool:
        """Whether it matters what the run is made with."""
        return self.state is not None or self.carry

    def policy(self, policy: Policy) -> Policy:
        """Return a policy with the scenes that the state brings and that this run begins."""
        if self.state is None:
            return policy
        starts = {self.state.scene}
        if self.anchor == ANEW:
            starts.add(self.state.frames)
        return with_scenes(policy, starts)


NOTHING = Continuation()


def state_at(state: Any, first_frame: int) -> ComfyState | None:
    """Return a state for frames that begin at a number of the clip; 0 means right after its own.

    state: what arrives at the node's input; None if nothing is connected. Raises BadInputError if
    it was not kept, if there is none to count from, or if these frames are painted already.
    """
    state = checked_state(state)
    if first_frame == 0:
        return state
    if state is None:
        raise BadInputError(
            "first_frame",
            f"it is {first_frame}, but there is no state.",
            "Connect the state that these frames go on from, or set first_frame to 0.",
        )
    if first_frame < state.frames:
        raise BadInputError(
            "first_frame",
            f"it is {first_frame}, but the state comes after {state.frames} frames.",
            f"Set it to {state.frames} or more, or to 0 for right after the state.",
        )
    return state.moved(first_frame)


def with_state_of_model(guider, continuation: Continuation) -> Continuation:
    """Go on from the state that a guider's MODEL brings, unless the node has one.

    Raises BadInputError if there are two.
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
