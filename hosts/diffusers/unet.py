"""The self-attention layers of a diffusers U-Net, by the addresses that the core uses."""

import re
from collections.abc import Sequence
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from ...attention import Layer

ATTN1_NAME = re.compile(
    r"(?P<path>down_blocks|mid_block|up_blocks)(\.(?P<block>\d+))?"
    r"\.attentions\.(?P<attention>\d+)\.transformer_blocks\.(?P<index>\d+)\.attn1(\.processor)?"
)


def layer_address(name: str, layers_per_block: int | Sequence[int]) -> Layer | None:
    """Translate diffusers' name of an attn1, or of its processor, to its layer address.

    name: e.g. "up_blocks.1.attentions.0.transformer_blocks.0.attn1.processor".
    layers_per_block: one number or one number per down block, as in the U-Net's config.
    Returns None for any other name.

    The original U-Net has a flat list per path. Entry 0 of "input" is a convolution. Then each down
    block adds `layers_per_block` entries and one for its downsampling. In "output", each up block
    adds one entry more than its down block has layers, and upsampling is part of the last entry.
    """
    match = ATTN1_NAME.fullmatch(name)
    if match is None:
        return None
    attention, index = int(match["attention"]), int(match["index"])
    if match["path"] == "mid_block":
        return Layer("middle", attention, index)
    block = int(match["block"])
    if isinstance(layers_per_block, int):
        layers_per_block = [layers_per_block] * block
    if match["path"] == "down_blocks":
        before = sum(layers + 1 for layers in layers_per_block[:block])
        return Layer("input", 1 + before + attention, index)
    before = sum(layers + 1 for layers in list(reversed(layers_per_block))[:block])
    return Layer("output", before + attention, index)


def self_attention_layers(unet: UNet2DConditionModel) -> dict[Layer, Attention]:
    """Return all attn1 of a U-Net by layer address."""
    named = (
        (layer_address(name, unet.config.layers_per_block), module)
        for name, module in unet.named_modules()
    )
    return {layer: module for layer, module in named if layer and isinstance(module, Attention)}


def find_unet(pipeline_or_unet: Any) -> UNet2DConditionModel:
    """Return the U-Net of a pipeline, or the U-Net itself. Raises ValueError if there is none."""
    unet = uncompiled(getattr(pipeline_or_unet, "unet", pipeline_or_unet))
    if not isinstance(unet, UNet2DConditionModel):
        raise ValueError(
            f"{type(pipeline_or_unet).__name__} has no UNet2DConditionModel; cross-frame "
            "attention works with Stable Diffusion 1.x, 2.x and SDXL pipelines"
        )
    return unet


def uncompiled(module: Any) -> Any:
    """Return the module that torch.compile wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)
