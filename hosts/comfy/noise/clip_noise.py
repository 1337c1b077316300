"""Noise for a clip: drawn as the stock samplers draw it, or one draw for every frame."""

import copy
from collections.abc import Callable

import comfy.sample
import torch
from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise, Noise_RandomNoise

from ...frame_noise import SAME
from ..errors import BadInputError

# To reach a later frame of a clip, the noise of this many frames is drawn at once and thrown away.
# It is a multiple of 16, because torch draws normal numbers in blocks of 16: so pieces equal the
# whole.
FRAMES_PASSED_OVER = 64


class SeededNoise:
    """The stock KSampler's noise as a NOISE."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, latent: dict) -> torch.Tensor:
        """Return noise in the shape of latent["samples"].

        As in the stock node, `batch_index` selects the draws.
        """
        return comfy.sample.prepare_noise(latent["samples"], self.seed, latent.get("batch_index"))


ONE_NOISE = "crossframe_one_noise"  # attribute of a noise tensor that all frames share


class ClipNoise:
    """A NOISE that gives every frame of a clip the same draw of another NOISE.

    It is the draw that a latent of a single frame gets. It does not depend on which frames of a
    longer clip the latent holds (`batch_index`), so the pieces of a clip share it.
    """

    def __init__(self, noise) -> None:
        """noise: any object with `seed` and `generate_noise(latent)`."""
        self.noise = noise
        self.seed = noise.seed

    def generate_noise(self, latent: dict) -> torch.Tensor:
        """Return noise in the shape of latent["samples"], (frames, channels, height, width)."""
        single = {key: value for key, value in latent.items() if key != "batch_index"}
        single["samples"] = latent["samples"][:1]
        # A NOISE that brings its own rows may return several. The first belongs to frame 0.
        draw = self.noise.generate_noise(single)[:1]
        noise = draw.repeat(latent["samples"].shape[0], *[1] * (draw.ndim - 1))
        setattr(noise, ONE_NOISE, True)
        return noise


def clip_noise(noise, frame_noise: str):
    """Return a NOISE that draws as `frame_noise`, one of FRAME_NOISE, says."""
    return ClipNoise(noise) if frame_noise == SAME else noise


def is_one_noise(noise: torch.Tensor) -> bool:
    """Return whether frames share their noise, as far as the noise itself shows it.

    noise: (frames, channels, height, width). Noise from a `ClipNoise` is always shared. Otherwise
    the noise of a single frame shows nothing, and neither do zeros (of a second stage, which adds
    no noise), because they do not show what a sampler draws during sampling.
    """
    if getattr(noise, ONE_NOISE, False):
        return True
    return len(noise) > 1 and bool((noise == noise[:1]).all() and noise.any())


def noise_from(noise, latent: dict, first: int) -> torch.Tensor:
    """Return what a NOISE draws for frames of a clip, (frames, channels, height, width).

    first: the number of the first frame. It is ignored if the latent itself says which frames it
    holds (`batch_index`).
    Raises BadInputError unless there is one row of noise or one row per frame.
    """
    frames = latent["samples"].shape[0]
    if "batch_index" in latent and len(latent["batch_index"]) != frames:
        raise BadInputError(
            "latent_image",
            f"its batch_index names {len(latent['batch_index'])} frames, but it holds {frames}.",
            "Take it from a node that keeps both together, such as LatentFromBatch.",
        )
    drawn = _drawn(noise, latent, 0 if "batch_index" in latent else first)
    if drawn.shape[0] == 1:
        return drawn.repeat(frames, *[1] * (drawn.ndim - 1))
    if drawn.shape[0] != frames:
        raise BadInputError(
            "noise",
            f"it has {drawn.shape[0]} rows for a clip of {frames} frames.",
            f"Give 1 for all frames, or {frames}.",
        )
    return drawn


def _drawn(noise, latent: dict, first: int) -> torch.Tensor:
    """Return what a NOISE draws for frames of a clip that begin at frame `first`."""
    samples = latent["samples"]
    if first == 0 or isinstance(noise, (ClipNoise, Noise_EmptyNoise)):
        return noise.generate_noise(latent)
    if type(noise) in (SeededNoise, Noise_RandomNoise):
        generator = torch.manual_seed(noise.seed)

        def draw(rows: int) -> torch.Tensor:
            like = samples.new_empty(rows, *samples.shape[1:])
            return comfy.sample.prepare_noise_inner(like, generator)

        return later_rows(draw, len(samples), first)
    # It is not known how this NOISE draws, so it must draw the whole clip up to here.
    before = samples.new_zeros(first, *samples.shape[1:])
    return noise.generate_noise({**latent, "samples": torch.cat((before, samples))})[first:]


def later_rows(draw: Callable[[int], torch.Tensor], rows: int, first: int) -> torch.Tensor:
    """Return the rows that a clip of normal noise has from row `first` on.

    draw: a function that returns the next n rows, (n, ...). The result equals, bit for bit, the
    rows of the whole clip drawn at once, and the memory does not grow with `first`.
    """
    for _ in range(first // FRAMES_PASSED_OVER):
        draw(FRAMES_PASSED_OVER)
    before = first % FRAMES_PASSED_OVER
    return draw(before + rows)[before:]


def mask_noise(sampler, seed: int, latent: torch.Tensor, first: int) -> torch.Tensor | None:
    """Return the noise that a sampler itself draws for the area outside a noise mask, for a clip.

    latent: (frames, channels, height, width). The noise has the same shape. first: the number of
    the first frame. Returns None for samplers that use the given noise, which are all but ddim.
    """
    if not getattr(sampler, "inpaint_options", {}).get("random", False):
        return None
    generator = torch.Generator().manual_seed(seed + 1)

    def draw(rows: int) -> torch.Tensor:
        return torch.randn((rows, *latent.shape[1:]), generator=generator)

    return later_rows(draw, len(latent), first)


def with_mask_noise(sampler, noise: torch.Tensor):
    """Return a SAMPLER that uses `noise` outside a noise mask; `sampler` stays as it is.

    noise: the noise for the frames that will be sampled, (frames, channels, height, width).
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
