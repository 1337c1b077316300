"""The small U-Net that comes with the pack, as ComfyUI's MODEL, CLIP, VAE and CONTROL_NET.

It is a Stable Diffusion model in the folder layout of diffusers, so that both hosts use the same
files. ComfyUI's loaders only support released sizes. So the objects are built here from the
config.json files, with ComfyUI's own classes. Weights are kept in single precision on every device:
they are few, and pictures come out the same everywhere.
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import comfy.cldm.cldm
import comfy.clip_model
import comfy.controlnet
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential

from .diffusers_weights import (
    autoencoder_settings,
    autoencoder_weights,
    controlnet_names,
    renamed,
    shrink,
    text_encoder_weights,
    unet_names,
    unet_settings,
)
from .files import DTYPE, check_exists, fitting_weights, read_config, read_weights

BETA_SCHEDULES = {"scaled_linear": "linear"}  # diffusers' name: ComfyUI's name
PREDICTIONS = {
    "epsilon": comfy.model_base.ModelType.EPS,
    "v_prediction": comfy.model_base.ModelType.V_PREDICTION,
}


def load_demo_model(folder: Path) -> tuple:
    """Return (MODEL, CLIP, VAE, CONTROL_NET) of a pipeline's folder.

    Raises DamagedModelError if a file is missing or does not fit the others.
    """
    unet = load_unet(folder)
    # With dynamic VRAM, some of ComfyUI's nodes (torch.compile) load the model again.
    unet.cached_patcher_init = (load_unet, (folder,))
    return unet, load_clip(folder), load_vae(folder), load_controlnet(folder)


def load_unet(folder: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """Load the MODEL. disable_dynamic: keep it out of ComfyUI's dynamic VRAM management."""
    config = read_config(folder / "unet" / "config.json")
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    settings = unet_settings(config, DTYPE)
    family = comfy.supported_models.SD15(settings)
    family.unet_config.update(settings)  # the family has put in its own number of heads
    family.set_inference_dtype(DTYPE, None)
    family.latent_format = DemoLatents(read_config(folder / "vae" / "config.json"))
    family.sampling_settings = {
        "beta_schedule": BETA_SCHEDULES[scheduler["beta_schedule"]],
        "linear_start": scheduler["beta_start"],
        "linear_end": scheduler["beta_end"],
        "timesteps": scheduler["num_train_timesteps"],
    }
    model = comfy.model_base.BaseModel(family, PREDICTIONS[scheduler["prediction_type"]])
    set_norm_groups(model.diffusion_model, config)

    weights = read_weights(folder / "unet" / "diffusion_pytorch_model.safetensors")
    return patcher_of(model, "unet", renamed(weights, unet_names(config)), disable_dynamic)


def patcher_of(
    model: comfy.model_base.BaseModel, part: str, weights: Mapping, disable_dynamic: bool
) -> comfy.model_patcher.ModelPatcher:
    """Return a MODEL with these weights. part: its name in errors about weights."""
    patchers = comfy.model_patcher
    kind = patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher
    offload_device = comfy.model_management.unet_offload_device()
    patcher = kind(model, comfy.model_management.get_torch_device(), offload_device)
    model.to(offload_device)
    with fitting_weights(part):
        model.diffusion_model.load_state_dict(weights, assign=patcher.is_dynamic())
    return patcher


class DemoLatents(comfy.latent_formats.LatentFormat):
    """Latents of an autoencoder of diffusers."""

    def __init__(self, config: Mapping) -> None:
        """config: the config of the autoencoder."""
        self.scale_factor = config["scaling_factor"]
        self.latent_channels = config["latent_channels"]
        self.spacial_downscale_ratio = shrink(config["block_out_channels"])


def load_controlnet(folder: Path) -> comfy.controlnet.ControlNet:
    """Load the CONTROL_NET."""
    config = read_config(folder / "controlnet" / "config.json")
    network = comfy.cldm.cldm.ControlNet(
        **unet_settings(config, DTYPE),
        hint_channels=config["conditioning_channels"],
        device=comfy.model_management.unet_offload_device(),
    )
    network.input_hint_block = hint_layers(config)
    set_norm_groups(network, config)
    network.requires_grad_(False)
    weights = read_weights(folder / "controlnet" / "diffusion_pytorch_model.safetensors")
    with fitting_weights("controlnet"):
        network.load_state_dict(renamed(weights, controlnet_names(config)))
    return comfy.controlnet.ControlNet(
        network,
        compression_ratio=shrink(config["conditioning_embedding_out_channels"]),
        load_device=comfy.model_management.get_torch_device(),
    )


