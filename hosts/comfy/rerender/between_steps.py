"""Change a latent between the steps of any sampler.

Rerender A Video changes noisy latents between two steps of DDIM: it replaces the predicted clean
latent and keeps the noise that the model has found. A step operation (`latents/operations.py`)
could not do that, because a sampler takes the noise for the difference between the latent and the
prediction. So the sampler is stopped wherever something may happen, and run from there on. A
sampler that takes each step by itself goes the same way as in one run. One that remembers earlier
steps begins anew, since what it remembers belongs to a latent that is gone.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise.clip_noise import with_function
from ..noise.sampler_noise import OPTION


@dataclass(frozen=True)
class Left:
    """What a sampling has come to at a place, so that another one can go on from there.

    x: the latent. x0: the prediction of the step before, or None at the start. draws: what a noise
    sampler was asked for. generator: the state of torch's own generator.
    """

    place: int
    x: Tensor
    x0: Tensor | None
    draws: tuple[tuple[Tensor, Tensor], ...]
    generator: Tensor


class Changes(ABC):
    """What happens to the latent of one frame between the steps of one sampling.

    Places count the steps that have been taken, from 0 to all of them.
    """

    stops: Collection[int] = ()  # where the sampler is stopped; the same for all frames of a clip

    def begin(self) -> Left | None:
        """Return from where to go on, or None for the start."""
        return None

    def saw(self, step: int, x0: Tensor) -> None:  # noqa: B027  (most do not need to know)
        """Take note of the prediction of a step."""

    def leave(self, left: Left) -> None:  # noqa: B027
        """Take note of where the sampling is, at every stop, after the change there."""

    @abstractmethod
    def change(
        self, place: int, x: Tensor, x0: Tensor | None, sigma: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the latent and the prediction with which to go on from a stop.

        x: the latent, (rows, channels, ..., height, width). x0: the prediction of the step before,
        in the same shape, or None at the start. sigma: the noise level of x.
        """


def with_changes(sampler, changes: Changes):
    """Return a SAMPLER that changes the latent between steps; `sampler` stays as it is."""
    function = sampler.sampler_function

    @functools.wraps(function, updated=())
    def sample(model, x, sigmas, *, extra_args, callback=None, **options):
        steps, mask = len(sigmas) - 1, extra_args.get("denoise_mask")
        noise = _Draws(options)
        place, x0 = 0, None
        if (left := changes.begin()) is not None:
            place, x, x0 = left.place, left.x, left.x0
            noise.go_on_from(left)

        def see(state: dict) -> None:
            nonlocal x0
            x0 = state["denoised"]
            changes.saw(place + state["i"], x0)
            if callback is not None:
                callback({**state, "i": place + state["i"]})

        stops = {stop for stop in changes.stops if place <= stop <= steps}
        for stop in sorted(stops | {steps}):
            if stop > place:
                part = sigmas[place : stop + 1].clone()  # some samplers write into it
                x = function(model, x, part, extra_args=extra_args, callback=see, **options)
                place = stop
            if stop in stops:
                changed, x0 = changes.change(stop, x, x0, sigmas[stop])
                x = changed if mask is None else torch.lerp(x, changed, mask.to(x))
                changes.leave(Left(stop, x, x0, tuple(noise.made), torch.get_rng_state()))
        return x

    return with_function(sampler, sample)


class _Draws:
    """Remembers what the noise sampler of a sampling is asked for, so that it can be asked again.

    A pass that begins later then gets the noise that it would get if it began at the start.
    """

    def __init__(self, options: dict) -> None:
        """options: the arguments of a sampler function. A noise sampler in them is replaced."""
        self.made: list[tuple[Tensor, Tensor]] = []
        self._draw: Callable[[Tensor, Tensor], Tensor] | None = options.get(OPTION)
        if self._draw is not None:
            options[OPTION] = self._remembered

    def go_on_from(self, left: Left) -> None:
        """Draw and throw away what was drawn before."""
        for levels in left.draws:
            self._remembered(*levels)
        torch.set_rng_state(left.generator)

    def _remembered(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if self._draw is None:
            raise RuntimeError("this sampling has no noise sampler")
        self.made.append((sigma, sigma_next))
        return self._draw(sigma, sigma_next)
