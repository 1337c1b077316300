"""Tiny diffusers models with random weights, made without a hub.

Each builder takes a seed and returns the same weights for it on every machine. Weights are
scaled so that attention is far from uniform: with fresh random weights every token attends to
all others alike, and nothing that changes keys and values would show.
"""

import json

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MultiControlNetModel,
    PNDMScheduler,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

TEXT_CHANNELS = 32
LATENT_SIZE = 8
PIXELS = 16  # the autoencoder halves once


def frozen(model):
    return model.eval().requires_grad_(False)


@torch.no_grad()
def sharpen_attention(unet):
    """Make attn1 choose among tokens and weigh in the result."""
    for name, parameter in unet.named_parameters():
        if "attn1.to_q" in name or "attn1.to_k" in name:
            parameter.mul_(4)
        if "attn1.to_out.0.weight" in name:
            parameter.mul_(16)
    unet.conv_out.weight.mul_(3)  # predicted noise of about unit variance


def sd15_unet(seed=0, **changes):
    """Two levels as in Stable Diffusion 1.x: attention at the upper one and in the middle."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        **{
            "sample_size": LATENT_SIZE,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": TEXT_CHANNELS,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
            **changes,
        }
    )
    sharpen_attention(unet)
    return frozen(unet)


def sdxl_unet(seed=0, **changes):
    """Three levels as in SDXL: 0, 1 and 2 transformer blocks a layer, size and crop inputs."""
    settings = {
        "block_out_channels": (32, 32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (2, 2, 4),
        "use_linear_projection": True,
        "cross_attention_dim": 2 * TEXT_CHANNELS,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        # six numbers of size and crop, and the pooled text
        "projection_class_embeddings_input_dim": 6 * 8 + TEXT_CHANNELS,
    }
    return sd15_unet(seed, **{**settings, **changes})


def controlnet(unet, seed=1):
    """A ControlNet of a U-Net, as if trained: its zero convolutions are not zero."""
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    outputs = [*net.controlnet_down_blocks, net.controlnet_mid_block]
    for module in [*outputs, net.controlnet_cond_embedding.conv_out]:
        torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    return frozen(net)


def autoencoder(seed=2):
    torch.manual_seed(seed)
    return frozen(
        AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=PIXELS,
            force_upcast=False,
        )
    )


def tokenizer(folder):
    """A tokenizer that knows single letters; its files are written to `folder`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = folder / "vocab.json"
    merges = folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=16)


def text_encoder(seed=3, projection=False):
    torch.manual_seed(seed)
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return frozen(
        kind(
            CLIPTextConfig(
                vocab_size=54,
                hidden_size=TEXT_CHANNELS,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=16,
                projection_dim=TEXT_CHANNELS,
                bos_token_id=52,
                eos_token_id=53,
                pad_token_id=53,
            )
        )
    )


def scheduler(kind=DDIMScheduler):
    """A scheduler configured as Stable Diffusion 1.x does it."""
    own = {
        DDIMScheduler: {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
        PNDMScheduler: {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1},
    }
    return kind(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        **own.get(kind, {}),
    )


def quiet(pipeline):
    """A pipeline without a bar, in double precision.

    Random models are chaotic: over a few steps, rounding errors of single precision grow to
    where they could hide a real difference.
    """
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(torch.float64)


def sd15_components(folder, unet=None):
    return {
        "vae": autoencoder(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(folder),
        "unet": unet or sd15_unet(),
        "scheduler": scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def sd15_pipeline(folder, unet=None):
    return quiet(StableDiffusionImg2ImgPipeline(**sd15_components(folder, unet)))


def controlnet_pipeline(
    folder, kind=StableDiffusionControlNetImg2ImgPipeline, unet=None, controlnets=1
):
    components = sd15_components(folder, unet)
    nets = [controlnet(components["unet"], seed=1 + net) for net in range(controlnets)]
    net = nets[0] if controlnets == 1 else MultiControlNetModel(nets)
    return quiet(kind(**components, controlnet=net))


def sdxl_pipeline(folder):
    return quiet(
        StableDiffusionXLImg2ImgPipeline(
            vae=autoencoder(),
            text_encoder=text_encoder(),
            text_encoder_2=text_encoder(seed=4, projection=True),
            tokenizer=tokenizer(folder),
            tokenizer_2=tokenizer(folder),
            unet=sdxl_unet(),
            scheduler=scheduler(),
            add_watermarker=False,
        )
    )


def pictures(frames, seed=10, size=PIXELS):
    """Random frames as PIL images."""
    generator = torch.Generator().manual_seed(seed)
    shape = (frames, size, size, 3)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return [Image.fromarray(frame.numpy()) for frame in pixels]
