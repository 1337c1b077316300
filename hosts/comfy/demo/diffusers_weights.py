"""Translate settings and weights of a Stable Diffusion model from diffusers to ComfyUI.

ComfyUI keeps the layout of the original code. Its own translation knows only the shapes of released
models, so here the shapes come from a model's config. Every function below takes the config.json of
its part as a dict. Tables of names map diffusers' names to ComfyUI's.
"""

from collections.abc import Mapping, Sequence

import comfy.utils
import torch


class ChannelFactor(float):
    """The width of a level as a multiple of the first level's width, e.g. 1.5.

    ComfyUI multiplies it with that width and needs an int. Released models have whole factors.
    """

    def __mul__(self, channels: float) -> int:
        return round(float(self) * channels)

    __rmul__ = __mul__


def channel_factors(config: Mapping) -> list[ChannelFactor]:
    """Return the widths of the levels as multiples of the first."""
    widths = config["block_out_channels"]
    return [ChannelFactor(width / widths[0]) for width in widths]


def shrink(channels: Sequence) -> int:
    """Return the pixels per latent along each axis if a network halves its input between levels."""
    return 2 ** (len(channels) - 1)


def unet_settings(config: Mapping, dtype: torch.dtype) -> dict:
    """Return ComfyUI's settings of a U-Net or of its ControlNet.

    The up blocks are assumed to have attention at the same levels as the down blocks.
    """
    layers, depth = config["layers_per_block"], config["transformer_layers_per_block"]
    blocks = config["down_block_types"]  # finest level first, as in ComfyUI's lists
    depths = [depth if block == "CrossAttnDownBlock2D" else 0 for block in blocks]
    return {
        "image_size": 32,  # not used
        "in_channels": config["in_channels"],
        "out_channels": config.get("out_channels"),  # a ControlNet has none
        "model_channels": config["block_out_channels"][0],
        "channel_mult": channel_factors(config),
        "num_res_blocks": [layers] * len(blocks),
        "transformer_depth": [level for level in depths for _ in range(layers)],
        "transformer_depth_middle": depth,
        "transformer_depth_output": [level for level in depths for _ in range(layers + 1)],
        "num_heads": config["attention_head_dim"],  # despite its name, it is the number of heads
        "num_head_channels": -1,
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": config["use_linear_projection"],
        "use_temporal_attention": False,
        "adm_in_channels": None,
        "legacy": False,
        "dtype": dtype,
    }


def unet_names(config: Mapping) -> dict[str, str]:
    """Return ComfyUI's names of the weights of a U-Net, by diffusers' names."""
    return comfy.utils.unet_to_diffusers(unet_settings(config, torch.float32))


def controlnet_names(config: Mapping) -> dict[str, str]:
    """Return ComfyUI's names of the weights of a ControlNet, by diffusers' names.

    A ControlNet consists of a U-Net's encoder, outputs and hint layers.
    """
    skips = len(config["block_out_channels"]) * (config["layers_per_block"] + 1)
    parts = {f"controlnet_down_blocks.{n}": f"zero_convs.{n}.0" for n in range(skips)}
    parts["controlnet_mid_block"] = "middle_block_out.0"
    blocks = 2 * (len(config["conditioning_embedding_out_channels"]) - 1)
    hint_layers = ["conv_in", *(f"blocks.{n}" for n in range(blocks)), "conv_out"]
    for number, layer in enumerate(hint_layers):  # ComfyUI also counts activations between them
        parts[f"controlnet_cond_embedding.{layer}"] = f"input_hint_block.{2 * number}"
    names = unet_names(config)
    for theirs, ours in parts.items():
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}
    return names


def renamed(weights: Mapping, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Return weights by their new names. Unknown names stay, so that loading refuses them."""
    return {names.get(name, name): weight for name, weight in weights.items()}


def autoencoder_settings(config: Mapping) -> dict:
    """Return ComfyUI's settings of an autoencoder with attention only in the middle."""
    return {
        "ch": config["block_out_channels"][0],
        "ch_mult": channel_factors(config),
        "num_res_blocks": config["layers_per_block"],
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "z_channels": config["latent_channels"],
        "double_z": True,
        "resolution": config["sample_size"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def autoencoder_weights(config: Mapping, weights: Mapping) -> dict[str, torch.Tensor]:
    """Return the weights of an autoencoder by ComfyUI's names and in its shapes."""
    levels = len(config["block_out_channels"])
    words = {f"up_blocks.{n}.": f"up.{levels - 1 - n}." for n in range(levels)}
    words |= {
        "down_blocks.": "down.",
        "mid_block.resnets.0.": "mid.block_1.",
        "mid_block.resnets.1.": "mid.block_2.",
        "mid_block.attentions.0.": "mid.attn_1.",
        "resnets.": "block.",
        "downsamplers.0.": "downsample.",
        "upsamplers.0.": "upsample.",
        "conv_shortcut.": "nin_shortcut.",
        "conv_norm_out.": "norm_out.",
        "group_norm.": "norm.",
        "to_q.": "q.",
        "to_k.": "k.",
        "to_v.": "v.",
        "to_out.0.": "proj_out.",
    }
    translated = {}
    for name, weight in weights.items():
        for theirs, ours in words.items():
            name = name.replace(theirs, ours)
        if weight.ndim == 2:  # the attention's linear layers are convolutions in ComfyUI
            weight = weight[:, :, None, None]
        translated[name] = weight
    return translated


def text_encoder_weights(config: Mapping, weights: Mapping) -> dict[str, torch.Tensor]:
    """Return the weights of a CLIP text encoder by ComfyUI's names.

    Versions of transformers differ in whether names begin with `text_model.`. ComfyUI's class
    adds a projection, which gets weights that have no effect.
    """
    prefix = "text_model."
    translated = {prefix + name.removeprefix(prefix): weight for name, weight in weights.items()}
    translated["text_projection.weight"] = torch.eye(config["hidden_size"])
    return translated
