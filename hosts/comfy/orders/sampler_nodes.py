"""What the sampler nodes do: the stock nodes' preparation around sampling frame by frame."""

from dataclasses import dataclass, replace

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch

from ..model.settings import KEY
from ..noise.clip_noise import ClipNoise, SeededNoise, clip_noise, is_one_noise, noise_from
from ..page.notes import Notes
from ..page.scenes import unreached_scenes
from ..state.comfy_state import ComfyState
from ..state.continuation import NOTHING, Continuation, with_state_of_model
from ..state.record import open_record
from .frame_by_frame import sample_frames

ON, OFF = "enable", "disable"  # as the stock KSamplerAdvanced calls them
LAST_STEP = 10000  # the most steps that there are, as there


@dataclass(frozen=True)
class Sampled:
    """What a sampler node gives: two LATENTs, a state if one is wanted, and a report in words.

    denoised: the last denoised estimates; `output` itself where a sampler shows none. report: one
    line about what was done, and one for each thing that is not as the user may want it.
    """

    output: dict
    denoised: dict
    state: ComfyState | None
    report: tuple[str, ...]


class NoNoise:
    """What the stock KSamplerAdvanced takes for noise if it is to add none."""

    def __init__(self, seed: int) -> None:
        """seed: of the noise that a sampler adds on its way."""
        self.seed = seed

    def generate_noise(self, latent: dict):
        """Return zeros like latent["samples"]."""
        return torch.zeros_like(latent["samples"], device="cpu")


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
    going: Continuation = NOTHING,
    executed=None,
    add_noise: str = ON,
    start_at_step: int = 0,
    end_at_step: int = LAST_STEP,
    return_with_leftover_noise: str = OFF,
) -> Sampled:
    """Do what the stock KSampler and KSamplerAdvanced do, frame by frame.

    Steps are counted as `denoise` leaves them, as in ComfyUI's function behind both nodes.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    schedule = comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
    )
    leftover = return_with_leftover_noise == ON
    sigmas = part_of(schedule.sigmas, start_at_step, end_at_step, leftover)
    sampler = comfy.samplers.sampler_object(sampler_name)
    noise = clip_noise(SeededNoise(seed) if add_noise == ON else NoNoise(seed), frame_noise)
    sampled = sample_custom(
        noise, guider, sampler, sigmas, latent, "CrossFrameKSampler", going, executed
    )
    samples = as_intermediate(sampled.output["samples"])
    return replace(sampled, output={**sampled.output, "samples": samples})


def part_of(sigmas: torch.Tensor, start: int, end: int, leftover: bool) -> torch.Tensor:
    """The noise levels of the steps from `start` to right before `end`, as KSamplerAdvanced has it.

    sigmas: (steps + 1,) noise levels of all steps. leftover: whether the noise that is left at
    `end` stays; otherwise the last step takes all of it away. Empty if there are no such steps.
    """
    if end < len(sigmas) - 1:
        sigmas = sigmas[: end + 1].clone()
        if not leftover:
            sigmas[-1] = 0
    return sigmas[start:] if start < len(sigmas) - 1 else sigmas[:0]


def as_intermediate(samples: torch.Tensor) -> torch.Tensor:
    """Latents in the precision and on the device that the stock KSampler hands them on in."""
    management = comfy.model_management
    # Older versions of ComfyUI know one precision only.
    dtype = getattr(management, "intermediate_dtype", lambda: samples.dtype)()
    return samples.to(device=management.intermediate_device(), dtype=dtype)


def sample_custom(
    noise,
    guider,
    sampler,
    sigmas,
    latent: dict,
    node: str,
    going: Continuation = NOTHING,
    executed=None,
) -> Sampled:
    """Do what the stock SamplerCustomAdvanced does, frame by frame.

    executed: the class that ComfyUI executes, if finished frames are to outlive an interruption.
    """
    latent = latent.copy()
    model = guider.model_patcher
    ratio = latent.pop("downscale_ratio_spacial", None)
    latent.pop("downscale_ratio_temporal", None)
    latent["samples"] = comfy.sample.fix_empty_latent_channels(model, latent["samples"], ratio)
    going = with_state_of_model(guider, going, node)
    drawn = noise_from(noise, latent, going.first, node)
    mask = latent.get("noise_mask")
    record, notes = None, Notes(executed)
    if executed is not None:
        contents = (drawn, latent["samples"], mask, sigmas, noise.seed, _about(going.state))
        record = open_record(executed, guider, contents, notes)
    painted = sample_frames(
        guider,
        drawn,
        latent["samples"],
        sampler,
        sigmas,
        mask,
        noise.seed,
        node,
        going,
        record,
        one_noise=isinstance(noise, ClipNoise) or is_one_noise(drawn),
        numbers=latent.get("batch_index"),
    )
    if record is not None:
        record.discard()
    # Where frames are only looked at, samplers may still leave some of the noise in them.
    samples = latent["samples"] if going.reference_only else painted.samples
    output = {**latent, "samples": samples.to(painted.samples)}
    denoised = output
    if painted.x0 is not None:
        denoised = {**latent, "samples": model.model.process_latent_out(painted.x0)}
    policy = going.policy(guider.model_options[KEY].policy)
    unreached = unreached_scenes(policy, going.first + len(painted.samples))
    report = (painted.report, *notes.lines, *filter(None, [unreached]))
    return Sampled(output, denoised, painted.state, report)


def _about(state: ComfyState | None) -> list | None:
    """What tells one state from another: all it holds."""
    if state is None:
        return None
    kept = [
        [str(key), frame, [stored.values for stored in tokens]]
        for key, frames in state.kept.items()
        for frame, tokens in frames.items()
    ]
    return [state.frames, state.scene, state.noise_levels, kept]
