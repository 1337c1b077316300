"""What all nodes share: their place in the menus, and words people search for."""

from comfy_api.latest import io

CATEGORY = "CrossFrame"

# The socket of what a run leaves for frames still to come (`hosts.comfy.state.ComfyState`).
StateType = io.Custom("CROSS_FRAME_STATE")

SEARCH_ALIASES = [
    "cross-frame attention",
    "extended attention",
    "sparse-causal attention",
    "temporal consistency",
    "flicker",
    "video to video",
    "vid2vid",
]
