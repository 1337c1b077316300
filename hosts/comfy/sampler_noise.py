"""Noise that samplers add on their way (ancestral, SDE): drawn for each frame by itself.

ComfyUI draws it for a whole batch at once, so that a frame's noise depends on how many frames
are run with it. Here it depends on the seed and the frame's number alone. What frame 0 gets is
what the stock sampler gives a batch of one frame.
"""

import inspect
from collections.abc import Callable, Sequence
from random import Random

import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler
from torch import Tensor

from .noise import with_function

OPTION = "noise_sampler"  # what sampler functions call it


def with_frame_noise(sampler, sigmas: Tensor, seed: int | None, draws: Sequence[int]):
    """Return a SAMPLER that draws its own noise frame by frame; `sampler` stays as it is.

    draws: for each frame of the latent that will be sampled, which draw it gets; equal numbers
    get equal noise. Returns `sampler` itself if it draws none, is given some by another node,
    or has no seed to draw from.
    """
    function = getattr(sampler, "sampler_function", None)
    if seed is None or function is None or OPTION in getattr(sampler, "extra_options", {}):
        return sampler
    if OPTION not in inspect.signature(function).parameters:
        return sampler
    places = {draw: place for place, draw in enumerate(dict.fromkeys(draws))}
    rows = [places[draw] for draw in draws]
    begin = _brownian if _is_brownian(function) else _independent

    def sample(model, x, *args, **kwargs):
        noise = begin(x[: len(places)], sigmas, [_seed(seed, draw) for draw in places])
        kwargs[OPTION] = lambda sigma, sigma_next: noise(sigma, sigma_next)[rows]
        return function(model, x, *args, **kwargs)

    sample.__name__ = function.__name__
    return with_function(sampler, sample)


NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def _independent(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    """Standard normal noise like x, one seed per row; drawn on the CPU, the same everywhere."""
    generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]  # as stock on a CPU

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        rows = [torch.randn(x.shape[1:], generator=generator) for generator in generators]
        return torch.stack(rows).to(x)

    return draw


def _brownian(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    """Noise that fits together where a sampler asks for overlapping steps, one tree per row."""
    positive = sigmas[sigmas > 0]
    return BrownianTreeNoiseSampler(x, positive.min(), positive.max(), seed=[*seeds], cpu=True)


def _is_brownian(function) -> bool:
    """Whether ComfyUI's sampler takes its noise from a Brownian tree."""
    return function.__name__.startswith("sample_dpmpp") and "sde" in function.__name__


def _seed(seed: int, number: int) -> int:
    """A seed for each draw; the first is the run's, others share none with other runs."""
    return seed if number == 0 else Random(f"{seed} {number}").getrandbits(63)
