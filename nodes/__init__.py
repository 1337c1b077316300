"""ComfyUI V3 nodes: schema and one call each. Every module lists its nodes in NODES."""

from . import attention, noise, sampling

NODES = [*attention.NODES, *sampling.NODES, *noise.NODES]
