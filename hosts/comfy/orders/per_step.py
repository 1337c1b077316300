"""Sampling with cross-frame attention, all frames of a clip per step.

The functions here are wrappers that a patched MODEL carries. They have no state: whatever
changes lives in a `ComfyRun`, which is born when a sampling starts and gone when it ends.
"""

import logging
from contextlib import ExitStack, nullcontext

import torch
from comfy.model_patcher import create_model_options_clone

from ....attention import Layer
from ..errors import BadInputError
from ..model.own_code import is_comfyuis
from ..model.settings import KEY, NODE
from ..neighbours.guidance_trial import Clip, Trial, check_guidance
from ..neighbours.known import IN_BATCHES, PER_STEP, check_neighbours
from ..neighbours.sampler_watch import RowsTogether
from ..noise.clip_noise import is_one_noise
from ..noise.row_noise import RowNoise
from ..noise.sampler_noise import with_frame_noise
from ..page.scenes import show_scenes
from ..rows.conditions import check_conditions, conds_of_frames, name_conds
from ..rows.default_prompts import resolve_default_prompts
from ..rows.held_tensors import holding
from ..rows.patches import places_inside, places_of_guidance, rows_of
from ..run.budget import plan_batches
from ..run.comfy_run import (
    ComfyEvaluation,
    ComfyRun,
    new_run,
    options_of_batch,
    options_with_run,
    run_of,
)
from ..run.failures import explained
from ..run.self_attention import without_replaced
from ..state.comfy_state import Origin, sampler_name
from ..state.continuation import Continuation

log = logging.getLogger("crossframe")


def check_sampling(
    guider, conds: dict[str, list[dict]], latent: torch.Tensor, way: str, node: str
) -> None:
    """Refuse, before sampling, what would come out wrong; say so if there is nothing to do.

    guider: a guider whose MODEL carries settings. conds: its cond dicts by input name.
    latent: (frames, channels, height, width). way: PER_STEP or FRAME_BY_FRAME.
    Raises BadInputError.
    """
    if latent.ndim != 4:
        raise BadInputError(
            node,
            "latent_image",
            f"it is a {latent.ndim}-D latent, {tuple(latent.shape)}, as video models use.",
            "Encode the frames as an image batch with an image model's VAE.",
        )
    check_neighbours(guider, way, latent.shape[0], node)
    check_conditions(conds, latent.shape[0], node)
    if latent.shape[0] == 1:
        log.info("Cross-frame attention: a batch of 1 frame has no other frames to attend to.")


def run_sampling(
    executor,
    noise,
    latent_image,
    sampler,
    sigmas,
    denoise_mask=None,
    callback=None,
    disable_pbar=False,
    seed=None,
    **kwargs,
):
    """OUTER_SAMPLE wrapper: give a sampling its run, and take it away in any case.

    Samplings of one frame that belong to a longer run bring that run with them.
    """
    guider = executor.class_obj
    before = options = guider.model_options
    run = run_of(before)
    if run is None:
        check_sampling(guider, guider.conds, latent_image, PER_STEP, NODE)
        going = Continuation(before[KEY].state)
        origin = Origin.of(guider, noise, sampler, sigmas) if going.has_origin else None
        run = new_run(
            guider,
            noise,
            node=NODE,
            one_frame=False,
            going=going,
            origin=origin,
            one_noise=is_one_noise(noise),
        )
        if 0 < run.settings.frames_per_batch < run.rows:
            check_neighbours(guider, IN_BATCHES, run.rows, NODE)
        options = options_with_run(create_model_options_clone(before), run)
        show_scenes(run.policy, run.offset, run.frames)
    run.noise = RowNoise(lambda: run.draws(noise, seed), latent_image.shape, seed)
    watch = _watch(run, sampler, latent_image)
    sampler = with_frame_noise(sampler, seed, run.noise)
    try:
        guider.model_options = options
        with run.noise.active(), run.noise.watching(watch):
            return executor(
                noise,
                latent_image,
                sampler,
                sigmas,
                denoise_mask,
                _outside(run.noise, callback),
                disable_pbar,
                seed,
                **kwargs,
            )
    finally:
        guider.model_options = before
        run.noise = None  # it leads back to the run


def _watch(run: ComfyRun, sampler, latent: torch.Tensor) -> RowsTogether | None:
    """What watches a sampler of another pack while it has one frame of a clip at a time."""
    function = getattr(sampler, "sampler_function", None)
    if not run.one_frame or is_comfyuis(function):
        return None
    return RowsTogether(sampler_name(sampler), latent.shape, run.node)


