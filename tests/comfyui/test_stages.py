"""CrossFrameKSampler as KSamplerAdvanced: parts of the steps, and stages that follow each other."""

import itertools

import bench
import pytest
import tiny
import torch
from tiny import DIFFERENT, SAME

FRAMES, STEPS = 3, 5
SAMPLERS = ["euler_ancestral", "dpm_2", "dpmpp_2m", "ddim"]
ON, OFF = "enable", "disable"
NAMES = ("add_noise", "start_at_step", "end_at_step", "return_with_leftover_noise")
PARTS = [
    (ON, 0, 10000, OFF),  # the default: all steps
    (ON, 0, 3, ON),
    (ON, 0, 3, OFF),
    (ON, 2, 10000, OFF),
    (OFF, 2, 10000, OFF),
    (OFF, 1, 4, ON),
    (OFF, 0, STEPS, ON),
    (ON, STEPS - 1, STEPS, OFF),
]
NOTHING = [
    (ON, 3, 3, OFF),
    (ON, 4, 2, ON),
    (ON, STEPS, 10000, OFF),
    (OFF, STEPS + 1, 10000, OFF),
    (ON, 0, 0, OFF),
    (ON, 0, 0, ON),
]


def stock(model, positive, negative, latent, sampler, part, denoise=1.0, seed=3):
    """The stock KSamplerAdvanced. Returns a LATENT."""
    import nodes

    settings = {**dict(zip(NAMES, part)), "noise_seed": seed, "steps": STEPS, "cfg": 4.0}
    settings |= {"sampler_name": sampler, "scheduler": "normal", "denoise": denoise}
    return nodes.KSamplerAdvanced().sample(
        model, positive=positive, negative=negative, latent_image=latent, **settings
    )[0]


def ours(model, positive, negative, latent, sampler, part, denoise=1.0, seed=3, **inputs):
    """CrossFrameKSampler. Returns a LATENT, and the state if it is kept."""
    inputs |= {**dict(zip(NAMES, part)), "seed": seed, "steps": STEPS, "denoise": denoise}
    output = tiny.frame_output(model, positive, negative, latent, sampler, **inputs)
    return output.args if inputs.get("keep_state") else output.args[0]


def check_equal(one, other):
    assert torch.isfinite(one["samples"]).all()
    assert tiny.error(one["samples"], other["samples"]) < 1e-4


@pytest.mark.parametrize(
    ("sampler", "part"),
    [
        *itertools.product(("euler", "dpmpp_sde"), PARTS),
        *itertools.product(SAMPLERS, (PARTS[1], PARTS[3], PARTS[5])),
    ],
    ids=str,
)
def test_a_part_of_the_steps_is_the_stock_nodes(sd15, prompts, sampler, part):
    model = tiny.patch(sd15, frames_per_batch=2)
    inputs = model, *prompts, tiny.clip(FRAMES), sampler, part
    check_equal(ours(*inputs), stock(*inputs))


@pytest.mark.parametrize("part", NOTHING, ids=str)
def test_no_steps_leave_the_latents_as_they_are(sd15, prompts, part):
    inputs = tiny.patch(sd15), *prompts, tiny.clip(FRAMES), "euler", part
    assert torch.equal(ours(*inputs)["samples"], tiny.clip(FRAMES)["samples"])
    assert torch.equal(stock(*inputs)["samples"], tiny.clip(FRAMES)["samples"])


@pytest.mark.parametrize("part", PARTS[1:6], ids=str)
@pytest.mark.parametrize("denoise", [0.6, 0.0])
def test_steps_are_counted_as_denoise_leaves_them(sd15, prompts, part, denoise):
    inputs = tiny.patch(sd15), *prompts, tiny.clip(FRAMES), "euler", part, denoise
    check_equal(ours(*inputs), stock(*inputs))


def test_the_defaults_are_ksampler(sd15, prompts):
    inputs = tiny.patch(sd15), *prompts, tiny.clip(FRAMES)
    for denoise in (1.0, 0.7, 0.0):
        said = ours(*inputs, "euler", PARTS[0], denoise)["samples"]
        settings = {"steps": STEPS, "denoise": denoise}
        assert torch.equal(said, tiny.frame_ksampler(*inputs, **settings))
        assert tiny.error(said, tiny.ksampler(*inputs, **settings)) < 1e-4


