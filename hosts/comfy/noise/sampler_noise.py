"""Noise that samplers add on their way (ancestral, SDE): drawn for each frame by itself.

ComfyUI draws it for a whole batch at once, so that a frame's noise depends on how many frames
are run with it. Here it depends on the seed and the frame's number alone. Two things see to it:

- A sampler function that takes a `noise_sampler` is given one. What frame 0 gets from it is what
  the stock sampler gives a batch of one frame on a CPU.
- Whatever else is drawn while a sampler function runs goes through `RowNoise`: by samplers that
  other samplers call, by samplers that draw from torch's own generator, by guidance functions.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from random import Random

import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler
from torch import Tensor

from ..model.owners import innermost
from .clip_noise import with_function
from .row_noise import RowNoise

OPTION = "noise_sampler"  # what sampler functions call it


def with_frame_noise(sampler, seed: int | None, noise: RowNoise):
    """Return a SAMPLER that draws its own noise frame by frame; `sampler` stays as it is.

    seed: of the sampling. noise: the mode of this sampling, which knows which draw each frame
    gets. Returns `sampler` itself if it has no sampler function; the mode must then be active
    around all of it.
    """
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        return sampler
    given = OPTION in getattr(sampler, "extra_options", {})
    if seed is not None and not given and takes_noise_sampler(function):
        begin = _brownian if _is_brownian(function) else _independent
    else:
        begin = None

    @functools.wraps(function, updated=())
    def sample(model, x, sigmas, *args, **kwargs):
        if begin is not None and seed is not None:
            kwargs[OPTION] = _frame_noise(begin, x, sigmas, seed, noise)
        with noise.active():
            return function(model, x, sigmas, *args, **kwargs)

    return with_function(sampler, sample)


def takes_noise_sampler(function) -> bool:
    """Whether a sampler function can be given a noise sampler, and has none of its own yet."""
    if OPTION in (getattr(function, "keywords", None) or {}):
        return False  # a functools.partial
    try:
        return OPTION in inspect.signature(function).parameters
    except (TypeError, ValueError):  # what is not written in Python need not have a signature
        return False


def function_name(function) -> str:
    """The name of a sampler function, or of what a partial or an object stands for."""
    function = innermost(function)
    return getattr(function, "__name__", type(function).__name__)


NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def _frame_noise(begin, x: Tensor, sigmas: Tensor, seed: int, noise: RowNoise) -> NoiseSampler:
    """A noise sampler for the rows of x, each of which gets its draw of the sampling.

    It is not made before the first draw: a sampler that has no step to do draws nothing.
    """
    places = {draw: place for place, draw in enumerate(dict.fromkeys(noise.draws))}
    rows = [places[draw] for draw in noise.draws]

    @functools.cache
    def begun() -> NoiseSampler:
        return begin(x[: len(places)], sigmas, [_seed(seed, draw) for draw in places])

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        with noise.paused():
            return begun()(sigma, sigma_next)[rows]

    return draw


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
    name = function_name(function)
    return name.startswith("sample_dpmpp") and "sde" in name


def _seed(seed: int, number: int) -> int:
    """A seed for each draw; the first is the run's, others share none with other runs."""
    return seed if number == 0 else Random(f"{seed} {number}").getrandbits(63)
