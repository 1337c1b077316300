"""Addresses of self-attention layers, and named sets of them.

Every U-Net of the Stable Diffusion family is a contracting path ("input"), a bottom
("middle") and an expanding path ("output", in diffusers `up_blocks`). A block on a path
holds one stack of transformer blocks, and each of those has exactly one attn1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Layer(NamedTuple):
    """Address of one attn1.

    block: "input", "middle" or "output".
    number: position of the block on its path, counted as in the original U-Net and in ComfyUI,
        with down- and upsampling included.
    transformer: position of the transformer block inside that block.
    """

    block: str
    number: int
    transformer: int


@dataclass(frozen=True)
class LayerSet:
    """A named set of layers: a predicate over their addresses."""

    name: str
    contains: Callable[[Layer], bool]

    def __contains__(self, layer: Layer) -> bool:
        return self.contains(layer)


LAYER_SETS: dict[str, LayerSet] = {
    layer_set.name: layer_set
    for layer_set in (
        LayerSet("up", lambda layer: layer.block == "output"),
        LayerSet("mid + up", lambda layer: layer.block in ("middle", "output")),
        LayerSet("all", lambda layer: True),
    )
}
