"""The wrappers around ComfyUI's samplers that a patched MODEL carries.

They serve both orders and have no state. Everything that changes lives in a `ComfyRun`, which is
made when a sampling starts and dropped when it ends.
"""

from contextlib import ExitStack

import torch
from comfy.model_patcher import create_model_options_clone

from ....attention import FrameByFrame, PerStep
from ..errors import named
from ..model.carried import carrying, run_of, settings_of
from ..model.own_code import is_comfyuis
from ..model.settings import NODE
from ..neighbours.guidance_trial import TrialClip, Verdict, check_guidance
from ..neighbours.known import IN_BATCHES, PER_STEP, check_neighbours
from ..neighbours.sampler_watch import RowsTogether
from ..noise.clip_noise import is_one_noise
from ..noise.row_noise import RowNoise
from ..noise.sampler_noise import with_frame_noise
from ..page.scenes import show_scenes
from ..rows.conditions import with_frame_masks
from ..rows.held_tensors import holding
from ..rows.patches import places_inside, places_of_guidance, rows_of
from ..run.comfy_run import ComfyRun, new_run
from ..state.comfy_state import Origin, sampler_name
from ..state.continuation import Continuation
from .checks import check_sampling


def run_sampling(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """OUTER_SAMPLE wrapper: give a sampling its run, and take it away however the sampling ends.

    Samplings of single frames that belong to a longer run bring that run with them.
    """
    guider = executor.class_obj
    if run_of(guider.model_options) is not None:
        return _sample(executor, guider, noise, latent_image, sampler, sigmas, *args, **kwargs)
    with named(NODE):
        run = _run_of_clip(guider, noise, latent_image, sampler, sigmas)
        guider.conds = {
            name: with_frame_masks(conds, latent_image) for name, conds in guider.conds.items()
        }
        before = guider.model_options
        try:
            guider.model_options = carrying(create_model_options_clone(before), run=run)
            return _sample(executor, guider, noise, latent_image, sampler, sigmas, *args, **kwargs)
        finally:
            guider.model_options = before


def _run_of_clip(guider, noise, latent, sampler, sigmas) -> ComfyRun[PerStep]:
    """Begin a run for a stock sampler node, which samples all frames at every step."""
    check_sampling(guider, guider.conds, latent, PER_STEP)
    continuation = Continuation(settings_of(guider.model_options).state)
    origin = Origin.of(guider, noise, sampler, sigmas) if continuation.has_origin else None
    run = new_run(
        guider,
        noise,
        PerStep,
        continuation=continuation,
        origin=origin,
        one_noise=is_one_noise(noise),
    )
    if 0 < run.facts.settings.frames_per_batch < run.facts.rows:
        check_neighbours(guider, IN_BATCHES, run.facts.rows)
    show_scenes(run.facts.policy, run.facts.order.start, run.facts.order.frames)
    return run


def _sample(
    executor,
    guider,
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
    """Sample with noise that is drawn for each frame by itself."""
    run = run_of(guider.model_options)
    run.noise = RowNoise(lambda: run.draws(noise, seed), latent_image.shape, seed)
    watch = _watch(run, sampler, latent_image)
    sampler = with_frame_noise(sampler, seed, run.noise)
    callback = _outside(run.noise, callback)
    settings = denoise_mask, callback, disable_pbar, seed
    try:
        with run.noise.active(), run.noise.watching(watch):
            return executor(noise, latent_image, sampler, sigmas, *settings, **kwargs)
    finally:
        run.noise = None  # it refers back to the run


def _watch(run: ComfyRun, sampler, latent: torch.Tensor) -> RowsTogether | None:
    """Return a watch for another pack's sampler that gets only a part of the clip, or None."""
    function = getattr(sampler, "sampler_function", None)
    if not run.one_frame or is_comfyuis(function):
        return None
    return RowsTogether(sampler_name(sampler), latent.shape)


def _outside(noise: RowNoise, callback):
    """Return a sampler's callback so that it is not watched and draws its numbers as usual."""
    if callback is None:
        return None

    def call(*args, **kwargs):
        with noise.paused():
            return callback(*args, **kwargs)

    return call


def run_sampler(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    """SAMPLER_SAMPLE wrapper: try the guidance between model and sampler, then sample.

    Noise that ComfyUI itself draws around a sampler function (the noise outside a mask) stays as
    ComfyUI draws it. Inside the function, frame noise is active again.
    """
    options = extra_args["model_options"]
    run = run_of(options)
    if run is None:
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)
    with ExitStack() as around:
        if run.one_frame:
            if run.verdict is None:
                with run.noise.paused():
                    run.verdict = try_guidance(run, guider, sigmas, options, noise)
            around.enter_context(_holding_rows_of_frame(run, options))
        if getattr(executor.class_obj, "sampler_function", None) is not None:
            around.enter_context(run.noise.paused())
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)


def try_guidance(run: ComfyRun[FrameByFrame], guider, sigmas, options: dict, noise) -> Verdict:
    """Refuse guidance that would give another result frame by frame. Raises BadInputError.

    noise: the noise of the frames that are sampled first, (frames, channels, height, width).
    """
    numbers = run.facts.numbers
    if numbers is None or run.facts.one_noise:
        numbers = [0] * run.facts.rows
    seed = None if run.noise is None else run.noise.seed
    return check_guidance(guider, options, TrialClip.of(noise[:1], sigmas, numbers, seed))


def _holding_rows_of_frame(run: ComfyRun[FrameByFrame], model_options: dict):
    """Let other nodes' patches hold only the rows of the frames that are being sampled."""
    held = places_inside(model_options)
    if run.verdict is not None and run.verdict.cut:
        held += places_of_guidance(model_options)
    places = run.facts.places(run.lead.frames)
    return holding(held, rows_of(places, run.facts.rows))
