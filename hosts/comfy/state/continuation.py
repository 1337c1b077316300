"""How a run goes on from an earlier one, and what it leaves for a later one."""

from dataclasses import dataclass, replace
from typing import Any

from ....attention import Policy, with_scenes
from ..errors import BadInputError
from ..model.settings import KEY, NODE
from .comfy_state import ComfyState, checked_state

KEEP = "keep the first frame"
ANEW = "start anew"
ANCHORS = (KEEP, ANEW)


@dataclass(frozen=True)
class Continuation:
    """What the user chose, about frames before and after those of a latent.

    state: what earlier frames have left. anchor: one of ANCHORS; ANEW begins a new scene, so
    that nothing is looked at but the frames of this latent. carry: whether to leave a state.
    reference_only: whether frames are only looked at, not painted. resumed: what this run
    itself had left before it was interrupted.
    """

    state: ComfyState | None = None
    anchor: str = KEEP
    carry: bool = False
    reference_only: bool = False
    resumed: ComfyState | None = None

    @property
    def first(self) -> int:
        """Number of the latent's first frame in the clip."""
        return 0 if self.state is None else self.state.frames

    @property
    def has_origin(self) -> bool:
        """Whether it matters what the run is made with."""
        return self.state is not None or self.carry

    def policy(self, policy: Policy) -> Policy:
        """A policy with the scenes that the state brings and that this run begins."""
        if self.state is None:
            return policy
        starts = {self.state.scene}
        if self.anchor == ANEW:
            starts.add(self.state.frames)
        return with_scenes(policy, starts)


NOTHING = Continuation()


def state_at(state: Any, first_frame: int, node: str) -> ComfyState | None:
    """A state for frames that begin at a number of the clip; 0 for right after the state's.

    state: what arrives at the node's input; None if nothing is connected. Raises BadInputError if
    it was not kept, if there is none to count from, or if these frames are painted.
    """
    state = checked_state(state, node)
    if first_frame == 0:
        return state
    if state is None:
        raise BadInputError(
            node,
            "first_frame",
            f"it is {first_frame}, but there is no state.",
            "Connect the state that these frames go on from, or set first_frame to 0.",
        )
    if first_frame < state.frames:
        raise BadInputError(
            node,
            "first_frame",
            f"it is {first_frame}, but the state comes after {state.frames} frames.",
            f"Set it to {state.frames} or more, or to 0 for right after the state.",
        )
    return state.moved(first_frame)


def with_state_of_model(guider, going: Continuation, node: str) -> Continuation:
    """Go on from the state that a guider's MODEL brings, unless the node has one.

    Raises BadInputError if there are two.
    """
    settings = guider.model_options.get(KEY)
    if settings is None or settings.state is None:
        return going
    if going.state is not None:
        raise BadInputError(
            node,
            "state",
            f"there is one here and another on the {NODE} node.",
            "Connect only one of the two.",
        )
    return replace(going, state=settings.state)
