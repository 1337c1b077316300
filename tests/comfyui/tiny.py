"""Small random-weight models in real ComfyUI classes, and short names for running graphs.

Random weights prove numerics, not looks. Query and key weights are enlarged because the
attention of a freshly initialised model is nearly uniform, which would hide mistakes in
whom a frame attends to.
"""

import torch

SIZE = 8  # of the latents, height and width
PIXELS = 8 * SIZE  # of their pictures
CONTEXT = 32  # width of a prompt token
FRAMES = 5
SAME, DIFFERENT = "same for every frame", "different per frame"  # choices of frame_noise

SD15 = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": CONTEXT,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
    "dtype": torch.float32,
}
SDXL = {
    **SD15,
    "transformer_depth": [1, 2],
    "transformer_depth_middle": 2,
    "transformer_depth_output": [1, 1, 2, 2],
    "use_linear_in_transformer": True,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "num_head_channels": 16,
}
INPAINT = {**SD15, "in_channels": 9}


def randomize(module: torch.nn.Module, seed: int = 0) -> None:
    """Give a module seeded weights; ComfyUI leaves their memory uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(module.named_parameters()):
        owner = module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            weight.data = torch.full(weight.shape, float(name.endswith("weight")))
            continue
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        if "attn1.to_q" in name or "attn1.to_k" in name:
            scale *= 1.5
        if "input_hint_block" in name:  # hints would fade on their way in
            scale *= 2
        weight.data = torch.randn(weight.shape, generator=generator) * scale


def model(config: dict = SD15, seed: int = 0):
    """A MODEL (ModelPatcher) of the SD1.5 or SDXL family with few, narrow layers."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    sdxl = config.get("adm_in_channels") is not None
    family = comfy.supported_models.SDXL if sdxl else comfy.supported_models.SD15
    settings = family(config)
    settings.unet_config["num_heads"] = -1 if "num_head_channels" in config else 4
    settings.unet_config["num_head_channels"] = config.get("num_head_channels", -1)
    base = comfy.model_base.SDXL if sdxl else comfy.model_base.BaseModel
    real = base(settings, model_type=comfy.model_base.ModelType.EPS)
    randomize(real.diffusion_model, seed)
    if config["in_channels"] == 9:
        real.set_inpaint()
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(real, device, device)


def controlnet(config: dict = SD15, seed: int = 1):
    """A ControlNet for `model(config)`."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.model_management
    import comfy.ops

    unused = ("out_channels", "use_temporal_attention", "transformer_depth_output")
    settings = {key: value for key, value in config.items() if key not in unused}
    settings["num_heads"] = -1 if "num_head_channels" in config else 4
    network = comfy.cldm.cldm.ControlNet(
        **settings, hint_channels=3, operations=comfy.ops.disable_weight_init
    )
    network.requires_grad_(False)
    randomize(network, seed)
    device = comfy.model_management.get_torch_device()
    return comfy.controlnet.ControlNet(network, load_device=device)


def t2i_adapter():
    """A T2I-adapter for `model(SD15)`."""
    import comfy.controlnet
    from comfy.t2i_adapter.adapter import Adapter_light

    class TwoLevels(Adapter_light):
        """Gives its features to blocks 1 and 3, the last of each level of the tiny U-Net."""

        def forward(self, x):
            coarse, fine = [f for f in super().forward(x)["input"] if f is not None][-2:]
            return {"input": [coarse, None, fine, None]}  # read from the end

    network = TwoLevels(channels=[32, 64, 64, 64], nums_rb=1, cin=64 * 3).requires_grad_(False)
    randomize(network)
    return comfy.controlnet.T2IAdapter(network, 3, 8, "nearest-exact")


def autoencoder(seed: int = 3):
    """A VAE of the Stable Diffusion family with narrow layers: it encodes every frame alone."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    levels = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": []}
    colours = {"in_channels": 3, "out_ch": 3, "resolution": 64, "z_channels": 4, "double_z": True}
    parameters = {"ddconfig": {**levels, **colours}, "embed_dim": 4}
    network = AutoencoderKL(**parameters)
    randomize(network, seed)
    return comfy.sd.VAE(sd=network.state_dict(), config={"params": parameters})


def video_autoencoder(colours: int = 3, seed: int = 4):
    """A VAE of the Wan family, which Qwen-Image has too: it compresses a batch over time.

    colours: 4 for the VAE of Qwen-Image-Layered, which has an alpha channel.
    """
    import comfy.ldm.wan.vae
    import comfy.sd

    network = comfy.ldm.wan.vae.WanVAE(
        dim=4,
        z_dim=16,
        temperal_downsample=[False, True, True],
        image_channels=colours,
        **({"conv_out_channels": colours} if _has_own_output_channels() else {}),
    )
    randomize(network, seed)
    return comfy.sd.VAE(sd=network.state_dict())


