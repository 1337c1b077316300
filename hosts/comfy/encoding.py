"""Encode a clip with any VAE so that every frame gets a latent of its own.

ComfyUI's VAE Encode does so with the VAEs of image models alone. With one that was made for video,
as those of Wan, Qwen-Image and Cosmos were, it takes the frames for one video and compresses them
over time, so that several frames share a latent.
"""

import copy
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from .errors import BadInputError

COLOURS = 3  # channels of an RGB picture; a sound in stereo has 2


def encode_frames(pixels: Tensor, vae: Any) -> Tensor:
    """Encode an IMAGE batch, (frames, height, width, channels), with a VAE.

    Return what VAE Encode gives for each frame alone: (frames, channels, h, w) from the VAE of an
    image model, (frames, channels, 1, h, w) from one that was made for video. Sides that are no
    multiple of the VAE's ratio are cropped, and an alpha channel is left out, as VAE Encode does.
    Raises BadInputError if the VAE cannot encode pictures, or if these are no pictures for it.
    """
    check_vae(vae)
    check_pixels(pixels, vae.spacial_compression_encode())
    bar = comfy.utils.ProgressBar(len(pixels))
    if vae.latent_dim == 3 and not vae.not_video:
        return _one_by_one(pixels, vae, bar)
    return _in_batches(pixels, vae, bar)


def _one_by_one(pixels: Tensor, vae: Any, bar: comfy.utils.ProgressBar) -> Tensor:
    """Encode every frame as a video of one frame; return (frames, channels, 1, h, w)."""
    latents = []
    for frame in pixels.split(1):
        comfy.model_management.throw_exception_if_processing_interrupted()
        latents.append(vae.encode(frame))
        bar.update(1)
    return torch.cat(latents)


def _in_batches(pixels: Tensor, vae: Any, bar: comfy.utils.ProgressBar) -> Tensor:
    """Encode all frames in the batches that ComfyUI makes of them; return a latent per frame.

    ComfyUI chooses batches that fit into free memory. Other batches could round otherwise.
    """
    begun = 0

    def look(batch: Tensor) -> None:
        nonlocal begun
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(begun)
        begun += len(batch)

    latents = _watched(vae, look).encode(pixels)
    bar.update_absolute(len(pixels))
    return latents


def _watched(vae: Any, look: Callable[[Tensor], None]) -> Any:
    """Return a copy of a VAE that shows every batch to `look` before it is encoded.

    Preparing its values is the one thing that ComfyUI asks of a VAE before each batch. The copy
    shares the network and its place in memory.
    """
    watched = copy.copy(vae)

    def process_input(batch: Tensor) -> Tensor:
        look(batch)
        return vae.process_input(batch)

    watched.process_input = process_input
    return watched


def check_vae(vae: Any) -> None:
    """Raise BadInputError unless a VAE encodes pictures."""
    # A checkpoint without a VAE gives nothing, or a VAE of ComfyUI that has no network.
    if getattr(vae, "first_stage_model", vae) is None:
        raise BadInputError(
            "vae",
            "there is none. The checkpoint that it comes from has no VAE in it.",
            "Use a Load VAE node with the VAE that belongs to the model.",
        )
    # A sound or a 3-D shape has one dimension. Some VAEs of sound have two, but never RGB.
    pictures = getattr(vae, "latent_dim", None) in (2, 3)
    if not pictures or vae.output_channels < COLOURS:
        raise BadInputError(
            "vae",
            "it is not for pictures, but for something else, such as sound or 3-D shapes.",
            "Connect the VAE that belongs to the image or video model.",
        )


def check_pixels(pixels: Tensor, ratio: int) -> None:
    """Raise BadInputError unless pixels are frames that a VAE can encode.

    ratio: how many pixels, in width and in height, become one of the latent.
    """
    if pixels.ndim != 4 or pixels.shape[-1] < COLOURS:
        problem = f"it is not a batch of RGB pictures, but has the shape {tuple(pixels.shape)}."
        raise BadInputError("pixels", problem, "Connect the frames as an IMAGE.")
    frames, height, width, _ = pixels.shape
    if frames == 0:
        raise BadInputError("pixels", "it has no frames.", "Connect at least one picture.")
    if min(height, width) < ratio:
        raise BadInputError(
            "pixels",
            f"its frames have {width} x {height} pixels, and this VAE makes one pixel of the "
            f"latent out of {ratio} x {ratio}.",
            f"Give pictures of at least {ratio} x {ratio} pixels (ImageScale).",
        )
