"""Sampling with cross-frame attention, all frames of a clip per step.

The functions here are the wrappers and the attn1 patch that a patched MODEL carries. They have
no state: whatever changes lives in a `ComfyRun`, which is born when a sampling starts and gone
when it ends. The run travels to the wrappers, and the evaluation in progress to the patch, in
`transformer_options`.
"""

import logging
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.sampler_helpers import get_additional_models

from ...attention import Evaluation, Layer, Run
from .conditions import ControlCopies, check_conditions, conds_of_frames, name_conds
from .errors import BadInputError
from .memory import batches, frames_that_fit
from .settings import KEY, NODE, Settings

log = logging.getLogger("crossframe")


class ComfyRun(Run):
    """A run and what ComfyUI needs beside it.

    settings: the user's choice. sigmas: (start, end) noise levels between which
    cross-frame attention acts. one_frame: whether frames are painted one after another.
    """

    def __init__(
        self, settings: Settings, frames: int, sigmas: tuple[float, float], one_frame: bool
    ):
        super().__init__(settings.policy, frames)
        self.settings = settings
        self.sigmas = sigmas
        self.one_frame = one_frame
        self.controls = ControlCopies()
        self.batches: list[range] | None = None

    def active(self, sigma: float) -> bool:
        """Whether cross-frame attention acts at a noise level."""
        start, end = self.sigmas
        return end <= sigma <= start


@dataclass(frozen=True)
class ComfyEvaluation(Evaluation):
    """An evaluation that can tell ComfyUI's conds apart (see `name_conds`)."""

    names: dict


def new_run(guider, frames: int, *, one_frame: bool) -> ComfyRun:
    """Begin a run for a guider whose MODEL carries settings."""
    settings: Settings = guider.model_options[KEY]
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = (
        float(sampling.percent_to_sigma(settings.start_percent)),
        float(sampling.percent_to_sigma(settings.end_percent)),
    )
    return ComfyRun(settings, frames, sigmas, one_frame)


def options_with_run(model_options: dict, value) -> dict:
    """Return model options whose transformer options also carry a run or an evaluation."""
    transformer_options = {**model_options.get("transformer_options", {}), KEY: value}
    return {**model_options, "transformer_options": transformer_options}


def run_of(model_options: dict) -> ComfyRun | None:
    """The run that travels in model options, if a sampling is in progress."""
    value = model_options.get("transformer_options", {}).get(KEY)
    return value if isinstance(value, ComfyRun) else None


def check_sampling(guider, conds: dict[str, list[dict]], latent: torch.Tensor, node: str) -> None:
    """Refuse, before sampling, what would come out wrong; say so if there is nothing to do.

    guider: a guider whose MODEL carries settings. conds: its cond dicts by input name.
    latent: (frames, channels, height, width). Raises BadInputError.
    """
    if latent.ndim != 4:
        raise BadInputError(
            node,
            "latent_image",
            f"it is a {latent.ndim}-D latent, {tuple(latent.shape)}, as video models use.",
            "Encode the frames as an image batch with an image model's VAE.",
        )
    if "context_handler" in guider.model_options:
        raise BadInputError(
            node,
            "model",
            "Context Windows hide from it which frames of the clip are run.",
            "Remove the Context Windows node and set frames_per_batch instead.",
        )
    if guider.model_patcher.get_additional_models_with_key("multigpu"):
        raise BadInputError(
            node,
            "model",
            "it is spread over several GPUs, which run the conds of a step on threads.",
            "Remove the MultiGPU node.",
        )
    check_conditions(conds, latent.shape[0], node)
    if latent.shape[0] == 1:
        log.info("Cross-frame attention: a batch of 1 frame has no other frames to attend to.")


def run_sampling(executor, noise, latent_image, *args, **kwargs):
    """OUTER_SAMPLE wrapper: give a sampling its run, and take it away in any case.

    Samplings of one frame that belong to a longer run bring that run with them.
    """
    guider = executor.class_obj
    if run_of(guider.model_options) is not None:
        return executor(noise, latent_image, *args, **kwargs)
    check_sampling(guider, guider.conds, latent_image, NODE)
    run = new_run(guider, latent_image.shape[0], one_frame=False)
    before = guider.model_options
    try:
        guider.model_options = options_with_run(create_model_options_clone(before), run)
        return executor(noise, latent_image, *args, **kwargs)
    finally:
        guider.model_options = before


def budget_memory(executor, model, noise_shape, conds, *args, **kwargs):
    """PREPARE_SAMPLING wrapper: ask for the memory of one batch of frames, not of the clip."""
    run = run_of(kwargs.get("model_options") or {})
    if run is not None and not run.one_frame:
        others, inference = get_additional_models(conds, model.model_dtype())
        # What could be free with the models of this sampling loaded and all else moved away.
        free = (
            comfy.model_management.get_total_memory(model.load_device)
            - comfy.model_management.extra_reserved_memory()
            - sum(loaded.model_size() for loaded in (model, *others))
            - inference
        )
        at_most = frames_per_batch(run, model.model, noise_shape, free)
        noise_shape = [at_most, *noise_shape[1:]]
    return executor(model, noise_shape, conds, *args, **kwargs)


