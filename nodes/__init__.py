"""ComfyUI V3 nodes: schema and one call each. Every module lists its nodes in NODES.

What a node calls is imported when it runs: ComfyUI's start does not pay for it.
"""

from . import (
    attention,
    consistency,
    control,
    demo,
    dynamics,
    encoding,
    fusion,
    motion,
    noise,
    prompts,
    propagate,
    rerender,
    sampling,
    state,
)

NODES = [
    *attention.NODES,
    *sampling.NODES,
    *noise.NODES,
    *encoding.NODES,
    *state.NODES,
    *motion.NODES,
    *fusion.NODES,
    *rerender.NODES,
    *propagate.NODES,
    *dynamics.NODES,
    *control.NODES,
    *prompts.NODES,
    *consistency.NODES,
    *demo.NODES,
]