def two_stages(sample, first, second, prompts, latent, sampler, **inputs):
    begun = sample(first, *prompts, latent, sampler, (ON, 0, 3, ON), **inputs)
    return sample(second, *prompts, begun, sampler, (OFF, 3, 10000, OFF), **inputs)


@pytest.mark.parametrize(
    ("sampler", "masked"),
    [("euler", False), ("euler", True), ("dpmpp_sde", True), *((name, True) for name in SAMPLERS)],
)
def test_two_stages(sd15, parts, prompts, sampler, masked):
    """A second checkpoint paints the last steps, like a refiner, and both follow a mask."""
    refiner = tiny.patch(parts.get("refiner", lambda: tiny.model(seed=5)), layers="all")
    latent = tiny.clip(FRAMES, **({"noise_mask": tiny.masks(FRAMES)[:, None]} if masked else {}))
    inputs = tiny.patch(sd15), refiner, prompts, latent, sampler
    check_equal(two_stages(ours, *inputs), two_stages(stock, *inputs))


def test_two_stages_are_the_steps_of_one(sd15, prompts):
    model, latent = tiny.patch(sd15), tiny.clip(FRAMES)
    whole = ours(model, *prompts, latent, "euler", PARTS[0])
    check_equal(two_stages(ours, model, model, prompts, latent, "euler"), whole)


STILL = {"samples": tiny.clip(1)["samples"].repeat(FRAMES, 1, 1, 1)}


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde"])
def test_noise_on_the_way_follows_frame_noise_in_every_stage(sd15, prompts, sampler):
    """A stage that adds no noise knows nothing of the first one's; the user says what it draws."""
    inputs = tiny.patch_own(sd15), *prompts, STILL, sampler, (OFF, 2, 10000, OFF)
    one, two, three = ours(*inputs, frame_noise=SAME)["samples"]
    assert tiny.error(one, two) < 1e-4
    assert tiny.error(one, three) < 1e-4
    for samples in (ours(*inputs)["samples"], stock(*inputs)["samples"]):
        assert tiny.error(samples[0], one) < 1e-4
        assert tiny.error(samples[1], one) > 0.1
        assert tiny.error(samples[1], samples[2]) > 0.1


@pytest.mark.parametrize("frame_by_frame", [False, True])
def test_custom_samplers_draw_as_their_noise_says(sd15, prompts, frame_by_frame):
    """DisableNoise says nothing; behind CrossFrameNoise it says that frames share their noise."""
    from comfy_extras.nodes_custom_sampler import DisableNoise

    guider = bench.guider(tiny.patch_own(sd15), prompts)
    sigmas = 6.0, 3.0, 1.0

    def paint(noise):
        return bench.custom(guider, "euler_ancestral", sigmas, STILL, noise, frame_by_frame)

    none = DisableNoise.execute().args[0]
    apart = paint(none)
    assert min(tiny.error(apart[0], apart[1]), tiny.error(apart[1], apart[2])) > 0.1
    same = paint(bench.clip_noise(none, SAME))
    assert max(tiny.error(same[0], same[1]), tiny.error(same[1], same[2])) < 1e-4
    assert torch.equal(paint(bench.clip_noise(none, DIFFERENT)), apart)


@pytest.mark.parametrize("frame_noise", [SAME, DIFFERENT])
def test_each_stage_goes_on_from_its_own_state(sd15, prompts, frame_noise):
    """A clip in pieces and in two stages has the frames of a clip in one go."""
    model = tiny.patch(sd15)
    clip = tiny.clip(4)["samples"]
    stages = [(ON, 0, 3, ON), (OFF, 3, 10000, OFF)]
    whole, pieces = {"samples": clip}, [{"samples": clip[:1]}, {"samples": clip[1:]}]
    for part in stages:
        inputs = model, *prompts
        settings = {"frame_noise": frame_noise, "keep_state": True}
        whole, _ = ours(*inputs, whole, "euler_ancestral", part, **settings)
        pieces[0], state = ours(*inputs, pieces[0], "euler_ancestral", part, **settings)
        settings["state"] = state
        pieces[1], _ = ours(*inputs, pieces[1], "euler_ancestral", part, **settings)
    assert torch.equal(torch.cat([piece["samples"] for piece in pieces]), whole["samples"])