def _has_own_output_channels() -> bool:
    """Whether this ComfyUI's Wan VAE may have another number of channels behind than in front."""
    import inspect

    from comfy.ldm.wan.vae import WanVAE

    return "conv_out_channels" in inspect.signature(WanVAE).parameters


def prompt(seed: int, rows: int = 1, pooled: bool = False):
    """A CONDITIONING of random tokens, one row or one row per frame."""
    generator = torch.Generator().manual_seed(seed)
    extra = {"pooled_output": torch.randn(rows, 1280, generator=generator)} if pooled else {}
    return [[torch.randn(rows, 7, CONTEXT, generator=generator), extra]]


def sides(size: int | tuple[int, int], times: int = 1) -> tuple[int, int]:
    """Height and width of something `times` as large as latents. size: one side, or both."""
    height, width = (size, size) if isinstance(size, int) else size
    return height * times, width * times


def clip(frames: int = FRAMES, seed: int = 7, size=SIZE, **extra) -> dict:
    """A LATENT of random frames."""
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(frames, 4, *sides(size), generator=generator), **extra}


def images(frames: int = FRAMES, seed: int = 8, size=SIZE) -> torch.Tensor:
    """An IMAGE batch of frames in random coarse colours, for latents of `size`."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(frames, 3, 3, 3, generator=generator).round()
    pixels = torch.nn.functional.interpolate(colours, size=sides(size, 8))
    return pixels.movedim(1, -1)


def masks(frames: int = FRAMES, seed: int = 9, size=SIZE) -> torch.Tensor:
    """A MASK batch that covers another part of each frame."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(frames, *sides(size, 8), generator=generator) > 0.5).float()


def apply_controlnet(positive, negative, network, hints, strength=0.7, start=0.0, end=1.0):
    """The stock Apply ControlNet node. Returns (positive, negative)."""
    import nodes

    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        positive, negative, network, hints, strength, start, end
    )


def patch(real, **inputs):
    """The CrossFrameAttention node."""
    from crossframe.nodes.attention import CrossFrameAttention

    defaults = {
        "references": "first + previous",
        "include_self": False,
        "layers": "up",
        "start_percent": 0.0,
        "end_percent": 1.0,
        "frames_per_batch": 0,
    }
    return CrossFrameAttention.execute(model=real, **{**defaults, **inputs}).args[0]


def settings_of(patched):
    """The settings that a patched MODEL carries."""
    from crossframe.hosts.comfy.model.carried import settings_of

    return settings_of(patched.model_options)


def patch_own(real, frames_per_batch: int = 0):
    """The MODEL with every part of the pack in place, and each frame attending to itself."""
    import dataclasses

    from crossframe.attention.references import Own
    from crossframe.hosts.comfy.attach import attach_settings

    settings = settings_of(patch(real, layers="all", frames_per_batch=frames_per_batch))
    return attach_settings(real, dataclasses.replace(settings, policy=Own()))


SAMPLING = {"seed": 3, "steps": 4, "cfg": 4.0, "scheduler": "normal", "denoise": 0.7}


def ksampler(real, positive, negative, latent, sampler_name="euler", **inputs) -> torch.Tensor:
    """The stock KSampler node. Returns the samples."""
    import nodes

    settings = {**SAMPLING, "sampler_name": sampler_name, **inputs}
    (output,) = nodes.KSampler().sample(
        real, positive=positive, negative=negative, latent_image=latent, **settings
    )
    return output["samples"]


def frame_output(real, positive, negative, latent, sampler_name="euler", node=None, **inputs):
    """The output of the CrossFrameKSampler node, noise as the stock sampler's."""
    from crossframe.nodes.sampling import CrossFrameKSampler

    settings = {"frame_noise": DIFFERENT, **SAMPLING, "sampler_name": sampler_name, **inputs}
    return (node or CrossFrameKSampler).execute(
        model=real, positive=positive, negative=negative, latent_image=latent, **settings
    )


def frame_ksampler(real, positive, negative, latent, sampler_name="euler", **inputs):
    """The samples of `frame_output`."""
    output = frame_output(real, positive, negative, latent, sampler_name, **inputs)
    return output.args[0]["samples"]


# The two orders of work, by the node that does them.
ORDERS = {"batch": ksampler, "frames": frame_ksampler}


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, as a fraction of the standard deviation of `b`."""
    return float((a - b).abs().max() / b.std())
