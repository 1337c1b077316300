"""The work of the sampler nodes: the stock nodes' preparation around sampling frame by frame."""

from dataclasses import dataclass, replace

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch

from ..model.carried import settings_of
from ..noise.clip_noise import ClipNoise, SeededNoise, clip_noise, is_one_noise, noise_from
from ..page.notes import Notes
from ..page.scenes import keyframes_of, unreached_scenes
from ..state.comfy_state import ComfyState
from ..state.continuation import NOTHING, Continuation, with_state_of_model
from ..state.record import open_record
from .frame_by_frame import Clip, Passes, Sampling, sample_frames

ON, OFF = "enable", "disable"  # as the stock KSamplerAdvanced calls them
LAST_STEP = 10000  # the largest step number, also as in KSamplerAdvanced


@dataclass(frozen=True)
class Sampled:
    """The outputs of a sampler node: two LATENTs, a state if one is wanted, and a report in words.

    denoised: the last denoised estimates, or `output` itself if the sampler shows none. report:
    one line about what was done, and one for each thing that is not as the user may want it.
    """

    output: dict
    denoised: dict
    state: ComfyState | None
    report: tuple[str, ...]


class NoNoise:
    """The noise that the stock KSamplerAdvanced uses if it is to add none."""

    def __init__(self, seed: int) -> None:
        """seed: the seed of the noise that a sampler adds during sampling."""
        self.seed = seed

    def generate_noise(self, latent: dict):
        """Return zeros in the shape of latent["samples"]."""
        return torch.zeros_like(latent["samples"], device="cpu")


@dataclass(frozen=True)
class Stage:
    """Which steps a KSampler node takes, and what it does with noise before and after them.

    The fields are the inputs that the stock KSamplerAdvanced has in addition to KSampler's.
    """

    add_noise: str = ON
    start_at_step: int = 0
    end_at_step: int = LAST_STEP
    return_with_leftover_noise: str = OFF


def sample_ksampler(
    model,
    seed,
    steps,
    cfg,
    sampler_name,
    scheduler,
    positive,
    negative,
    latent,
    denoise,
    frame_noise,
    continuation: Continuation = NOTHING,
    resuming_node=None,
    stage: Stage = Stage(),
    passes: Passes | None = None,
) -> Sampled:
    """Do what the stock KSampler and KSamplerAdvanced do, frame by frame.

    The steps of `stage` count the steps that remain after `denoise`, as in ComfyUI's function
    behind both nodes.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    sigmas = schedule(model, steps, sampler_name, scheduler, denoise)
    leftover = stage.return_with_leftover_noise == ON
    sigmas = part_of(sigmas, stage.start_at_step, stage.end_at_step, leftover)
    sampler = comfy.samplers.sampler_object(sampler_name)
    source = SeededNoise(seed) if stage.add_noise == ON else NoNoise(seed)
    noise = clip_noise(source, frame_noise)
    sampled = sample_custom(
        noise, guider, sampler, sigmas, latent, continuation, resuming_node, passes
    )
    samples = as_intermediate(sampled.output["samples"])
    return replace(sampled, output={**sampled.output, "samples": samples})


def schedule(model, steps, sampler_name, scheduler, denoise) -> torch.Tensor:
    """Return the noise levels that the stock KSampler takes, (steps + 1,)."""
    stock = comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
    )
    sigmas: torch.Tensor = stock.sigmas
    return sigmas


def part_of(sigmas: torch.Tensor, start: int, end: int, leftover: bool) -> torch.Tensor:
    """Return the noise levels of the steps from `start` to right before `end`.

    They are those that KSamplerAdvanced uses. sigmas: the noise levels of all steps, (steps + 1,).
    leftover: whether the noise that is left at `end` stays; otherwise the last step removes all of
    it. Returns an empty tensor if there are no such steps.
    """
    if end < len(sigmas) - 1:
        sigmas = sigmas[: end + 1].clone()
        if not leftover:
            sigmas[-1] = 0
    return sigmas[start:] if start < len(sigmas) - 1 else sigmas[:0]


def as_intermediate(samples: torch.Tensor) -> torch.Tensor:
    """Return latents in the precision and on the device that the stock KSampler returns."""
    management = comfy.model_management
    # Older versions of ComfyUI use only one precision.
    dtype = getattr(management, "intermediate_dtype", lambda: samples.dtype)()
    return samples.to(device=management.intermediate_device(), dtype=dtype)


def sample_custom(
    noise,
    guider,
    sampler,
    sigmas,
    latent: dict,
    continuation: Continuation = NOTHING,
    resuming_node=None,
    passes: Passes | None = None,
) -> Sampled:
    """Do what the stock SamplerCustomAdvanced does, frame by frame.

    resuming_node: the class that ComfyUI executes, if finished frames are to survive an
    interruption, otherwise None. passes: see `sample_frames`.
    """
    latent = _prepared(latent, guider.model_patcher)
    continuation = with_state_of_model(guider, continuation)
    clip = _clip(noise, latent, continuation.first)
    sampling = Sampling(guider, sampler, sigmas, noise.seed)
    notes, record = Notes(resuming_node), None
    if resuming_node is not None:
        mask, state = latent.get("noise_mask"), _contents(continuation.state)
        more = [] if passes is None else passes.contents
        contents = (clip.noise, clip.latent, mask, sigmas, noise.seed, state, *more)
        record = open_record(resuming_node, guider, contents, notes)
    sampled = sample_frames(clip, sampling, continuation, record, passes)
    if record is not None:
        record.discard()
    # If frames are only looked at, the sampler may still have left some noise in its result.
    samples = clip.latent if continuation.reference_only else sampled.samples
    output = denoised = {**latent, "samples": samples.to(sampled.samples)}
    if sampled.x0 is not None:
        x0 = guider.model_patcher.model.process_latent_out(sampled.x0)
        denoised = {**latent, "samples": x0}
    frames = continuation.first + clip.frames
    policy = continuation.policy(settings_of(guider.model_options).policy, frames)
    of_clip = filter(None, [unreached_scenes(policy, frames), keyframes_of(policy)])
    report = (sampled.report, *notes.lines, *of_clip)
    return Sampled(output, denoised, sampled.state, report)


def _prepared(latent: dict, model) -> dict:
    """Return a LATENT with as many channels as a model needs, as the stock nodes do."""
    latent = latent.copy()
    ratio = latent.pop("downscale_ratio_spacial", None)
    latent.pop("downscale_ratio_temporal", None)
    latent["samples"] = comfy.sample.fix_empty_latent_channels(model, latent["samples"], ratio)
    return latent


def _clip(noise, latent: dict, first: int) -> Clip:
    """Return the clip in a LATENT with its noise. first: the number of its first frame."""
    drawn, mask = noise_from(noise, latent, first), latent.get("noise_mask")
    if mask is not None:  # nodes give masks in different shapes
        mask = mask.reshape(-1, 1, *mask.shape[-2:])
    return Clip(
        drawn,
        latent["samples"],
        mask,
        numbers=latent.get("batch_index"),
        one_noise=isinstance(noise, ClipNoise) or is_one_noise(drawn),
    )


def _contents(state: ComfyState | None) -> list | None:
    """Return everything in a state as plain data, so that different states can be told apart."""
    if state is None:
        return None
    kept = [
        [str(key), frame, [stored.values for stored in tokens]]
        for key, frames in state.stored.items()
        for frame, tokens in frames.items()
    ]
    return [state.frames, state.scene, state.noise_levels, kept]
