"""ComfyUI V3 nodes: schema and one call each. Every module lists its nodes in NODES."""

from . import attention, consistency, demo, noise, sampling

NODES = [*attention.NODES, *sampling.NODES, *noise.NODES, *consistency.NODES, *demo.NODES]