def _outside(noise: RowNoise, callback):
    """A sampler's callback that is not watched and draws what it draws as ever."""
    if callback is None:
        return None

    def call(*args, **kwargs):
        with noise.paused():
            return callback(*args, **kwargs)

    return call


def run_sampler(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    """SAMPLER_SAMPLE wrapper: try what stands between model and sampler, then sample.

    What ComfyUI itself draws around a sampler function (the noise outside of a mask) stays as it
    draws it; the function makes frame noise active again.
    """
    run = run_of(extra_args["model_options"])
    if run is None:
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)
    options = extra_args["model_options"]
    with ExitStack() as around:
        if run.one_frame:
            if not run.tried:
                with run.noise.paused():
                    _try_guidance(run, guider, sigmas, options, noise)
            around.enter_context(_rows_of_frame(run, options))
        if getattr(executor.class_obj, "sampler_function", None) is not None:
            around.enter_context(run.noise.paused())
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)


def _rows_of_frame(run: ComfyRun, model_options: dict):
    """Let other nodes' patches hold the rows of the frame that is sampled."""
    places = places_inside(model_options)
    if run.cut_guidance:
        places += places_of_guidance(model_options)
    frame = run.rows_of(range(run.frame, run.frame + 1))
    return holding(places, rows_of(frame, run.rows))


def _rows_of_batch(run: ComfyRun, model_options: dict, frames: range):
    """Let other nodes' patches hold the rows of a batch of frames, if that is not the clip."""
    if run.one_frame or len(frames) == run.rows:
        return nullcontext()
    return holding(places_inside(model_options), rows_of(run.rows_of(frames), run.rows))


def predict_unwatched(executor, x, timestep, model_options, seed):
    """PREDICT_NOISE wrapper: what guidance does is tried, and not watched as the sampler is."""
    run = run_of(model_options)
    if run is None:
        return executor(x, timestep, model_options, seed)
    with run.noise.watching(None):
        return executor(x, timestep, model_options, seed)


def _try_guidance(run: ComfyRun, guider, sigmas, model_options: dict, noise) -> None:
    """Refuse guidance that would come out otherwise frame by frame. Raises BadInputError.

    noise: of the first frame that is sampled, (1, channels, height, width).
    """
    numbers = [0] * run.rows if run.one_noise else run.numbers
    clip = Clip.of(noise, sigmas, numbers, run.noise.seed)
    verdict = check_guidance(guider, model_options, clip, run.node)
    run.cut_guidance, run.untried, run.tried = verdict.cut, verdict.untried, True


def evaluate_clip(executor, model, conds, x, timestep, model_options):
    """CALC_COND_BATCH wrapper: one evaluation of the model on all frames, batch by batch.

    conds: lists of cond dicts by cond index. x: (frames, channels, height, width), one frame
    in a run that goes frame by frame. timestep: (frames,) sigmas.
    Returns one prediction for x per cond index.
    """
    travelling = model_options.get("transformer_options", {}).get(KEY)
    if isinstance(travelling, Trial):
        return travelling.predictions(conds, x, timestep)
    run = run_of(model_options)
    if run is None:
        return executor(model, conds, x, timestep, model_options)
    with run.noise.paused(), explained(run.node):
        parts = begin_step(run, model, x, timestep)
        conds = _decided_over_clip(run, conds, x, timestep, parts)
        layers = layers_in_use(run, timestep, model_options)
        outputs = []
        for frames in parts:
            rows = slice(frames.start - parts[0].start, frames.stop - parts[0].start)
            part = conds_of_frames(conds, run.rows_of(frames), run.rows, run.controls)
            evaluation = ComfyEvaluation(run, run.step, tuple(frames), layers, name_conds(part))
            options = options_of_batch(model_options, evaluation)
            rows_held = _rows_of_batch(run, options, frames)
            with explained(run.node, len(frames), run.rows), rows_held:
                outputs.append(executor(model, part, x[rows], timestep[rows], options))
    predictions = [torch.cat(batches) for batches in zip(*outputs)]
    if run.pictures is None:
        return predictions
    # As if the model saw through all noise, so that the sampler stays with the pictures.
    seen = run.pictures[run.frame - run.offset :][: x.shape[0]]
    seen = model.process_latent_in(seen).to(x)
    return [seen for _ in predictions]


def _decided_over_clip(run: ComfyRun, conds, x, timestep, parts: list[range]):
    """Conds without default prompts, unless all frames are run at once and ComfyUI decides."""
    if not run.one_frame and len(parts) == 1:
        return conds
    frames = run.rows_of(range(parts[0].start, parts[-1].stop))
    return resolve_default_prompts(conds, x, timestep, run.rows, frames)


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
    return without_replaced(settings.addresses, model_options["transformer_options"])
