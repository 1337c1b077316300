"""Draw the noise that samplers add during sampling (ancestral, SDE) for each frame by itself.

ComfyUI draws it for a whole batch at once, so a frame's noise depends on how many frames are run
with it. Here it depends only on the seed and the frame's number. Two things ensure that:

- A sampler function that takes a `noise_sampler` gets one. From it, frame 0 gets the noise that
  the stock sampler gives to a batch of one frame on a CPU.
- All other draws while a sampler function runs go through `RowNoise`: those of samplers that other
  samplers call, of samplers that use torch's own generator, and of guidance functions.
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

OPTION = "noise_sampler"  # the name of the argument of sampler functions


def with_frame_noise(sampler, seed: int | None, noise: RowNoise):
    """Return a SAMPLER that draws its own noise frame by frame; `sampler` stays as it is.

    seed: the seed of the sampling. noise: the mode of this sampling, which knows each frame's draw
    number. Returns `sampler` itself if it has no sampler function; the mode must then be active
    during the whole sampling.
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
    """Return whether a sampler function takes a noise sampler and does not have one yet."""
    if OPTION in (getattr(function, "keywords", None) or {}):
        return False  # it is a functools.partial that has one
    try:
        return OPTION in inspect.signature(function).parameters
    except (TypeError, ValueError):  # functions not written in Python may have no signature
        return False


def function_name(function) -> str:
    """Return the name of a sampler function, of the function in a partial, or of a class."""
    function = innermost(function)
    return getattr(function, "__name__", type(function).__name__)


NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def _frame_noise(begin, x: Tensor, sigmas: Tensor, seed: int, noise: RowNoise) -> NoiseSampler:
    """Return a noise sampler that gives each row of x its own draw.

    The samplers behind it are made at the first draw, because a sampler without steps draws
    nothing.
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
    """Return a sampler of standard normal noise in the shape of x, with one seed per row.

    It draws on the CPU, so the noise is the same on every device.
    """
    generators = [torch.Generator().manual_seed(seed + 1) for seed in seeds]  # as stock on a CPU

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        rows = [torch.randn(x.shape[1:], generator=generator) for generator in generators]
        return torch.stack(rows).to(x)

    return draw


def _brownian(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    """Return a sampler whose noise is consistent over overlapping steps, with one tree per row."""
    positive = sigmas[sigmas > 0]
    return BrownianTreeNoiseSampler(x, positive.min(), positive.max(), seed=[*seeds], cpu=True)


def _is_brownian(function) -> bool:
    """Return whether ComfyUI's sampler takes its noise from a Brownian tree."""
    name = function_name(function)
    return name.startswith("sample_dpmpp") and "sde" in name


def _seed(seed: int, number: int) -> int:
    """Return the seed of a draw. Draw 0 has the run's seed; other seeds occur in no other run."""
    return seed if number == 0 else Random(f"{seed} {number}").getrandbits(63)
