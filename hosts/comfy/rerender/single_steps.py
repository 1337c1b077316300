"""Find out whether a sampler can be run step by step, before anything is sampled."""

import logging
from collections.abc import Collection
from itertools import pairwise

import torch
from torch import Tensor

from ..run.bank_size import StandIn, is_comfyuis_own

log = logging.getLogger("crossframe")
SIDE = 64  # of a latent in the trial; so its mean and deviation are found to a hundredth or so
WITHIN = 0.05  # of what is expected, and as much again of the noise level


def takes_single_steps(sampler, model_patcher, sigmas: Tensor, stops: Collection[int] = ()) -> bool:
    """Return whether a sampler can be stopped between its steps.

    If a model always predicts ones, a latent is ones and noise of the level that a step leads to,
    whatever the sampler. A sampler that plans several steps at once ends elsewhere (uni_pc), or
    does not show its prediction at every step (dpm_fast). Tried are a step that removes half of the
    noise, the last step, and every part of the schedule between two stops. A step of the schedule
    itself can be so small that it shows nothing. Only ComfyUI's own samplers are tried, because
    code of another pack may have side effects; others count as able to be stopped. sigmas: the
    schedule, with at least two noise levels above 0. stops: numbers of steps.
    """
    if not is_comfyuis_own(sampler):
        return True
    sigmas = sigmas.cpu()
    large, last = torch.stack((sigmas[0], sigmas[0] / 2)), sigmas[-2:]
    if not all(_Trial(sampler, model_patcher).arrives(step.clone()) for step in (large, last)):
        return False
    places = sorted({0, len(sigmas) - 1, *stops})
    parts = (sigmas[start : end + 1].clone() for start, end in pairwise(places))
    return all(_Trial(sampler, model_patcher).shows_every_step(part) for part in parts)


class _Trial:
    """Runs a sampler on some noise levels with a model that always predicts ones."""

    def __init__(self, sampler, model_patcher) -> None:
        self.sampler = sampler
        self.model = StandIn(model_patcher, torch.ones_like)
        self.shown: list[int] = []  # the numbers of the steps whose predictions have been shown

    def arrives(self, step: Tensor) -> bool:
        """Return whether a step ends where it should. step: the noise levels at its ends, (2,)."""
        noise, ones, end = self._noise(), self._ones(), step[1].clone()
        if (found := self._run(step)) is None:
            return False
        sampling = self.model.inner_model.model_sampling
        wanted = sampling.inverse_noise_scaling(end, sampling.noise_scaling(end, noise, ones))
        allowed = WITHIN * (1 + float(wanted.std()))
        means = float((found.mean() - wanted.mean()).abs())
        deviations = float((found.std() - wanted.std()).abs())
        return max(means, deviations) < allowed

    def shows_every_step(self, part: Tensor) -> bool:
        """Return whether each step of a part of a schedule is shown once. part: noise levels."""
        return self._run(part) is not None and self.shown == list(range(len(part) - 1))

    def _run(self, sigmas: Tensor) -> Tensor | None:
        """Return where the sampler ends, or None if it fails."""
        extra_args = {"model_options": {"transformer_options": {}}, "seed": 0}
        given = (extra_args, self._show, self._noise(), self._ones(), None, True)
        try:
            with torch.random.fork_rng(devices=[]):  # some samplers draw from torch's generator
                found: Tensor = self.sampler.sample(self.model, sigmas, *given)
        except Exception as error:  # such a sampler cannot be run on these levels either
            log.debug("The sampler cannot take these steps (%s).", error)
            return None
        return found

    def _show(self, step: int, *_) -> None:
        self.shown.append(step)

    def _noise(self) -> Tensor:
        channels = self.model.inner_model.latent_format.latent_channels
        return torch.randn(1, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def _ones(self) -> Tensor:
        return torch.ones_like(self._noise())