def hint_layers(config: Mapping) -> TimestepEmbedSequential:
    """Return the layers that shrink a hint to the size of the latents.

    ComfyUI's own layers always shrink by 8.
    """
    conv = partial(
        comfy.ops.disable_weight_init.Conv2d,
        kernel_size=3,
        padding=1,
        dtype=DTYPE,
        device=comfy.model_management.unet_offload_device(),
    )
    widths = config["conditioning_embedding_out_channels"]
    layers = [conv(config["conditioning_channels"], widths[0]), torch.nn.SiLU()]
    for width, next_width in pairwise(widths):
        layers += [conv(width, width), torch.nn.SiLU()]
        layers += [conv(width, next_width, stride=2), torch.nn.SiLU()]
    layers.append(conv(widths[-1], config["block_out_channels"][0]))
    return TimestepEmbedSequential(*layers)


def load_vae(folder: Path) -> comfy.sd.VAE:
    """Load the VAE."""
    config = read_config(folder / "vae" / "config.json")
    weights = read_weights(folder / "vae" / "diffusion_pytorch_model.safetensors")
    weights = autoencoder_weights(config, weights)
    parameters = {"ddconfig": autoencoder_settings(config), "embed_dim": config["latent_channels"]}
    with fitting_weights("vae"):
        vae = comfy.sd.VAE(sd=weights, config={"params": parameters}, dtype=DTYPE)
        # ComfyUI only logs names that differ.
        if different := vae.first_stage_model.state_dict().keys() ^ weights.keys():
            raise RuntimeError(f"missing or unknown: {', '.join(sorted(different))}")
    set_norm_groups(vae.first_stage_model, config)
    vae.latent_channels = config["latent_channels"]
    vae.downscale_ratio = vae.upscale_ratio = shrink(config["block_out_channels"])
    return vae


def load_clip(folder: Path, words: Path | None = None) -> comfy.sd.CLIP:
    """Load the CLIP: tokenizer and text encoder. words: the tokenizer's folder, if not in `folder`.

    The text encoder also gives a pooled prompt, which a Stable Diffusion model does not use.
    """
    words = folder / "tokenizer" if words is None else words
    config = read_config(folder / "text_encoder" / "config.json")
    weights = read_weights(folder / "text_encoder" / "model.safetensors")
    for name in ("vocab.json", "merges.txt"):  # every version of transformers can read these
        check_exists(words / name)
    tokenizer = partial(
        comfy.sd1_clip.SDTokenizer,
        tokenizer_path=str(words),
        max_length=config["max_position_embeddings"],
        embedding_size=config["hidden_size"],
    )
    target = comfy.supported_models_base.ClipTarget(
        partial(comfy.sd1_clip.SD1Tokenizer, tokenizer=tokenizer), comfy.sd1_clip.SD1ClipModel
    )
    target.params = {"clip_model": TextEncoder, "config": config}
    with fitting_weights("text_encoder"):
        return comfy.sd.CLIP(
            target,
            state_dict=[text_encoder_weights(config, weights)],
            model_options={"dtype": DTYPE},
        )


class TextEncoder(comfy.sd1_clip.SDClipModel):
    """ComfyUI's CLIP text encoder in the size that a config of transformers gives."""

    def __init__(self, config: Mapping, **options) -> None:
        super().__init__(
            max_length=config["max_position_embeddings"],
            textmodel_json_config=dict(config),
            model_class=TextModel,
            special_tokens={
                "start": config["bos_token_id"],
                "end": config["eos_token_id"],
                "pad": config["pad_token_id"],
            },
            return_projected_pooled=False,
            **options,
        )

    def load_sd(self, sd: dict):
        """Load weights. Unlike in ComfyUI's class, missing weights raise RuntimeError."""
        return self.transformer.load_state_dict(sd, assign=getattr(self, "can_assign_sd", False))


class TextModel(comfy.clip_model.CLIPTextModel):
    """ComfyUI's CLIP text model with a vocabulary of another size than that of OpenAI's CLIP."""

    def __init__(self, config: Mapping, dtype, device, operations) -> None:
        super().__init__(config, dtype, device, operations)
        sizes = config["vocab_size"], config["hidden_size"]
        self.set_input_embeddings(operations.Embedding(*sizes, dtype=dtype, device=device))


def set_norm_groups(network: torch.nn.Module, config: Mapping) -> None:
    """Give every group norm the config's number of groups; ComfyUI's classes always have 32."""
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = config["norm_num_groups"]
