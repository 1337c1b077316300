"""What the sampler nodes do: the stock nodes' preparation around sampling frame by frame."""

import comfy.sample
import comfy.samplers

from .frame_by_frame import sample_frames
from .noise import clip_noise


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
) -> dict:
    """Do what the stock KSampler does, frame by frame. Returns a LATENT."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    schedule = comfy.samplers.KSampler(
        model, steps, model.load_device, sampler_name, scheduler, denoise, model.model_options
    )
    sampler = comfy.samplers.sampler_object(sampler_name)
    noise = clip_noise(SeededNoise(seed), frame_noise)
    output, _ = sample_custom(
        noise, guider, sampler, schedule.sigmas, latent, node="CrossFrameKSampler"
    )
    return output


def sample_custom(noise, guider, sampler, sigmas, latent: dict, node: str) -> tuple[dict, dict]:
    """Do what the stock SamplerCustomAdvanced does, frame by frame.

    Returns two LATENTs, the samples and the last denoised estimates.
    """
    latent = latent.copy()
    model = guider.model_patcher
    ratio = latent.pop("downscale_ratio_spacial", None)
    latent.pop("downscale_ratio_temporal", None)
    latent["samples"] = comfy.sample.fix_empty_latent_channels(model, latent["samples"], ratio)
    samples, x0 = sample_frames(
        guider,
        noise.generate_noise(latent),
        latent["samples"],
        sampler,
        sigmas,
        latent.get("noise_mask"),
        noise.seed,
        node,
    )
    output = {**latent, "samples": samples}
    if x0 is None:
        return output, output
    return output, {**latent, "samples": model.model.process_latent_out(x0)}
