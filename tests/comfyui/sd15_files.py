"""Model files with random weights that ComfyUI's stock loaders take for Stable Diffusion 1.5.

They are as small as the loaders allow: two levels of 320 channels, ComfyUI's tiny
autoencoder (the usual one has a fixed width and is slow on a CPU), and the whole CLIP text
encoder, whose size ComfyUI does not read from the file.
"""

from pathlib import Path

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CONTROLNET = "control_v11p_sd15_canny_fp16.safetensors"

# What ComfyUI must find out from the weights; num_heads is what it assumes for SD1.5.
_CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
}


def write_models(folder: Path) -> None:
    """Write a checkpoint and a ControlNet where ComfyUI looks for them under `folder`."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    parts = {
        "model.diffusion_model.": _unet(),
        "first_stage_model.": _vae(),
        "cond_stage_model.": _text_encoder(),
    }
    checkpoint = {
        prefix + name: tensor
        for prefix, module in parts.items()
        for name, tensor in _random_weights(module, generator).items()
    }
    for kind, name, weights in (
        ("checkpoints", CHECKPOINT, checkpoint),
        ("controlnet", CONTROLNET, _random_weights(_controlnet(), generator)),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / kind / name)


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
        return torch.randn(parameter.shape, generator=generator) * gain * fan_in**-0.5
    if name == "vae_scale":
        return torch.tensor(0.04)  # makes latents as large as those of the usual autoencoder
    if name == "taesd_decoder.18.bias":
        return torch.full(parameter.shape, 0.5)  # grey, so that bright and dark are both seen
    if name.endswith(("bias", "shift")):
        return torch.zeros(parameter.shape)
    return torch.ones(parameter.shape)


def _unet():
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel(
        out_channels=4, operations=comfy.ops.disable_weight_init, device="meta", **_CONFIG
    )


def _controlnet():
    from comfy.cldm.cldm import ControlNet

    return ControlNet(hint_channels=3, device="meta", **_CONFIG)


def _vae():
    import torch
    from comfy.taesd.taesd import TAESD

    with torch.device("meta"):
        return TAESD()


def _text_encoder():
    from comfy.sd1_clip import SDClipModel

    return SDClipModel(device="meta")
