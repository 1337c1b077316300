"""U-Nets of SD1.5's and SDXL's geometry with random weights, at full size or narrower."""

import math

import torch

# What defines each family at any width. The transformer depths are listed by block.
GEOMETRY = {
    "sd15": {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "context_dim": 768,
    },
    "sdxl": {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "context_dim": 2048,
    },
}
FULL, QUARTER = 320, 80  # numbers of channels of the first level
_SHARED = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
}
_FAMILY = {
    "sd15": {"use_linear_in_transformer": False, "adm_in_channels": None},
    "sdxl": {
        "use_linear_in_transformer": True,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    },
}


def random_model(family: str, channels: int = FULL, dtype: torch.dtype = torch.float32):
    """Return a MODEL of a family (a key of GEOMETRY) with seeded random weights.

    channels: the number of channels of its first level. dtype: the dtype of weights and
    computation. SD1.5 has 8 heads at full width, and proportionally fewer at smaller widths. The
    heads of SDXL have 64 channels at full width and 40 at a quarter.
    """
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    base, settings = {
        "sd15": (comfy.model_base.BaseModel, comfy.supported_models.SD15),
        "sdxl": (comfy.model_base.SDXL, comfy.supported_models.SDXL),
    }[family]
    shape = {**_SHARED, **_FAMILY[family], **GEOMETRY[family]}
    shape |= {"model_channels": channels, "dtype": dtype}
    config = settings(shape)
    heads = (8 * channels // FULL, -1) if family == "sd15" else (-1, 64 if channels == FULL else 40)
    config.unet_config["num_heads"], config.unet_config["num_head_channels"] = heads
    config.custom_operations = _operations()
    real = base(config, model_type=comfy.model_base.ModelType.EPS)
    generator = torch.Generator().manual_seed(0)
    for weight in real.diffusion_model.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        weight.data = torch.empty(weight.shape).normal_(0, scale, generator=generator).to(dtype)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(real, device, device)


def random_prompt(family: str, seed: int = 0):
    """Return a random CONDITIONING in the size that a family needs."""
    generator = torch.Generator().manual_seed(seed)
    pooled = {"pooled_output": torch.zeros(1, 1280)} if family == "sdxl" else {}
    return [[torch.randn(1, 77, GEOMETRY[family]["context_dim"], generator=generator), pooled]]


def _operations():
    """Return ComfyUI's layers with fewer groups in normalisations that cannot have 32 groups."""
    import comfy.ops

    class Operations(comfy.ops.disable_weight_init):
        class GroupNorm(comfy.ops.disable_weight_init.GroupNorm):
            def __init__(self, num_groups, num_channels, *args, **kwargs):
                super().__init__(math.gcd(num_groups, num_channels), num_channels, *args, **kwargs)

    return Operations
