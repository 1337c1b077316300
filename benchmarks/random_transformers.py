"""Transformers of Flux.1's and Z-Image's geometry with random weights, narrow or at full size.

The narrow ones have an eighth of the family's channels, and the pictures to measure them with have
an eighth of the tokens of a picture of 1024 x 1024 pixels. That keeps the ratio of tokens to
channels, and with it the ratio of attention to everything else. They have fewer layers as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

EIGHTH = 8


@dataclass(frozen=True)
class Transformer:
    """A family: its class in comfy.supported_models, its shape, and the prompt and size it is for.

    config: what ComfyUI detects of a checkpoint. text: the tokens and channels of a prompt. pooled:
    the channels of its pooled output. latent: height and width of a latent; a token is 2 x 2.
    """

    source: str
    config: Mapping[str, Any]
    text: tuple[int, int]
    latent: tuple[int, int]
    pooled: int = 0


def _flux(narrower: int, depth: int, single: int, latent: tuple[int, int]) -> Transformer:
    config = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "vec_in_dim": 768 // narrower,
        "context_in_dim": 4096 // narrower,
        "hidden_size": 3072 // narrower,
        "mlp_ratio": 4.0,
        "num_heads": 24 // narrower,
        "depth": depth,
        "depth_single_blocks": single,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": True,
        "txt_ids_dims": [],
    }
    text = (512 // narrower, 4096 // narrower)
    return Transformer("Flux", config, text, latent, pooled=768 // narrower)


def _z_image(width: int, heads: int, layers: int, latent: tuple[int, int]) -> Transformer:
    config = {
        "image_model": "lumina2",
        "patch_size": 2,
        "in_channels": 16,
        "dim": width,
        "cap_feat_dim": 2560 * width // 3840,
        "n_layers": layers,
        "n_refiner_layers": 2,
        "qk_norm": True,
        "n_heads": heads,
        "n_kv_heads": heads,
        "axes_dims": [32, 48, 48],
        "axes_lens": [1536, 512, 512],
        "multiple_of": 256,
        "ffn_dim_multiplier": 8 / 3,
        "rope_theta": 256.0,
        "z_image_modulation": True,
        "time_scale": 1000.0,
        "pad_tokens_multiple": 32,
    }
    return Transformer("ZImage", config, (32, 2560 * width // 3840), latent)


TRANSFORMERS = {
    # 512 tokens beside 384 channels: 4096 beside 3072 in Flux.1. One double block to two single.
    "flux": _flux(EIGHTH, depth=2, single=4, latent=(32, 64)),
    # 416 tokens beside 384 channels, about 4096 beside 3840 in Z-Image.
    "z-image": _z_image(width=384, heads=3, layers=6, latent=(32, 52)),
    "flux-full": _flux(1, depth=19, single=38, latent=(128, 128)),
    "z-image-full": _z_image(width=3840, heads=30, layers=30, latent=(128, 128)),
}


def random_transformer(family: Transformer, dtype: torch.dtype = torch.float32):
    """Return a MODEL with seeded random weights. dtype: that of weights and computation."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = dict(family.config)
    settings = getattr(comfy.supported_models, family.source)(config)
    settings.unet_config.update(config)
    settings.set_inference_dtype(dtype, None)
    real = settings.get_model({}, "")
    generator = torch.Generator().manual_seed(0)
    for name, weight in sorted(real.diffusion_model.named_parameters()):
        normal = torch.empty(weight.shape).normal_(0, 1, generator=generator)
        if weight.ndim > 1:
            normal *= weight[0].numel() ** -0.5
        else:
            normal = normal * 0.1 + (1 if "norm" in name and not name.endswith("bias") else 0)
        weight.data = normal.to(dtype)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(real, device, device)


def random_text(family: Transformer, seed: int = 0) -> list:
    """Return a random CONDITIONING in the size that a family needs."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, *family.text, generator=generator)
    pooled = torch.randn(1, family.pooled, generator=generator) if family.pooled else None
    return [[tokens, {"pooled_output": pooled}]]
