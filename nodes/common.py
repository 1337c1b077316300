"""What all nodes share: their place in the menus, and words people search for."""

from comfy_api.latest import io

CATEGORY = "CrossFrame"

# The socket of what a run leaves for frames still to come (`hosts.comfy.state.ComfyState`).
StateType = io.Custom("CROSS_FRAME_STATE")

# The socket of what moves where in a clip (`motion.Motion`).
MotionType = io.Custom("CROSS_FRAME_MOTION")

# What people may call the method; only the node that is it answers to all of them.
SEARCH_ALIASES = [
    "cross-frame attention",
    "extended attention",
    "sparse-causal attention",
    "temporal consistency",
    "flicker",
    "deflicker",
    "video to video",
    "vid2vid",
]
FRAME_BY_FRAME_ALIASES = ["cross-frame sampler", "frame by frame", "long video"]


def first_frame_input():
    """Where frames lie that do not come right after their state."""
    return io.Int.Input(
        "first_frame",
        default=0,
        min=0,
        max=999_999,
        optional=True,
        advanced=True,
        tooltip="Only with a state: the number that the first frame here has in the whole video, "
        "counted from 0. The value 0 means that it comes right after the state. A larger number "
        "leaves a gap, and the last frame of the state then counts as the previous frame too.",
    )
