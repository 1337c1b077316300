"""Two orders of work, one result: all frames per step in any chunks, and frame by frame."""

import bench
import pytest
import tiny
import torch


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
def test_every_order_gives_the_same_frames(sd15, canny, prompts, sampler):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())
    inputs = *conds, tiny.clip(), sampler
    frames = tiny.frame_ksampler(tiny.patch(sd15), *inputs, steps=3)
    for frames_per_batch in (0, 1, 2, 3):
        model = tiny.patch(sd15, frames_per_batch=frames_per_batch)
        assert tiny.error(tiny.ksampler(model, *inputs, steps=3), frames) < 1e-4
    plain = tiny.ksampler(sd15, *inputs, steps=3)
    assert tiny.error(frames[:1], plain[:1]) < 1e-4
    assert float((frames - plain).std() / plain.std()) > 0.1


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("references", ["first + previous", "first", "previous"])
@pytest.mark.parametrize("layers", ["up", "mid + up", "all"])
def test_every_setting_in_both_orders(sdxl, references, include_self, layers):
    model = tiny.patch(
        sdxl, references=references, include_self=include_self, layers=layers, frames_per_batch=2
    )
    conds = tiny.prompt(1, pooled=True), tiny.prompt(2, pooled=True)
    latent = tiny.clip(4)
    steps = {"steps": 2}
    frames = tiny.frame_ksampler(model, *conds, latent, **steps)
    assert tiny.error(tiny.ksampler(model, *conds, latent, **steps), frames) < 1e-4


def test_settings_matter(sdxl):
    conds = tiny.prompt(1, pooled=True), tiny.prompt(2, pooled=True)
    latent = tiny.clip(4)
    settings = [
        {},
        {"references": "first"},
        {"references": "previous"},
        {"include_self": True},
        {"layers": "all"},
        {"layers": "mid + up"},
        {"start_percent": 0.6},
        {"end_percent": 0.6},
    ]
    results = [tiny.ksampler(tiny.patch(sdxl, **s), *conds, latent, steps=3) for s in settings]
    for i, result in enumerate(results):
        assert all(tiny.error(result, other) > 0.01 for other in results[:i])


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (0.5, 1.0), (0.4, 0.8)])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_part_of_the_denoising(sd15, prompts, sampler, start, end):
    model = tiny.patch(sd15, start_percent=start, end_percent=end, frames_per_batch=2)
    latent = tiny.clip(3)
    frames = tiny.frame_ksampler(model, *prompts, latent, sampler, denoise=1.0)
    assert tiny.error(tiny.ksampler(model, *prompts, latent, sampler, denoise=1.0), frames) < 1e-4


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_clip_lengths(sd15, prompts, frames):
    latent = tiny.clip(frames)
    model = tiny.patch(sd15, frames_per_batch=4)
    one_by_one = tiny.frame_ksampler(model, *prompts, latent, steps=2)
    assert tiny.error(tiny.ksampler(model, *prompts, latent, steps=2), one_by_one) < 1e-4


def test_custom_sampler_nodes_agree(sd15, prompts):
    """CrossFrameSampler and SamplerCustomAdvanced, both outputs, sigmas that end early."""
    guider = bench.guider(tiny.patch(sd15, frames_per_batch=2), prompts, 3.0)
    noise = bench.clip_noise(5, tiny.SAME)
    ours, stock = (
        bench.custom_output(
            guider, sigmas=(6.0, 3.0, 1.5, 0.7), noise=noise, frame_by_frame=order
        ).args
        for order in (True, False)
    )
    for ours_out, stock_out in zip(ours, stock):
        assert tiny.error(ours_out["samples"], stock_out["samples"]) < 1e-4
    assert tiny.error(ours[0]["samples"], ours[1]["samples"]) > 0.01


def test_latent_keys_survive(sd15, prompts):
    """What rides along in a LATENT is handed on, as by the stock sampler."""
    latent = tiny.clip(2, batch_index=[4, 5], noise_mask=torch.ones(2, 1, tiny.SIZE, tiny.SIZE))
    output = tiny.frame_output(tiny.patch(sd15), *prompts, latent).args[0]
    assert output.keys() == latent.keys()
    assert output["batch_index"] == [4, 5]


def test_another_patch_that_feeds_keys_and_values_differently(sd15, prompts):
    """As hypernetworks do; each of the two must meet its own references."""

    def scale(query, context, value, extra_options):
        return query, context * 1.1, value * 0.7

    model = sd15.clone()
    model.set_model_attn1_patch(scale)
    model = tiny.patch(model, frames_per_batch=2)
    frames = tiny.frame_ksampler(model, *prompts, tiny.clip())
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip()), frames) < 1e-4
    after = tiny.patch(sd15, frames_per_batch=2)
    after.set_model_attn1_patch(scale)  # scaling before or after gathering is the same
    assert tiny.error(tiny.ksampler(after, *prompts, tiny.clip()), frames) < 1e-4
