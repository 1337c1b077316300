"""ComfyUI V3 nodes: schema and one call each. Every module lists its nodes in NODES."""

from . import attention, consistency, demo, noise, sampling, state

NODES = [
    *attention.NODES,
    *sampling.NODES,
    *noise.NODES,
    *state.NODES,
    *consistency.NODES,
    *demo.NODES,
]
