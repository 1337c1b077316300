"""Noise for a clip: drawn as the stock samplers draw it, or one draw for every frame."""

import copy

import torch

FRAME_NOISE = ("same for every frame", "different per frame")
SAME, DIFFERENT = FRAME_NOISE


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


def frame_sampler(sampler, seed: int, latent: torch.Tensor, frame: int):
    """Return a SAMPLER for one frame that fills masked areas as for the whole clip.

    Some samplers (ddim) renew the noise of the area outside a noise mask with a draw shaped
    like the batch; for one frame that must be this frame's row of the clip's draw. The
    `sampler` itself stays as it is.
    """
    if not getattr(sampler, "inpaint_options", {}).get("random", False):
        return sampler
    generator = torch.Generator().manual_seed(seed + 1)
    row = torch.randn(latent.shape, generator=generator)[frame : frame + 1]
    single = copy.copy(sampler)

    def sample_one_frame(model, noise, *args, **kwargs):
        model.noise = row.to(noise)
        return sampler.sampler_function(model, noise, *args, **kwargs)

    single.sampler_function = sample_one_frame
    return single
