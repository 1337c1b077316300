"""Model files with random weights that ComfyUI's stock loaders take for SD1.5 or SDXL.

They are as small as the loaders allow: levels of 320 channels, for SDXL with the depths of its
smallest relative (Segmind Vega), ComfyUI's tiny autoencoder (the usual one has a fixed width and
is slow on a CPU), and whole CLIP text encoders, whose size ComfyUI does not read from the file.
"""

import math
from pathlib import Path

from workflows.models import SD15, SDXL, Family, Transformer

# What ComfyUI must find out from the weights; num_heads is what it assumes for SD1.5.
_SHARED = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
}
_CONFIG = {
    SD15.name: {
        **_SHARED,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 1],
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "context_dim": 768,
        "num_heads": 8,
    },
    SDXL.name: {
        **_SHARED,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 1, 1],
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "transformer_depth_middle": 2,
        "context_dim": 2048,
        "num_heads": -1,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}


def write_models(folder: Path, family: Family = SD15) -> None:
    """Write a checkpoint and a ControlNet where ComfyUI looks for them under `folder`."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    parts = {
        "model.diffusion_model.": _unet(family),
        "first_stage_model.": _vae(),
        **_text_encoders(family),
    }
    checkpoint = {
        prefix + name: tensor
        for prefix, module in parts.items()
        for name, tensor in _random_weights(module, generator).items()
    }
    for file, weights in (
        (family.checkpoint, checkpoint),
        (family.controlnet, _random_weights(_controlnet(family), generator)),
    ):
        place = folder / file["directory"]
        place.mkdir(parents=True, exist_ok=True)
        save_file(weights, place / file["name"])


def write_vae(folder: Path, family: Transformer) -> None:
    """Write a VAE whose latents have 16 channels where ComfyUI looks for that of a family."""
    import torch
    from safetensors.torch import save_file

    place = folder / family.vae["directory"]
    place.mkdir(parents=True, exist_ok=True)
    weights = _random_weights(_vae(channels=16), torch.Generator().manual_seed(0))
    save_file(weights, place / family.vae["name"])


def write_names(folder: Path, family: Family | Transformer) -> None:
    """Write empty files in place of the models, for those who only look at names."""
    for file in family.files:
        place = folder / file["directory"]
        place.mkdir(parents=True, exist_ok=True)
        (place / file["name"]).touch()


def _random_weights(module, generator) -> dict:
    """Weights for a module without any: normalizing layers do nothing, others keep the scale."""
    return {
        name: _random_weight(name, parameter, generator).half()
        for name, parameter in module.state_dict().items()
    }


def _random_weight(name: str, parameter, generator):
    import torch

    if parameter.ndim > 1:
        gain = 2**0.5 if name.startswith("taesd_decoder") else 1.0  # it has no normalizing
        if name.endswith(("attn1.to_q.weight", "attn1.to_k.weight")):
            gain = 3.0  # else attention is nearly uniform, whomever a frame looks at
        fan_in = parameter[0].numel()
        return _noise(parameter.shape, generator) * (gain * fan_in**-0.5)
    if name == "vae_scale":
        return torch.tensor(0.04)  # makes latents as large as those of the usual autoencoder
    if name == "taesd_decoder.18.bias":
        return torch.full(parameter.shape, 0.5)  # grey, so that bright and dark are both seen
    if name.endswith(("bias", "shift")):
        return torch.zeros(parameter.shape)
    return torch.ones(parameter.shape)


def _noise(shape, generator):
    """Standard normal noise; large tensors repeat themselves, which is much faster."""
    import torch

    count = math.prod(shape)
    few = torch.randn(min(count, 1_000_003), generator=generator)  # prime: no row is another's
    return few.repeat(-(-count // len(few)))[:count].reshape(shape)


def _unet(family: Family):
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = _CONFIG[family.name]
    return UNetModel(
        out_channels=4, operations=comfy.ops.disable_weight_init, device="meta", **config
    )


def _controlnet(family: Family):
    from comfy.cldm.cldm import ControlNet

    return ControlNet(hint_channels=3, device="meta", **_CONFIG[family.name])


def _vae(channels: int = 4):
    import torch
    from comfy.taesd.taesd import TAESD

    with torch.device("meta"):
        return TAESD(latent_channels=channels)


def _text_encoders(family: Family) -> dict:
    """The text encoders by the prefix of their weights."""
    from comfy.sd1_clip import SDClipModel

    if family is SD15:
        return {"cond_stage_model.": SDClipModel(device="meta")}
    from comfy.sdxl_clip import SDXLClipG

    return {
        "conditioner.embedders.0.": SDClipModel(device="meta"),
        "conditioner.embedders.1.model.": SDXLClipG(device="meta"),
    }