def frames_per_batch(run: ComfyRun, model, shape, free: float) -> int:
    """Frames to run in one batch: the user's number, or as many as fit with cond and uncond.

    model: ComfyUI's BaseModel. shape: of the clip's latent. free: bytes on its device.
    """
    if run.settings.frames_per_batch > 0:
        return min(run.settings.frames_per_batch, run.frames)
    return frames_that_fit(
        lambda frames: model.memory_required([2 * frames, *shape[1:]]), free, run.frames
    )


def plan_batches(run: ComfyRun, model, x) -> list[range]:
    """Split the clip by what is free now that the models are loaded; once for the whole run.

    The split does not change the frames beyond rounding, but a run should not depend on what
    else happens to memory while it goes on.
    """
    free = model.current_patcher.get_free_memory(x.device)
    parts = batches(run.frames, frames_per_batch(run, model, x.shape, free))
    log.info(
        "Cross-frame attention: %d frames per step, in batches of up to %d.",
        run.frames,
        max(map(len, parts)),
    )
    return parts


def evaluate_clip(executor, model, conds, x, timestep, model_options):
    """CALC_COND_BATCH wrapper: one evaluation of the model on all frames, batch by batch.

    conds: lists of cond dicts by cond index. x: (frames, channels, height, width), one frame
    in a run that goes frame by frame. timestep: (frames,) sigmas.
    Returns one prediction for x per cond index.
    """
    run = run_of(model_options)
    if run is None:
        return executor(model, conds, x, timestep, model_options)
    parts = begin_step(run, model, x, timestep)
    layers = layers_in_use(run, timestep, model_options)
    outputs = []
    for frames in parts:
        rows = slice(frames.start - parts[0].start, frames.stop - parts[0].start)
        part = conds_of_frames(conds, frames, run.frames, run.controls)
        evaluation = ComfyEvaluation(run, run.step, tuple(frames), layers, name_conds(part))
        options = options_with_run(model_options, evaluation)
        outputs.append(executor(model, part, x[rows], timestep[rows], options))
    return [torch.cat(predictions) for predictions in zip(*outputs)]


def begin_step(run: ComfyRun, model, x, timestep) -> list[range]:
    """Begin a step of a run, and tell the frames of each batch in it.

    Raises RuntimeError if x does not hold these frames, StepMismatchError if frames of one
    run go different ways.
    """
    if run.one_frame:
        run.next_step(float(timestep[0]))
        parts = [range(run.frame, run.frame + 1)]
    else:
        run.forget()
        parts = run.batches = run.batches or plan_batches(run, model, x)
    expected = sum(map(len, parts))
    if x.shape[0] != expected:
        raise RuntimeError(
            f"{NODE}: another node evaluates the model on {x.shape[0]} frames where the clip "
            f"has {expected}, so it cannot be told which frames they are. Remove that node."
        )
    return parts


def layers_in_use(run: ComfyRun, timestep, model_options: dict) -> frozenset[Layer]:
    """Layers where cross-frame attention acts in an evaluation.

    None outside the chosen part of the denoising; and where another patch has replaced a
    layer's attention (PAG, SAG, ...) the layer is left to it, since such patches count on
    as many keys as queries.
    """
    settings = run.settings
    full_range = settings.start_percent <= 0 and settings.end_percent >= 1
    if not full_range and not run.active(float(timestep[0])):
        return frozenset()
    replaced = model_options["transformer_options"].get("patches_replace", {}).get("attn1", {})
    return frozenset(
        layer
        for layer in settings.addresses
        if tuple(layer) not in replaced and tuple(layer)[:2] not in replaced
    )


def attend(query, context, value, extra_options: dict):
    """attn1 patch: replace the tokens that keys and values are projected from.

    query, context, value: (rows, tokens, channels). Returns the three with context and value
    of (rows, k * tokens, channels).
    """
    evaluation = extra_options.get(KEY)
    if not isinstance(evaluation, ComfyEvaluation):
        return query, context, value  # a call of the model outside of a sampling
    layer = Layer(*extra_options["block"], extra_options["block_index"])
    labels = zip(extra_options["cond_or_uncond"], extra_options["uuids"])
    # A cond that another node's wrapper brings in later has no name; its label will do.
    entries = [evaluation.names.get(label, label) for label in labels]
    if value is context:
        (context,) = evaluation.attend(layer, entries, (context,))
        return query, context, context
    return query, *evaluation.attend(layer, entries, (context, value))
