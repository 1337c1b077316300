"""Bad input gets one clear error, naming node, input and fix, before any sampling."""

import bench
import pytest
import tiny
import torch
from bench import refuses

ORDERS = {
    "CrossFrameAttention": tiny.ksampler,
    "CrossFrameKSampler": tiny.frame_ksampler,
}


@pytest.fixture(params=ORDERS)
def order(request):
    """(node that reports, function that samples)."""
    return request.param, ORDERS[request.param]


@pytest.mark.parametrize(("start", "end"), [(0.7, 0.3), (0.5, 0.5)])
def test_empty_percent_range(sd15, start, end):
    refuses(
        lambda: tiny.patch(sd15, start_percent=start, end_percent=end),
        "CrossFrameAttention",
        "start_percent",
        str(start),
        "smaller than end_percent",
    )


def test_patched_twice(sd15):
    model = tiny.patch(sd15)
    refuses(lambda: tiny.patch(model), "CrossFrameAttention", "'model'", "already carries")


def video_model():
    """A MODEL of a U-Net that attends across frames by itself."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = {**tiny.SD15, "use_temporal_attention": True, "num_heads": 4}
    config |= {"use_temporal_resblock": True, "extra_ff_mix_layer": True}
    config |= {"use_spatial_context": True, "merge_strategy": "learned_with_images"}
    config |= {"video_kernel_size": [3, 1, 1], "adm_in_channels": 768, "in_channels": 8}
    config |= {"num_classes": "sequential", "num_head_channels": 16, "merge_factor": 0.0}
    real = comfy.model_base.SVD_img2vid(comfy.supported_models.SVD_img2vid(config))
    return comfy.model_patcher.ModelPatcher(real, torch.device("cpu"), torch.device("cpu"))


def test_a_video_model():
    model = video_model()
    refuses(lambda: tiny.patch(model), "CrossFrameAttention", "'model'", "SVD_img2vid", "SDXL")


def test_layers_that_a_model_lacks():
    config = {**tiny.SD15, "transformer_depth_output": [0, 0, 0, 0]}
    model = tiny.model(config)
    refuses(lambda: tiny.patch(model), "CrossFrameAttention", "'layers'", "'up'", "'all'")
    tiny.patch(model, layers="all")


def test_unpatched_model(sd15, prompts):
    refuses(
        lambda: tiny.frame_ksampler(sd15, *prompts, tiny.clip()),
        "CrossFrameKSampler",
        "'model'",
        "CrossFrameAttention",
    )
    refuses(
        lambda: bench.custom(bench.guider(sd15, prompts)),
        "CrossFrameSampler",
        "'guider'",
        "CrossFrameAttention",
    )


@pytest.mark.parametrize("rows", [2, 4, 6])
@pytest.mark.parametrize("what", ["hints", "masks", "prompts", "pooled", "inpaint"])
def test_rows_that_match_neither_1_nor_the_clip(sd15, canny, prompts, order, what, rows):
    node, sample = order
    positive, negative = prompts
    ((tokens, _),) = positive
    if what == "hints":
        positive, negative = tiny.apply_controlnet(*prompts, canny, tiny.images(rows))
    elif what == "masks":
        positive = [[tokens, {"mask": tiny.masks(rows), "mask_strength": 1.0}]]
    elif what == "prompts":
        positive = tiny.prompt(1, rows)
    elif what == "pooled":
        positive = [[tokens, {"pooled_output": torch.zeros(rows, 1280)}]]
    else:
        positive = [[tokens, {"concat_latent_image": torch.zeros(rows, 4, tiny.SIZE, tiny.SIZE)}]]
    refuses(
        lambda: sample(tiny.patch(sd15), positive, negative, tiny.clip(5)),
        node,
        "'positive'",
        f"{rows} ",
        "5 frames",
        "Give 1 for all frames, or 5",
    )


def test_chained_hints_are_checked_too(sd15, canny, prompts, order):
    node, sample = order
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images(2))
    conds = tiny.apply_controlnet(*conds, canny, tiny.images(5))
    model = tiny.patch(sd15)
    refuses(lambda: sample(model, *conds, tiny.clip(5)), node, "2 ControlNet hints")


def test_noise_masks_that_match_neither_1_nor_the_clip(sd15, prompts):
    latent = tiny.clip(5, noise_mask=torch.ones(2, 1, tiny.SIZE, tiny.SIZE))
    refuses(
        lambda: tiny.frame_ksampler(tiny.patch(sd15), *prompts, latent),
        "CrossFrameKSampler",
        "'latent_image'",
        "2 noise masks",
    )


def test_video_latents(sd15, prompts, order):
    node, sample = order
    latent = {"samples": torch.ones(1, 4, 3, tiny.SIZE, tiny.SIZE)}
    model = tiny.patch(sd15)
    refuses(lambda: sample(model, *prompts, latent), node, "'latent_image'", "5-D")


def test_context_windows(sd15, prompts, order):
    node, sample = order
    model = tiny.patch(sd15)
    model.model_options["context_handler"] = object()
    refuses(lambda: sample(model, *prompts, tiny.clip()), node, "'model'", "Context Windows")


def test_several_gpus(sd15, prompts, order):
    node, sample = order
    model = tiny.patch(sd15)
    model.set_additional_models("multigpu", [sd15.clone()])
    refuses(lambda: sample(model, *prompts, tiny.clip()), node, "'model'", "several GPUs")


def test_dpm_adaptive(sd15, prompts):
    """Its steps differ between frames when each is painted alone; with all frames per step it
    works.
    """
    model, clip = tiny.patch(sd15), tiny.clip(2, size=4)
    refuses(
        lambda: tiny.frame_ksampler(model, *prompts, clip, "dpm_adaptive"),
        "CrossFrameKSampler",
        "'sampler_name'",
        "dpm_adaptive",
        "stock sampler node",
    )
    whole, frames = (
        tiny.ksampler(model, *prompts, clip, "dpm_adaptive", denoise=0.3)
        for model in (model, tiny.patch(sd15, frames_per_batch=1))
    )
    assert tiny.error(frames, whole) < 1e-3


def test_a_sampler_that_goes_its_own_way(sd15, prompts):
    """Frames that visit other noise levels than the first must not read its hidden states."""
    from comfy.samplers import KSAMPLER

    calls = []

    def wayward(model, x, sigmas, extra_args=None, callback=None, disable=None):
        calls.append(1)
        shift = 1.0 if len(calls) < 2 else 0.9
        return model(x, sigmas[:1] * shift, **extra_args)

    guider = bench.guider(tiny.patch(sd15), prompts)
    with pytest.raises(
        ValueError, match=r"^CrossFrameSampler: input 'sampler': .* frame 1 .* noise level 0\.89"
    ):
        bench.custom(guider, KSAMPLER(wayward), (1.0, 0.0))


def test_one_frame_is_allowed_and_said(sd15, prompts, order, caplog):
    _, sample = order
    plain = tiny.ksampler(sd15, *prompts, tiny.clip(1))
    result = sample(tiny.patch(sd15), *prompts, tiny.clip(1))
    assert torch.equal(result, plain)
    assert "batch of 1 frame" in caplog.text


def test_a_patch_that_regroups_the_batch(sd15, prompts):
    """HyperTile cuts frames into tiles; scrambling frames silently is not an option."""

    def tiles(query, context, value, extra_options):
        half = context.shape[1] // 2
        return query, context.reshape(-1, half, context.shape[2]), value

    model = sd15.clone()
    model.set_model_attn1_patch(tiles)
    model = tiny.patch(model)
    with pytest.raises(ValueError, match="regroups"):
        tiny.ksampler(model, *prompts, tiny.clip())


def test_a_node_that_evaluates_other_frames(sd15, prompts):
    """It cannot be known then which frames the rows belong to."""
    import comfy.samplers

    def half(args):
        conds, x, model_options = args["conds"], args["input"], args["model_options"]
        part = comfy.samplers.calc_cond_batch(
            args["model"], conds, x[:2], args["sigma"][:2], model_options
        )
        return [p.repeat(3, 1, 1, 1)[: len(x)] for p in part]

    model = tiny.patch(sd15)
    model.set_model_sampler_calc_cond_batch_function(half)
    with pytest.raises(
        RuntimeError, match=r"CrossFrameAttention: .* 2 frames, but there should be 5"
    ):
        tiny.ksampler(model, *prompts, tiny.clip(5))
