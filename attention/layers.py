"""Addresses of self-attention layers, and named sets of them.

Every U-Net of the Stable Diffusion family is a contracting path ("input"), a bottom
("middle") and an expanding path ("output", in diffusers `up_blocks`). A block on a path
holds one stack of transformer blocks, and each of those has exactly one attn1.

A diffusion transformer (DiT) is one row of blocks. Some families begin with blocks that have
weights of their own for text and for image ("double") and go on with blocks that share them
("single").
"""

from collections.abc import Callable, Mapping, Sequence
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
    """A named set of layers.

    of_unet: returns those of a U-Net's layers that belong to the set. It gets the number of
    channels of each. of_transformer: returns those of all self-attention layers of the image in a
    DiT. Both keep the order of the forward pass.
    """

    name: str
    of_unet: Callable[[Mapping[Layer, int]], Sequence[Layer]]
    of_transformer: Callable[[Sequence[Layer]], Sequence[Layer]]


def _in_blocks(*blocks: str) -> Callable[[Mapping[Layer, int]], Sequence[Layer]]:
    """Return a function that chooses the layers in some kinds of blocks of a U-Net."""
    return lambda channels: [layer for layer in channels if layer.block in blocks]


def _loose_up(channels: Mapping[Layer, int]) -> Sequence[Layer]:
    """Return the layers on the expanding path without its innermost level, the widest one.

    Rerender A Video calls cross-frame attention in these layers loose: shapes may differ more.
    """
    up = _in_blocks("output")(channels)
    widest = max((channels[layer] for layer in up), default=0)
    return [layer for layer in up if channels[layer] < widest]


def _later_part(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the single blocks of a DiT if there are also others, else the last two thirds."""
    single = [layer for layer in layers if layer.block == "single"]
    if single and len(single) < len(layers):
        return single
    return layers[len(layers) // 3 :]


def _last_of_later_part(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the second half of what `up` takes of a DiT."""
    later = _later_part(layers)
    return later[len(later) // 2 :]


def _all_but_first_sixth(layers: Sequence[Layer]) -> Sequence[Layer]:
    return layers[len(layers) // 6 :]


LAYER_SETS: dict[str, LayerSet] = {
    layer_set.name: layer_set
    for layer_set in (
        LayerSet("up", _in_blocks("output"), _later_part),
        LayerSet("mid + up", _in_blocks("middle", "output"), _all_but_first_sixth),
        LayerSet("all", _in_blocks("input", "middle", "output"), lambda layers: layers),
        LayerSet("up, loose", _loose_up, _last_of_later_part),
    )
}
