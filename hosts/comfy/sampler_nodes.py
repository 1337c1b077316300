"""What the sampler nodes do: the stock nodes' preparation around sampling frame by frame."""

from dataclasses import dataclass

import comfy.sample
import comfy.samplers

from .continuation import NOTHING, Continuation, with_state_of_model
from .frame_by_frame import sample_frames
from .noise import clip_noise, noise_from
from .notes import Notes
from .resume import open_record
from .scenes import unreached_scenes
from .settings import KEY
from .state import ComfyState


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


class SeededNoise:
    """The stock KSampler's noise as a NOISE."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, latent: dict):
        """Return noise like latent["samples"]; `batch_index` picks draws, as in the stock node."""
        return comfy.sample.prepare_noise(latent["samples"], self.seed, latent.get("batch_index"))


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
) -> Sampled:
    """Do what the stock KSampler does, frame by frame."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    schedule = comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
    )
    sampler = comfy.samplers.sampler_object(sampler_name)
    noise = clip_noise(SeededNoise(seed), frame_noise)
    return sample_custom(
        noise, guider, sampler, schedule.sigmas, latent, "CrossFrameKSampler", going, executed
    )


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
    drawn = noise_from(noise, latent, going.first)
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
    )
    if record is not None:
        record.discard()
    output = {**latent, "samples": painted.samples}
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
