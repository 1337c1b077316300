"""Addresses of self-attention layers, and named sets of them.

Every U-Net of the Stable Diffusion family is a contracting path ("input"), a bottom
("middle") and an expanding path ("output", in diffusers `up_blocks`). A block on a path
holds one stack of transformer blocks, and each of those has exactly one attn1.

A diffusion transformer (DiT) is one row of blocks. Some families begin with blocks that have
weights of their own for text and for image ("double") and go on with blocks that share them
("single").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Layer(NamedTuple):
    """Address of one attn1.

    block: "input", "middle" or "output" in a U-Net; in a DiT the kind of block, "double", "single"
        or another word.
    number: position of the block on its path, counted as in the original U-Net and in ComfyUI,
        with down- and upsampling included. In a DiT: position among the blocks of its kind.
    transformer: position of the transformer block, or in a DiT of the layer, inside that block.
    """

    block: str
    number: int
    transformer: int


@dataclass(frozen=True)
class LayerSet:
    """A named set of layers: a predicate over their addresses in a U-Net, and a part of a DiT.

    of_transformer: returns those of all self-attention layers of the image in a DiT, in the order
    of the forward pass, that belong to the set.
    """

    name: str
    contains: Callable[[Layer], bool]
    of_transformer: Callable[[Sequence[Layer]], Sequence[Layer]]

    def __contains__(self, layer: Layer) -> bool:
        return self.contains(layer)


def _later_part(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the single blocks of a DiT if there are also others, else the last two thirds."""
    single = [layer for layer in layers if layer.block == "single"]
    if single and len(single) < len(layers):
        return single
    return layers[len(layers) // 3 :]


def _all_but_first_sixth(layers: Sequence[Layer]) -> Sequence[Layer]:
    return layers[len(layers) // 6 :]


LAYER_SETS: dict[str, LayerSet] = {
    layer_set.name: layer_set
    for layer_set in (
        LayerSet("up", lambda layer: layer.block == "output", _later_part),
        LayerSet(
            "mid + up", lambda layer: layer.block in ("middle", "output"), _all_but_first_sixth
        ),
        LayerSet("all", lambda layer: True, lambda layers: layers),
    )
}
