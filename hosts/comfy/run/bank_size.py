"""The size that the bank of a run will reach, known or estimated before sampling."""

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
    """The most that the bank of a frame-by-frame run will hold.

    per_evaluation: the bytes that one evaluation of the model leaves at most. evaluations: how many
    evaluations of a frame leave something. counted: whether this number is known or only assumed.
    """

    per_evaluation: int
    evaluations: int
    counted: bool

    @property
    def nbytes(self) -> int:
        """The total number of bytes."""
        return self.per_evaluation * self.evaluations


def expected_size(run: ComfyRun[FrameByFrame], guider, sampler, sigmas, latent) -> BankSize:
    """Return the size of a run's bank, as far as it is known before sampling.

    It is exact if every cond runs in every evaluation over the whole frame. Areas and timestep
    ranges make the bank smaller, and extra passes of other nodes (PAG, SAG) make it larger.
    """
    dtype = guider.model_patcher.model.get_dtype_inference()
    entries = sum(conds_that_run(guider).values())
    per_evaluation = run.memory.evaluation_bytes(entries, latent.shape, dtype)
    is_active, levels = run.facts.is_active, run.lead.noise_levels
    if levels:  # earlier frames have taken the same steps
        return BankSize(per_evaluation, sum(map(is_active, levels)), True)
    evaluations = count_evaluations(guider, sampler, sigmas, is_active)
    if evaluations is None:  # most samplers evaluate the model once per step
        evaluations = sum(is_active(float(sigma)) for sigma in sigmas[:-1])
        return BankSize(per_evaluation, evaluations, False)
    return BankSize(per_evaluation, evaluations, True)


def true_size(announced: BankSize, run: ComfyRun[FrameByFrame]) -> BankSize:
    """Return the size of a run's bank, which is known after one of its frames.

    If it differs from the announced size, the run's memory plan is corrected and that is logged.
    """
    evaluations = sum(map(run.facts.is_active, run.lead.noise_levels))
    per_evaluation = run.memory.measured or announced.per_evaluation
    size = BankSize(per_evaluation, evaluations, True)
    if size.nbytes != announced.nbytes and evaluations != announced.evaluations:
        run.memory.expect_bank(size.nbytes)
        log.info(
            "Cross-frame attention: the bank will hold up to %s and not %s, because the sampler "
            "evaluates the model %d times for each frame and not %d times.",
            readable_size(size.nbytes),
            readable_size(per_evaluation * announced.evaluations),
            size.evaluations,
            announced.evaluations,
        )
    return size


def count_evaluations(guider, sampler, sigmas, active: Callable[[float], bool]) -> int | None:
    """Count the model evaluations that sampling one frame makes at noise levels that are `active`.

    The sampler is run with a stand-in for the model. Only ComfyUI's own samplers are run, because
    code of another pack may have side effects. For other samplers this returns None.
    """
    if len(sigmas) < 2:
        return 0  # nothing is sampled
    if not is_comfyuis_own(sampler):
        return None
    sigmas = sigmas.cpu()
    model = StandIn(guider.model_patcher, active=active)
    pixel = torch.zeros(1, guider.model_patcher.model.latent_format.latent_channels, 1, 1)
    extra_args = {"model_options": {"transformer_options": {}}, "seed": 0}
    try:
        sampler.sample(model, sigmas, extra_args, None, pixel, pixel.clone(), None, True)
    except Exception as error:  # a new sampler may need more than the stand-in gives
        log.debug("Cross-frame attention: the sampler's steps cannot be counted (%s).", error)
        return None
    return model.count


def is_comfyuis_own(sampler) -> bool:
    """Return whether nothing but ComfyUI's own code runs in a SAMPLER."""
    if type(sampler) is not KSAMPLER or not is_comfyuis(KSAMPLER.sample):
        return False
    # This includes a `sample` that another pack may have put on the object.
    return not holds_foreign_code(vars(sampler))


class StandIn:
    """Stands in for a guider: it predicts something simple, and counts its calls."""

    def __init__(
        self,
        model_patcher,
        predict: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
        active: Callable[[float], bool] = lambda sigma: True,
    ) -> None:
        """predict: returns the prediction for a latent. active: at which noise levels to count."""
        self.model_patcher = model_patcher
        self.inner_model = model_patcher.model
        self._predict = predict
        self.cfg = 1.0
        self.conds: dict = {}
        self.count = 0
        self._active = active

    def __call__(self, x, sigma, model_options, seed=None):
        """Return the prediction for a latent, as a guider does."""
        self.count += self._active(float(sigma[0]))
        x = self._predict(x)
        # Some samplers get the prediction for the negative prompt through such a function.
        for function in model_options.get("sampler_post_cfg_function", []):
            x = function({"denoised": x, "cond_denoised": x, "uncond_denoised": x, "input": x})
        return x
