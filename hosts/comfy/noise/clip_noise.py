"""Noise for a clip: drawn as the stock samplers draw it, or one draw for every frame."""

import copy
from collections.abc import Callable

import comfy.sample
import torch
from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise, Noise_RandomNoise

from ...frame_noise import SAME
from ..errors import BadInputError

# Frames whose noise is drawn at once and thrown away, on the way to a later frame of a clip. A
# multiple of 16: torch draws normal numbers in blocks of 16, so that pieces equal the whole.
FRAMES_PASSED_OVER = 64


class SeededNoise:
    """The stock KSampler's noise as a NOISE."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, latent: dict) -> torch.Tensor:
        """Return noise like latent["samples"]; `batch_index` picks draws, as in the stock node."""
        return comfy.sample.prepare_noise(latent["samples"], self.seed, latent.get("batch_index"))


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
        # A NOISE that brings its own rows may give more than one; the first is frame 0's.
        draw = self.noise.generate_noise(single)[:1]
        noise = draw.repeat(latent["samples"].shape[0], *[1] * (draw.ndim - 1))
        setattr(noise, ONE_NOISE, True)
        return noise


def clip_noise(noise, frame_noise: str):
    """Return a NOISE that draws as `frame_noise` (one of FRAME_NOISE) says."""
    return ClipNoise(noise) if frame_noise == SAME else noise


def is_one_noise(noise: torch.Tensor) -> bool:
    """Whether frames share their noise, as far as the noise itself can tell.

    noise: (frames, channels, height, width). One frame may be any frame of a clip, and no noise
    at all (a second stage, which adds none) says nothing of what a sampler draws on its way,
    unless it comes from a `ClipNoise`.
    """
    if getattr(noise, ONE_NOISE, False):
        return True
    return len(noise) > 1 and bool((noise == noise[:1]).all() and noise.any())


def noise_from(noise, latent: dict, first: int) -> torch.Tensor:
    """What a NOISE draws for frames of a clip, (frames, channels, height, width).

    first: number of the first frame. A latent that says itself which frames it holds
    (`batch_index`) is left at that.
    Raises BadInputError if there is neither one row of noise nor one for every frame.
    """
    frames = latent["samples"].shape[0]
    if "batch_index" in latent and len(latent["batch_index"]) != frames:
        raise BadInputError(
            "latent_image",
            f"its batch_index names {len(latent['batch_index'])} frames, and it holds {frames}.",
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
    """What a NOISE gives for frames of a clip that begin at frame `first`."""
    samples = latent["samples"]
    if first == 0 or isinstance(noise, (ClipNoise, Noise_EmptyNoise)):
        return noise.generate_noise(latent)
    if type(noise) in (SeededNoise, Noise_RandomNoise):
        generator = torch.manual_seed(noise.seed)

        def draw(rows: int) -> torch.Tensor:
            like = samples.new_empty(rows, *samples.shape[1:])
            return comfy.sample.prepare_noise_inner(like, generator)

        return later_rows(draw, len(samples), first)
    # Nothing is known of how it draws, so it is asked for the whole clip up to here.
    before = samples.new_zeros(first, *samples.shape[1:])
    return noise.generate_noise({**latent, "samples": torch.cat((before, samples))})[first:]


def later_rows(draw: Callable[[int], torch.Tensor], rows: int, first: int) -> torch.Tensor:
    """The rows that a clip of normal noise has from row `first` on.

    draw: gives a number of further rows, (n, ...). Bit for bit the rows of the whole clip drawn
    at once, in memory that does not grow with `first`.
    """
    for _ in range(first // FRAMES_PASSED_OVER):
        draw(FRAMES_PASSED_OVER)
    before = first % FRAMES_PASSED_OVER
    return draw(before + rows)[before:]


def mask_noise(sampler, seed: int, latent: torch.Tensor, first: int) -> torch.Tensor | None:
    """The noise that a sampler itself draws for the area outside a noise mask, for a clip.

    latent: (frames, channels, height, width), as is the noise. first: number of the first
    frame. None for samplers, all but ddim, that use the noise they are given.
    """
    if not getattr(sampler, "inpaint_options", {}).get("random", False):
        return None
    generator = torch.Generator().manual_seed(seed + 1)

    def draw(rows: int) -> torch.Tensor:
        return torch.randn((rows, *latent.shape[1:]), generator=generator)

    return later_rows(draw, len(latent), first)


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
