"""How large the bank of a run gets, known or estimated before sampling."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.samplers import KSAMPLER

from ....attention import FrameByFrame
from ....attention.bank import readable_size
from ..model.own_code import holds_foreign_code, is_comfyuis
from ..rows.conditions import conds_that_run
from .comfy_run import ComfyRun

log = logging.getLogger("crossframe")


@dataclass(frozen=True)
class BankSize:
    """What the bank of a frame-by-frame run will hold at most.

    per_evaluation: bytes that one evaluation of the model leaves at most. evaluations: how many
    of a frame leave something. counted: whether that is known, or only assumed.
    """

    per_evaluation: int
    evaluations: int
    counted: bool

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return self.per_evaluation * self.evaluations


def expected_size(run: ComfyRun[FrameByFrame], guider, sampler, sigmas, latent) -> BankSize:
    """Return the size of a run's bank, as far as it can be told before sampling.

    It is exact where every cond runs in every evaluation over the whole frame; areas and
    timestep ranges make it smaller, extra passes of other nodes (PAG, SAG) larger.
    """
    dtype = guider.model_patcher.model.get_dtype_inference()
    entries = sum(conds_that_run(guider).values())
    per_evaluation = run.memory.evaluation_bytes(entries, latent.shape, dtype)
    is_active, levels = run.facts.is_active, run.lead.noise_levels
    if levels:  # earlier frames have gone the same way
        return BankSize(per_evaluation, sum(map(is_active, levels)), True)
    evaluations = count_evaluations(guider, sampler, sigmas, is_active)
    if evaluations is None:  # most samplers evaluate the model once per step
        evaluations = sum(is_active(float(sigma)) for sigma in sigmas[:-1])
        return BankSize(per_evaluation, evaluations, False)
    return BankSize(per_evaluation, evaluations, True)


def true_size(announced: BankSize, run: ComfyRun[FrameByFrame]) -> BankSize:
    """Return the size of a run's bank, known after one of its frames; the run then asks for it.

    It is said if it is another size than was announced.
    """
    evaluations = sum(map(run.facts.is_active, run.lead.noise_levels))
    size = BankSize(announced.per_evaluation, evaluations, True)
    if size.nbytes != announced.nbytes:
        run.memory.expect_bank(size.nbytes)
        log.info(
            "Cross-frame attention: the bank will hold up to %s and not %s, since the sampler "
            "evaluates the model %d times for a frame and not %d times.",
            readable_size(size.nbytes),
            readable_size(announced.nbytes),
            size.evaluations,
            announced.evaluations,
        )
    return size


def count_evaluations(guider, sampler, sigmas, active: Callable[[float], bool]) -> int | None:
    """Count the model evaluations, at noise levels that are `active`, of sampling one frame.

    None if that cannot be known: only ComfyUI's own samplers are run for it, with a stand-in
    for the model. Code of another pack may do anything whenever it runs, and is run only to paint.
    """
    if len(sigmas) < 2:
        return 0  # nothing is sampled
    if not _is_comfyuis(sampler):
        return None
    sigmas = sigmas.cpu()
    model = _CountingModel(guider, active)
    pixel = torch.zeros(1, guider.model_patcher.model.latent_format.latent_channels, 1, 1)
    extra_args = {"model_options": {"transformer_options": {}}, "seed": 0}
    try:
        sampler.sample(model, sigmas, extra_args, None, pixel, pixel.clone(), None, True)
    except Exception as error:  # a new sampler may want more than a number back
        log.debug("Cross-frame attention: the sampler's steps cannot be counted (%s).", error)
        return None
    return model.count


def _is_comfyuis(sampler) -> bool:
    """Whether nothing but ComfyUI's own code runs in a SAMPLER."""
    if type(sampler) is not KSAMPLER or not is_comfyuis(KSAMPLER.sample):
        return False
    # Including a `sample` of its own, if another pack has given it one.
    return not holds_foreign_code(vars(sampler))


class _CountingModel:
    """Stands in for a guider: passes its input on as the prediction and counts."""

    def __init__(self, guider, active: Callable[[float], bool]) -> None:
        self.model_patcher = guider.model_patcher
        self.inner_model = guider.model_patcher.model
        self.cfg = 1.0
        self.conds: dict = {}
        self.count = 0
        self._active = active

    def __call__(self, x, sigma, model_options, seed=None):
        self.count += self._active(float(sigma[0]))
        # Some samplers read the prediction for the negative prompt from a function of theirs.
        for function in model_options.get("sampler_post_cfg_function", []):
            x = function({"denoised": x, "cond_denoised": x, "uncond_denoised": x, "input": x})
        return x
