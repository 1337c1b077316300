"""Noise for a clip: drawn as the stock samplers draw it, or one draw for every frame."""

import copy

import torch

from ..frame_noise import SAME

ONE_NOISE = "crossframe_one_noise"  # attribute of noise whose NOISE says that frames share it


class ClipNoise:
    """A NOISE that gives every frame of a clip the same draw of another NOISE.

    The draw is the one a latent of a single frame gets, whatever frames of a longer clip the
    latent holds (`batch_index`), so that clips cut in pieces share it.
    """

    def __init__(self, noise) -> None:
        """noise: any object with `seed` and `generate_noise(latent)`."""
        self.noise = noise
        self.seed = noise.seed

    def generate_noise(self, latent: dict) -> torch.Tensor:
        """Return noise like latent["samples"], (frames, channels, height, width)."""
        single = {key: value for key, value in latent.items() if key != "batch_index"}
        single["samples"] = latent["samples"][:1]
        draw = self.noise.generate_noise(single)
        noise = draw.repeat(latent["samples"].shape[0], *[1] * (draw.ndim - 1))
        setattr(noise, ONE_NOISE, True)
        return noise


def clip_noise(noise, frame_noise: str):
    """Return a NOISE that draws as `frame_noise` (one of FRAME_NOISE) says."""
    return ClipNoise(noise) if frame_noise == SAME else noise


def is_one_noise(noise: torch.Tensor) -> bool:
    """Whether frames share their noise, as far as the noise itself can tell.

    noise: (frames, channels, height, width). No noise at all (a second stage, which adds none)
    says nothing of what a sampler draws on its way, unless it comes from a `ClipNoise`.
    """
    return getattr(noise, ONE_NOISE, False) or bool((noise == noise[:1]).all() and noise.any())


def noise_from(noise, latent: dict, first: int) -> torch.Tensor:
    """What a NOISE draws for frames of a clip, (frames, channels, height, width).

    first: number of the first frame. A latent that says itself which frames it holds
    (`batch_index`) is left at that.
    """
    if first == 0 or "batch_index" in latent:
        return noise.generate_noise(latent)
    samples = latent["samples"]
    before = samples.new_zeros(first, *samples.shape[1:])
    return noise.generate_noise({**latent, "samples": torch.cat((before, samples))})[first:]


def mask_noise(sampler, seed: int, latent: torch.Tensor, first: int) -> torch.Tensor | None:
    """The noise that a sampler itself draws for the area outside a noise mask, for a clip.

    latent: (frames, channels, height, width), as is the noise. first: number of the first
    frame. None for samplers, all but ddim, that use the noise they are given.
    """
    if not getattr(sampler, "inpaint_options", {}).get("random", False):
        return None
    clip = (first + latent.shape[0], *latent.shape[1:])
    return torch.randn(clip, generator=torch.Generator().manual_seed(seed + 1))[first:]


def with_mask_noise(sampler, noise: torch.Tensor):
    """Return a SAMPLER that uses `noise` outside a noise mask; `sampler` stays as it is.

    noise: (frames, channels, height, width) for the frames that will be sampled.
    """

    def sample(model, x, *args, **kwargs):
        model.noise = noise.to(x)
        return sampler.sampler_function(model, x, *args, **kwargs)

    return with_function(sampler, sample)


def with_function(sampler, function):
    """Return a copy of a SAMPLER with another sampler function; `sampler` stays as it is."""
    copied = copy.copy(sampler)
    copied.sampler_function = function
    return copied
