"""What the frame-by-frame samplers have in common about earlier and later frames."""

from comfy_api.latest import io

from ..hosts.comfy.page.graph import is_connected, show
from ..hosts.comfy.state.comfy_state import NOT_KEPT
from ..hosts.comfy.state.continuation import ANCHORS, Continuation, state_at
from .common import StateType, first_frame_input


def continuation_inputs() -> list:
    """The inputs that say what frames go on from and what they leave."""
    return [
        StateType.Input(
            "state",
            optional=True,
            tooltip="Go on from what earlier frames or a reference picture have left. The frames "
            "here come after those. Settings, size and steps must be the same.",
        ),
        io.Combo.Input(
            "anchor",
            options=list(ANCHORS),
            default=ANCHORS[0],
            optional=True,
            advanced=True,
            tooltip="Only with a state. 'keep the first frame' goes on looking at the first frame "
            "of the state. 'start anew' is for a scene cut: the first frame here takes its place.",
        ),
        first_frame_input(),
        io.Boolean.Input(
            "keep_state",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Keep the state in system memory even if nothing is connected to its output.",
        ),
        io.Boolean.Input(
            "reference_only",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Only look at the latents and do not paint them. They come out as they are, "
            "and the state holds their look for other frames.",
        ),
        io.Boolean.Input(
            "resume",
            default=False,
            optional=True,
            advanced=True,
            tooltip="While sampling, keep finished frames on disk, with what later frames need. "
            "After Cancel, an error or a crash, queue the same graph again. It goes on with the "
            "next frame. This writes up to half a gigabyte per frame for SD1.5 at 20 steps.",
        ),
    ]


def state_output():
    """The output for frames that come after these."""
    return StateType.Output(
        display_name="state",
        tooltip="What later frames need from these. It is kept only if something is connected here "
        "when the node runs, or if keep_state is on.",
    )


def continuation(node, inputs: dict, output: int) -> Continuation:
    """Take these inputs out of a node's inputs.

    node: the class that is executed, a copy that ComfyUI has made and named. output: position of
    its state.
    """
    keep = inputs.pop("keep_state", False)
    first_frame = inputs.pop("first_frame", 0)
    return Continuation(
        state=state_at(inputs.pop("state", None), first_frame),
        anchor=inputs.pop("anchor", ANCHORS[0]),
        carry=keep or is_connected(node, output),
        reference_only=inputs.pop("reference_only", False),
    )


def given_state(sampled):
    """What a sampler gives at its output for frames that come after its own."""
    return NOT_KEPT if sampled.state is None else sampled.state


def report(node, sampled) -> dict:
    """Write on the node what it has done and what state it leaves; the same for the page."""
    lines = [*sampled.report] + ([] if sampled.state is None else [repr(sampled.state)])
    show(node, "\n".join(lines))
    return {"text": lines}
