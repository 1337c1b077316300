"""Guidance between model and sampler that does not treat the frames of a clip alike.

Frame by frame it would see one frame at a time; the pack finds that out by itself, whoever the
guidance belongs to, and refuses it by its owner's name before the model is run. What treats rows
alike works. With a stock sampler every guidance works, in batches of any size.
"""

import bench
import pytest
import tiny
import torch
from bench import refuses

FRAMES = 4


def linear(model):
    from comfy_extras.nodes_video_model import VideoLinearCFGGuidance

    return VideoLinearCFGGuidance().patch(model, 1.0)[0]


def triangle(model):
    from comfy_extras.nodes_video_model import VideoTriangleCFGGuidance

    return VideoTriangleCFGGuidance().patch(model, 1.0)[0]


def mahiro(model):
    """This guidance uses a mean over the batch."""
    from comfy_extras.nodes_mahiro import Mahiro

    return Mahiro.execute(model).args[0]


class KeepsLast:
    """A post-cfg function that mixes in what it gave the last time it was called."""

    def __init__(self):
        self.last = None

    def __call__(self, args):
        denoised = args["denoised"]
        if self.last is not None and self.last.shape == denoised.shape:
            denoised = 0.9 * denoised + 0.1 * self.last
        self.last = denoised
        return denoised


def by_row_number(args):
    rows = args["conds_out"][0].shape[0]
    ramp = torch.linspace(1, 1.2, rows).view(-1, 1, 1, 1)
    return [out * ramp for out in args["conds_out"]]


def by_count(args):
    return args["denoised"] / len(args["denoised"])


def with_pre_cfg(function):
    def patched(model):
        model = model.clone()
        model.set_model_sampler_pre_cfg_function(function)
        return model

    return patched


def with_post_cfg(function):
    def patched(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(function() if function is KeepsLast else function)
        return model

    return patched


def wrapped(model):
    """A wrapper around the guider's prediction that takes the mean of all frames."""
    from comfy.patcher_extension import WrappersMP

    def towards_the_mean(executor, *args, **kwargs):
        predicted = executor(*args, **kwargs)
        return 0.9 * predicted + 0.1 * predicted.mean(dim=0, keepdim=True)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "another pack", towards_the_mean)
    return model


MIXED = {
    "VideoLinearCFGGuidance": linear,
    "VideoTriangleCFGGuidance": triangle,
    "Mahiro": mahiro,
    "KeepsLast": with_post_cfg(KeepsLast),
    "by_row_number": with_pre_cfg(by_row_number),
    "by_count": with_post_cfg(by_count),
    "wrapped": wrapped,
}


@pytest.mark.parametrize("owner", MIXED)
def test_what_mixes_frames_is_refused_by_name_frame_by_frame(sd15, prompts, owner):
    model = MIXED[owner](tiny.patch(sd15))
    refuses(
        lambda: tiny.frame_ksampler(model, *prompts, tiny.clip(FRAMES)),
        match=rf"^CrossFrameKSampler: input 'model': {owner} does not treat .* alike",
    )


@pytest.mark.parametrize("owner", MIXED)
def test_what_mixes_frames_works_with_a_stock_sampler_in_any_batch(sd15, prompts, owner):
    whole, apart, plain = (
        tiny.ksampler(model, *prompts, tiny.clip(3), steps=3)
        for model in (
            MIXED[owner](tiny.patch(sd15)),
            MIXED[owner](tiny.patch(sd15, frames_per_batch=1)),
            tiny.patch(sd15),
        )
    )
    assert tiny.error(apart, whole) < 1e-4
    assert tiny.error(plain, whole) > 0.01


def rescale(model):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return RescaleCFG().patch(model, 0.7)[0]


def apg(model):
    """This guidance keeps a running average over the steps and begins again at every sampling."""
    from comfy_extras.nodes_apg import APG

    return APG.execute(model, 1.0, 5.0, 0.5).args[0]


def noise_in_guidance(model):
    """This guidance draws from torch's own generator at every step."""

    def noisy(args):
        return args["denoised"] + 0.1 * torch.randn_like(args["denoised"])

    return with_post_cfg(noisy)(model)


def perturbed(model):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return PerturbedAttentionGuidance.execute(model, 3.0).args[0]


@pytest.mark.parametrize("guidance", [rescale, apg, noise_in_guidance, perturbed])
def test_what_treats_rows_alike_works_in_both_orders(sd15, prompts, guidance):
    model = guidance(tiny.patch(sd15))
    expected = tiny.ksampler(model, *prompts, tiny.clip(FRAMES))
    assert tiny.error(tiny.frame_ksampler(model, *prompts, tiny.clip(FRAMES)), expected) < 1e-4
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip(FRAMES)), expected) < 1e-4


def test_guidance_that_does_not_begin_again_is_refused(sd15, prompts):
    """With one step, APG takes the next frame for the next step of the same sampling."""
    model = apg(tiny.patch(sd15))
    refuses(
        lambda: tiny.frame_ksampler(model, *prompts, tiny.clip(FRAMES), steps=1),
        "APG does not treat the frames of a clip alike",
    )


def test_trying_leaves_no_trace(sd15, prompts):
    """A function that is tried is a copy: it has kept nothing when the sampling begins."""
    kept = []

    def note(args):
        kept.append(float(args["sigma"][0]))
        return args["denoised"]

    model = with_post_cfg(note)(tiny.patch(sd15))
    tiny.frame_ksampler(model, *prompts, tiny.clip(2), steps=3, denoise=1.0)
    assert len(kept) == 2 * 3


def test_a_guider_that_mixes_frames_is_refused_by_name(sd15, prompts):
    from comfy.samplers import CFGGuider

    class MeanGuider(CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            predicted = super().predict_noise(x, timestep, model_options, seed)
            return predicted - 0.1 * predicted.mean()

    guider = bench.guider(tiny.patch(sd15), prompts, 4.0, kind=MeanGuider)
    refuses(
        lambda: bench.custom(guider, latent=tiny.clip(3)),
        match=r"^CrossFrameSampler: input 'guider': MeanGuider does not",
    )


def test_guidance_that_cannot_be_tried_is_named_in_the_report(sd15, prompts):
    """It may want to see the inside of the model, as Self-Attention Guidance does."""
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    model = SelfAttentionGuidance.execute(tiny.patch(sd15), 0.5, 2.0).args[0]
    output = tiny.frame_output(model, *prompts, tiny.clip(2))
    assert "SelfAttentionGuidance" in output.ui["text"][0]
