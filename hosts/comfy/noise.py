"""Noise for a clip: drawn as the stock samplers draw it, or one draw for every frame."""

import copy

import torch

from ..frame_noise import SAME


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
        return draw.repeat(latent["samples"].shape[0], *[1] * (draw.ndim - 1))


def clip_noise(noise, frame_noise: str):
    """Return a NOISE that draws as `frame_noise` (one of FRAME_NOISE) says."""
    return ClipNoise(noise) if frame_noise == SAME else noise


def mask_noise(sampler, seed: int, latent: torch.Tensor) -> torch.Tensor | None:
    """The noise that a sampler itself draws for the area outside a noise mask, for a clip.

    latent: (frames, channels, height, width), as is the noise. None for samplers, all but
    ddim, that use the noise they are given.
    """
    if not getattr(sampler, "inpaint_options", {}).get("random", False):
        return None
    return torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed + 1))


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
