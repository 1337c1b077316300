"""Find out whether a sampler can be run step by step, before anything is sampled."""

import logging

import torch
from torch import Tensor

from ..run.bank_size import StandIn, is_comfyuis_own

log = logging.getLogger("crossframe")
SIDE = 64  # of a latent in the trial; so its mean and deviation are found to a hundredth or so
WITHIN = 0.05  # of what is expected, and as much again of the noise level


def takes_single_steps(sampler, model_patcher, sigmas: Tensor) -> bool:
    """Return whether a sampler comes to the right place if it is given one step.

    If a model always predicts ones, a latent is ones and noise of the level that the step leads to,
    whatever the sampler. Those that plan several steps at once (uni_pc, dpm_fast) end elsewhere.
    A step in the middle and the last one are tried. Only ComfyUI's own samplers are tried, because
    code of another pack may have side effects; others count as able to take single steps. sigmas:
    the schedule, with at least three noise levels.
    """
    if not is_comfyuis_own(sampler):
        return True
    starts = {(len(sigmas) - 1) // 2, len(sigmas) - 2}
    return all(_arrives(sampler, model_patcher, sigmas[n : n + 2].cpu().clone()) for n in starts)


def _arrives(sampler, model_patcher, step: Tensor) -> bool:
    """Return whether a sampler takes one step well. step: the noise levels at its ends, (2,)."""
    model = StandIn(model_patcher, torch.ones_like)
    channels = model.inner_model.latent_format.latent_channels
    noise = torch.randn(1, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    ones, end = torch.ones_like(noise), step[1].clone()
    extra_args = {"model_options": {"transformer_options": {}}, "seed": 0}
    try:
        with torch.random.fork_rng(devices=[]):  # some samplers draw from torch's own generator
            found = sampler.sample(model, step, extra_args, None, noise.clone(), ones, None, True)
    except Exception as error:  # such a sampler cannot be run on one step either
        log.debug("The sampler cannot take one step (%s).", error)
        return False
    sampling = model.inner_model.model_sampling
    wanted = sampling.inverse_noise_scaling(end, sampling.noise_scaling(end, noise, ones))
    allowed = WITHIN * (1 + float(wanted.std()))
    means = float((found.mean() - wanted.mean()).abs())
    deviations = float((found.std() - wanted.std()).abs())
    return max(means, deviations) < allowed
