"""One evaluation of the model on the frames that are being sampled, in either order."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ....attention import FrameByFrame, Layer
from ....latents.operations import Moment, Step, applied
from ..model.carried import carried_by, run_of
from ..model.settings import NODE
from ..rows.conditions import conds_of_frames, name_conds
from ..rows.default_prompts import resolve_default_prompts
from ..rows.held_tensors import holding
from ..rows.patches import places_inside, rows_of
from ..rows.places import in_order, take
from ..run.comfy_run import ComfyRun, options_of_batch
from ..run.failures import explained
from ..run.shared_projections import without_replaced
from .layout_trial import measure_layouts

Conds = list[list[dict] | None]


def evaluate_clip(executor, model, conds, x, timestep, model_options):
    """CALC_COND_BATCH wrapper: one evaluation of the model on all frames, batch by batch.

    conds: lists of cond dicts by cond index. x: the latents of the frames that are being sampled,
    (frames, channels, height, width). timestep: sigmas, (frames,).
    Returns one prediction for x per cond index.
    """
    carried = carried_by(model_options)
    if carried is not None and carried.trial is not None:
        return carried.trial.predictions(conds, x, timestep)
    run = None if carried is None else carried.run
    if run is None:
        return executor(model, conds, x, timestep, model_options)
    with run.noise.paused(), explained():
        frames = sampled_frames(run)
        plain = partial(executor.original, model)
        measure_layouts(run, plain, frames[0], conds, x[:1], timestep[:1], model_options)
        batches = begin_step(run, model, x, timestep)
        conds = _decided_over_clip(run, conds, x, timestep, frames, len(batches))
        layers = layers_in_use(run, timestep, model_options)
        outputs, run_model = [], partial(executor, model)
        for batch in batches:
            places = [frames.index(frame) for frame in batch]
            part = take(x, places), take(timestep, places)
            outputs.append(_run_batch(run_model, run, conds, part, batch, layers, model_options))
    places = [frame for batch in batches for frame in batch]
    predictions = [in_order(torch.cat(parts), places) for parts in zip(*outputs)]
    return [operated(run, Moment.BEFORE_GUIDANCE, x0, timestep) for x0 in predictions]


def change_prediction(executor, x, timestep, model_options, seed):
    """PREDICT_NOISE wrapper: apply step operations to the prediction after guidance.

    Calls of torch are not watched in here. That is done for the sampler only, while guidance is
    tried before sampling.
    """
    run = run_of(model_options)
    if run is None:
        return executor(x, timestep, model_options, seed)
    with run.noise.watching(None):
        x0 = executor(x, timestep, model_options, seed)
    return operated(run, Moment.AFTER_GUIDANCE, x0, timestep)


def operated(run: ComfyRun, moment: Moment, x0: Tensor, timestep: Tensor) -> Tensor:
    """Return a prediction for the sampled frames after applying the run's step operations."""
    frames = sampled_frames(run)
    step = Step(run.lead.step, float(timestep[0]), frames, run.facts.places(frames))
    return applied(run.facts.operations, moment, x0, step)


def sampled_frames(run: ComfyRun) -> Sequence[int]:
    """Return the numbers of the frames that are being sampled, one for each row of the latent."""
    if isinstance(run.lead, FrameByFrame):
        return run.lead.frames
    return range(run.facts.order.start, run.facts.order.frames)


def begin_step(run: ComfyRun, model, x: Tensor, timestep: Tensor) -> Sequence[tuple[int, ...]]:
    """Begin a step of a run, and return the frames of each of its batches.

    Raises RuntimeError if x does not hold these frames, StepMismatchError if frames of one
    run take different steps.
    """
    if isinstance(run.lead, FrameByFrame):
        run.lead.next_step(float(timestep[0]))
        batches = [run.lead.frames]
    else:
        run.lead.next_step()
        batches = run.memory.batches(model, x)
    expected = sum(map(len, batches))
    if x.shape[0] != expected:
        raise RuntimeError(
            f"{NODE}: another node evaluates the model on {x.shape[0]} frames, but there should "
            f"be {expected}, so it is not known which frames they are. Remove that node."
        )
    return batches


def _decided_over_clip(
    run: ComfyRun, conds: Conds, x: Tensor, timestep: Tensor, frames: Sequence[int], batches: int
) -> Conds:
    """Return conds with default prompts resolved, unless all frames are run at once.

    In that case ComfyUI itself decides over the whole clip.
    """
    if not run.one_frame and batches == 1:
        return conds
    places = run.facts.places(frames)
    return resolve_default_prompts(conds, x, timestep, run.facts.rows, places)


def layers_in_use(run: ComfyRun, timestep: Tensor, model_options: dict) -> frozenset[Layer]:
    """Return the layers where cross-frame attention acts in an evaluation.

    There are none outside the chosen part of the denoising. A layer whose attention another patch
    has replaced (PAG, SAG, ...) is left to that patch, because such patches need as many keys as
    queries.
    """
    settings = run.facts.settings
    full_range = settings.start_percent <= 0 and settings.end_percent >= 1
    if not full_range and not run.facts.is_active(float(timestep[0])):
        return frozenset()
    if run.layouts is not None:
        return run.layouts.chosen(settings.layer_set)
    return without_replaced(settings.addresses, model_options["transformer_options"])


def _run_batch(run_model, run: ComfyRun, conds, part, batch, layers, model_options):
    """Run the model on a batch of frames.

    run_model: a function of conds, x, timestep and options. part: (x, timestep) of these frames.
    batch: their numbers. Returns one prediction per cond index.
    """
    rows, places = run.facts.rows, run.facts.places(batch)
    conds = conds_of_frames(conds, places, rows, run.controls)
    evaluation = run.evaluate(batch, layers, name_conds(conds))
    options = options_of_batch(model_options, run, evaluation)
    held = []
    if not run.one_frame and len(batch) < rows:
        held = places_inside(options)
    with explained(len(batch), rows), holding(held, rows_of(places, rows)):
        return run_model(conds, *part, options)
