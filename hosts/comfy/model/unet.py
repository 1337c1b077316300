"""The self-attention layers of a ComfyUI U-Net."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from comfy.ldm.modules.attention import (
    BasicTransformerBlock,
    SpatialTransformer,
    SpatialVideoTransformer,
)
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel

from ....attention import Layer, LayerSet
from ..errors import BadInputError


class Attn1(NamedTuple):
    """One attn1: its address, its number of channels, and how often its input was halved."""

    layer: Layer
    channels: int
    halvings: int

    def tokens(self, height: int, width: int) -> int:
        """Return the number of tokens of one frame for a latent of height x width."""
        for _ in range(self.halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height * width


def is_unet(model) -> bool:
    """Return whether a MODEL is a U-Net of the Stable Diffusion family."""
    return isinstance(model.model.diffusion_model, UNetModel)


def self_attention_layers(model, layer_set: LayerSet) -> list[Attn1]:
    """List the self-attention layers of a MODEL that belong to a layer set.

    Raises BadInputError, which names the model family, if the U-Net is not one of images, with
    self-attention in these layers.
    """
    unet = model.model.diffusion_model
    family = type(model.model).__name__
    if any(isinstance(module, SpatialVideoTransformer) for module in unet.modules()):
        raise BadInputError(
            "model",
            f"{family} is a video model and already attends across frames.",
            "Use an image checkpoint (Stable Diffusion 1.x, 2.x or SDXL).",
        )
    every = attn1_layers(unet)
    chosen = layer_set.of_unet({attn1.layer: attn1.channels for attn1 in every})
    layers = [attn1 for attn1 in every if attn1.layer in chosen]
    if not layers:
        raise BadInputError(
            "layers",
            f"{family} has no self-attention in the layers '{layer_set.name}'.",
            "Choose 'all'.",
        )
    return layers


def typical_weights(model) -> torch.Tensor:
    """Return weights of a MODEL that are others in every checkpoint."""
    weights: torch.Tensor = model.model.diffusion_model.time_embed[0].weight
    return weights


def other_counts(model) -> frozenset[int]:
    """Return the numbers of channels and heads of a MODEL, which could be taken for rows."""
    blocks = transformer_blocks(model.model.diffusion_model)
    heads = {block.attn1.heads for _, block in blocks}
    return frozenset({model.model.latent_format.latent_channels, *heads})


def transformer_blocks(unet: UNetModel) -> Iterator[tuple[Layer, BasicTransformerBlock]]:
    """Yield each transformer block with its attn1's address, in the order of the forward pass."""
    for block, name, number in blocks_of(unet):
        yield from _transformers(block, name, number)


def blocks_of(network) -> Iterator[tuple[Iterable, str, int]]:
    """Yield the blocks of a U-Net, or of a ControlNet, which has no output blocks.

    Each comes with the name of its path and its number there, in the order of the forward pass.
    """
    for number, block in enumerate(network.input_blocks):
        yield block, "input", number
    if network.middle_block is not None:
        yield network.middle_block, "middle", 0
    for number, block in enumerate(getattr(network, "output_blocks", ())):
        yield block, "output", number


def _transformers(block, name: str, number: int) -> Iterator[tuple[Layer, BasicTransformerBlock]]:
    for module in block:
        if isinstance(module, SpatialTransformer):
            for index, transformer in enumerate(module.transformer_blocks):
                yield Layer(name, number, index), transformer


def attn1_layers(network) -> list[Attn1]:
    """Return all self-attention layers of a U-Net or a ControlNet, in the order of its pass."""
    found: list[Attn1] = []
    halvings = 0
    skips: list[int] = []
    for block, name, number in blocks_of(network):
        found += _attn1s(block, name, number, skips.pop() if name == "output" else halvings)
        if name == "input":
            halvings += sum(isinstance(module, Downsample) for module in block)
            skips.append(halvings)
    return found


def _attn1s(block, name: str, number: int, halvings: int) -> list[Attn1]:
    """Return the self-attention layers of one block, without attn1s that read the prompt."""
    return [
        Attn1(layer, transformer.attn1.to_k.in_features, halvings)
        for layer, transformer in _transformers(block, name, number)
        if not transformer.disable_self_attn
    ]
