"""How large the bank of a run gets, known before sampling."""

import logging
from collections.abc import Callable

import torch

from .budget import evaluation_bytes
from .conditions import conds_that_run
from .run import ComfyRun

log = logging.getLogger("crossframe")


def bank_bytes(run: ComfyRun, guider, sampler, sigmas, latent) -> int:
    """Bytes that the bank of a frame-by-frame run will hold at most.

    Exact where every cond runs in every evaluation over the whole frame; areas and
    timestep ranges make it smaller, extra passes of other nodes (PAG, SAG) larger.
    """
    evaluations = count_evaluations(guider, sampler, sigmas, run.active)
    dtype = guider.model_patcher.model.get_dtype_inference()
    entries = sum(conds_that_run(guider).values())
    return evaluations * evaluation_bytes(run, entries, latent.shape, dtype)


class _CountingModel:
    """Stands in for a guider: passes its input on as the prediction and counts."""

    def __init__(self, guider, active: Callable[[float], bool]) -> None:
        self.model_patcher = guider.model_patcher
        self.inner_model = guider.model_patcher.model
        self.cfg = 1.0
        self.conds = {}
        self.count = 0
        self._active = active

    def __call__(self, x, sigma, model_options, seed=None):
        self.count += self._active(float(sigma[0]))
        # Some samplers read the prediction for the negative prompt from a function of theirs.
        for function in model_options.get("sampler_post_cfg_function", []):
            x = function({"denoised": x, "cond_denoised": x, "uncond_denoised": x, "input": x})
        return x


def count_evaluations(guider, sampler, sigmas, active: Callable[[float], bool]) -> int:
    """Count the model evaluations, at noise levels that are `active`, of sampling one frame.

    A sampler that cannot be run this way is taken to evaluate the model once per step.
    """
    if len(sigmas) < 2:
        return 0  # nothing is sampled
    sigmas = sigmas.cpu()
    model = _CountingModel(guider, active)
    pixel = torch.zeros(1, guider.model_patcher.model.latent_format.latent_channels, 1, 1)
    extra_args = {"model_options": {"transformer_options": {}}, "seed": 0}
    try:
        sampler.sample(model, sigmas, extra_args, None, pixel, pixel.clone(), None, True)
    except Exception as error:  # third-party samplers may want more than a number back
        log.warning("Cross-frame attention: the size of the bank is a guess (%s).", error)
        return sum(active(float(sigma)) for sigma in sigmas[:-1])
    return model.count
