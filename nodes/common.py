"""What all nodes share: their place in the menus, and words people search for."""

CATEGORY = "CrossFrame"

SEARCH_ALIASES = [
    "cross-frame attention",
    "extended attention",
    "sparse-causal attention",
    "temporal consistency",
    "flicker",
    "video to video",
    "vid2vid",
]
