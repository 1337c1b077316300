"""Beside other nodes, every way of working gives the same frames, or refuses the node by name.

To add a node that works, write how it is applied and put it into WORKING; to add one that
cannot work, a line in REFUSED and in `hosts/comfy/neighbours/known.py`.
"""

import functools
import types

import bench
import pytest
import tiny
import torch
from bench import refuses


def execute(module: str, node: str, *inputs, **named):
    """A core node as a function MODEL -> MODEL."""

    def apply(model):
        import importlib

        owner = getattr(importlib.import_module(f"comfy_extras.{module}"), node)
        run = getattr(owner, "execute", None) or functools.partial(owner.patch, owner())
        output = run(model, *inputs, **named)
        return getattr(output, "args", output)[0]

    return apply


def compiled(model):
    """TorchCompileModel, with the backend that only traces: inductor adds minutes."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

    compiled = model.clone()
    set_torch_compile_wrapper(
        model=compiled, backend="eager", options={"guard_filter_fn": skip_torch_compile_dict}
    )
    return compiled


def function_wrapper(model):
    """Some packs wrap every model call like this. Each row depends on itself only."""

    def wrap(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"]) * 1.05

    wrapped = model.clone()
    wrapped.set_model_unet_function_wrapper(wrap)
    return wrapped


WORKING = {
    "FreeU": execute("nodes_freelunch", "FreeU", 1.3, 1.4, 0.9, 0.2),
    "FreeU_V2": execute("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2),
    "PatchModelAddDownscale": execute(
        "nodes_model_downscale",
        "PatchModelAddDownscale",
        3,
        2.0,
        0.0,
        0.7,
        True,
        "bicubic",
        "bicubic",
    ),
    "RescaleCFG (sampler_cfg_function)": execute("nodes_model_advanced", "RescaleCFG", 0.7),
    "PerturbedAttentionGuidance": execute("nodes_pag", "PerturbedAttentionGuidance", 2.0),
    "model_function_wrapper": function_wrapper,
}


@pytest.fixture(scope="module")
def alone(sd15, canny):
    """The frames without another node."""
    with torch.inference_mode():
        conds = tiny.apply_controlnet(tiny.prompt(1), tiny.prompt(2), canny, tiny.images(3))
        return tiny.ksampler(tiny.patch(sd15, layers="all"), *conds, tiny.clip(3), steps=2)


@pytest.mark.parametrize("name", WORKING)
@pytest.mark.parametrize("first", ["the other node", "CrossFrameAttention"])
def test_the_same_frames_by_every_road(sd15, canny, prompts, alone, name, first):
    conds, clip = tiny.apply_controlnet(*prompts, canny, tiny.images(3)), tiny.clip(3)

    def applied(frames_per_batch):
        if first == "the other node":
            model = WORKING[name](sd15)
            return tiny.patch(model, layers="all", frames_per_batch=frames_per_batch)
        return WORKING[name](tiny.patch(sd15, layers="all", frames_per_batch=frames_per_batch))

    expected = tiny.ksampler(applied(0), *conds, clip, steps=2)
    assert tiny.error(tiny.ksampler(applied(2), *conds, clip, steps=2), expected) < 1e-4
    assert tiny.error(tiny.frame_ksampler(applied(0), *conds, clip, steps=2), expected) < 1e-4
    assert tiny.error(alone, expected) > 0.01


@pytest.fixture(scope="module")
def small():
    """A MODEL of one level, since every layer takes long to compile."""
    one = {"num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1]}
    return tiny.model({**tiny.SD15, **one, "transformer_depth_output": [1, 1]})


def test_compiled(small, prompts):
    """What a compiler has seen at one step must not be what it does at the next."""
    latent = tiny.clip(3)
    expected = tiny.ksampler(tiny.patch(small), *prompts, latent)
    model = compiled(tiny.patch(small, frames_per_batch=2))
    for sample in tiny.ORDERS.values():
        assert tiny.error(sample(model, *prompts, latent), expected) < 1e-4


def test_compiled_for_a_part_of_the_denoising(small, prompts):
    """Steps with and without cross-frame attention share what was compiled."""
    latent, part = tiny.clip(3), {"start_percent": 0.0, "end_percent": 0.6, "frames_per_batch": 2}
    sampling = {"steps": 6, "denoise": 1.0}
    expected = tiny.ksampler(tiny.patch(small, **part), *prompts, latent, **sampling)
    model = compiled(tiny.patch(small, **part))
    for sample in tiny.ORDERS.values():
        assert tiny.error(sample(model, *prompts, latent, **sampling), expected) < 1e-4


def test_compiled_before_for_a_model_without_us(small, prompts):
    """ComfyUI's node compiles patches in and ignores later ones: an error, not plain frames."""
    torch._dynamo.reset()
    model = compiled(small)
    tiny.ksampler(model, *prompts, tiny.clip(3))
    with pytest.raises(ValueError, match=r"^CrossFrameAttention: input 'model'.*TorchCompileModel"):
        tiny.ksampler(tiny.patch(model), *prompts, tiny.clip(3))
    torch._dynamo.reset()


def test_token_merging(sd15, prompts, monkeypatch):
    """ToMe merges queries only. It draws them at random for every call, but not in this test."""
    from comfy_extras import nodes_tomesd

    real = torch.randint

    def corner(high, *args, **kwargs):
        return torch.zeros_like(real(high, *args, **kwargs))

    quiet = types.SimpleNamespace(**{**vars(torch), "randint": corner})
    monkeypatch.setattr(nodes_tomesd, "torch", quiet)
    merge = execute("nodes_tomesd", "TomePatchModel", 0.5)
    roads = [
        sample(tiny.patch(merge(sd15), layers="all", frames_per_batch=n), *prompts, tiny.clip())
        for sample, n in WAYS.values()
    ]
    for frames in roads[1:]:
        assert tiny.error(frames, roads[0]) < 1e-4
    without = tiny.ksampler(tiny.patch(sd15, layers="all"), *prompts, tiny.clip())
    assert tiny.error(roads[0], without) > 0.01


CACHES = {
    "EasyCache": execute("nodes_easycache", "EasyCacheNode", 5.0, 0.0, 1.0, False),
    "LazyCache": execute("nodes_easycache", "LazyCacheNode", 5.0, 0.0, 1.0, False),
}
# How a refused node is applied, which input of our node may show it, ways in which it works.
REFUSED = {
    "HyperTile": (execute("nodes_hypertile", "HyperTile", 32, 2, 1, False), []),
    "EasyCache": (CACHES["EasyCache"], ["one batch"]),
    "LazyCache": (CACHES["LazyCache"], ["one batch", "batches of 2"]),
    "Self-Attention Guidance": (
        execute("nodes_sag", "SelfAttentionGuidance", 0.5, 2.0),
        ["one batch", "frame by frame"],
    ),
    "AnimateDiff": (lambda model: wrapped_by_animatediff(model), []),
}
WAYS = {
    "one batch": (tiny.ksampler, 0),
    "batches of 2": (tiny.ksampler, 2),
    "frame by frame": (tiny.frame_ksampler, 0),
}


def wrapped_by_animatediff(model):
    """What AnimateDiff-Evolved leaves on a MODEL: wrappers under its key."""
    from comfy.patcher_extension import WrappersMP

    wrapped = model.clone()
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.CALC_COND_BATCH):
        wrapped.add_wrapper_with_key(kind, "ADE", lambda executor, *args, **kwargs: executor(*args))
    return wrapped


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_or_right(sd15, prompts, name, way):
    apply, works = REFUSED[name]
    sample, frames_per_batch = WAYS[way]
    model = apply(tiny.patch(sd15, frames_per_batch=frames_per_batch))
    if way in works:
        latent = tiny.clip(3)
        expected = tiny.ksampler(apply(tiny.patch(sd15)), *prompts, latent)
        assert tiny.error(sample(model, *prompts, latent), expected) < 1e-4
    else:
        refuses(
            lambda: sample(model, *prompts, tiny.clip()),
            name,
            match=r"^CrossFrame\w+: input '\w+': .*",
        )


def blocks_of(model) -> int:
    """How many transformer blocks the U-Net of a MODEL has."""
    kinds = [type(module).__name__ for module in model.model.diffusion_model.modules()]
    return kinds.count("BasicTransformerBlock")


@pytest.mark.parametrize("name", CACHES)
def test_caches_do_skip_steps(sd15, prompts, name):
    """LazyCache skips calls of the model, EasyCache the U-Net inside of them."""

    def blocks_run(model):
        with bench.networks_run() as ran:
            tiny.ksampler(model, *prompts, tiny.clip(), steps=8)
        return ran.count("BasicTransformerBlock")

    every_time = blocks_run(tiny.patch(sd15))
    assert every_time == 8 * blocks_of(sd15)
    skipping = blocks_run(CACHES[name](tiny.patch(sd15)))
    assert 0 < skipping < every_time
    assert skipping % blocks_of(sd15) == 0


def test_a_node_that_needs_one_batch_gets_it(sd15, prompts, monkeypatch):
    """SAG's clip is not cut even if memory is short: it would fail, as it does without the pack."""
    model, calls = bench.spied(sd15)
    model = REFUSED["Self-Attention Guidance"][0](tiny.patch(model))
    monkeypatch.setattr(model.model, "memory_required", lambda shape, **_: 1e15 * shape[0])
    tiny.ksampler(model, *prompts, tiny.clip(), steps=1)
    assert {call.rows for call in calls} == {tiny.FRAMES}


def test_perp_neg_frame_by_frame(sd15, prompts):
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    conds = *prompts, tiny.prompt(3)
    guider = bench.guider(tiny.patch(sd15), conds, 3.0, 1.0, kind=Guider_PerpNeg)
    refuses(
        lambda: bench.custom(guider), match=r"CrossFrameSampler.*PerpNegGuider.*SamplerCustomAdv"
    )


def per_frame_image(model):
    """As IPAdapter_plus with one image per frame: an attn2 patch that picks its rows itself.

    Its contract: `ad_params` in the transformer options says which frames are run, as
    AnimateDiff-Evolved writes it; without it, rows are taken from the top.
    """
    images = torch.randn(tiny.FRAMES, 1, 1, generator=torch.Generator().manual_seed(5))

    def add(attended, extra_options):
        rows = attended.shape[0] // len(extra_options["cond_or_uncond"])
        params = extra_options.get("ad_params")
        own = images[:rows] if params is None else images[params["sub_idxs"]]
        return attended + own.repeat(len(extra_options["cond_or_uncond"]), 1, 1)

    patched = model.clone()
    patched.set_model_attn2_output_patch(add)
    return patched


def test_packs_that_pick_their_rows_by_frame_number(sd15, prompts):
    roads = [
        sample(tiny.patch(per_frame_image(sd15), frames_per_batch=n), *prompts, tiny.clip())
        for sample, n in WAYS.values()
    ]
    for frames in roads[1:]:
        assert tiny.error(frames, roads[0]) < 1e-4
    assert tiny.error(roads[0], tiny.ksampler(tiny.patch(sd15), *prompts, tiny.clip())) > 0.01


def advanced(network):
    """A ControlNet after the contract of Advanced-ControlNet.

    It finds the hints of the frames that are run through `ad_params`, and its methods are
    bound to the object itself, so that a copy of it would still run the original.
    """
    import copy

    control = copy.copy(network)
    control.sub_idxs = None
    plain = type(network).get_control

    def get_control(x_noisy, t, cond, batched_number, transformer_options):
        whole = control.cond_hint_original
        params = transformer_options.get("ad_params")
        try:
            if params is not None:
                control.cond_hint_original = whole[params["sub_idxs"]]
            control.cond_hint = None
            return plain(control, x_noisy, t, cond, batched_number, transformer_options)
        finally:
            control.cond_hint_original = whole

    control.get_control = get_control
    control.copy = lambda: advanced(type(network).copy(control))
    return control


def test_controlnets_that_pick_their_hints(sd15, canny, prompts):
    plain = tiny.apply_controlnet(*prompts, canny, tiny.images())
    expected = tiny.ksampler(tiny.patch(sd15), *plain, tiny.clip())
    for sample, n in WAYS.values():
        conds = tiny.apply_controlnet(*prompts, advanced(canny), tiny.images())
        model = tiny.patch(sd15, frames_per_batch=n)
        assert tiny.error(sample(model, *conds, tiny.clip()), expected) < 1e-4


@pytest.mark.parametrize("way", WAYS)
def test_references_of_advanced_controlnet(sd15, canny, prompts, monkeypatch, way):
    """They run the model twice in a call, which works in one batch only; so there is one batch."""
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())
    behind = tiny.apply_controlnet(*conds, canny, tiny.images(seed=3))  # The first is in a chain.
    reference = conds[0][0][1]["control"]
    reference.__class__ = type("ReferenceAdvanced", (type(reference),), {})
    for cond in behind:
        cond[0][1]["control"].previous_controlnet = reference
    sample, frames_per_batch = WAYS[way]
    model, calls = bench.spied(sd15)
    model = tiny.patch(model, frames_per_batch=frames_per_batch)
    if way == "one batch":
        monkeypatch.setattr(model.model, "memory_required", lambda shape, **_: 1e15 * shape[0])
        sample(model, *behind, tiny.clip(), steps=1)
        assert {call.rows for call in calls} == {tiny.FRAMES}
    else:
        refuses(
            lambda: sample(model, *behind, tiny.clip()),
            match=r"^CrossFrame\w+: input 'positive': .*Advanced-Control",
        )


@pytest.mark.parametrize("sample", tiny.ORDERS.values())
def test_a_plain_controlnet_behind_one_that_picks_its_hints(sd15, canny, prompts, sample):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images(seed=3))
    conds = tiny.apply_controlnet(*conds, advanced(canny), tiny.images())
    refuses(
        lambda: sample(tiny.patch(sd15), *conds, tiny.clip()),
        match=r"CrossFrame\w+: input '\w+': .*Advanced-ControlNet",
    )


class TeaCache:
    """A cache as in other packs: every second call returns what the call before returned."""

    def patch(self, model):
        kept = {"calls": 0}

        def wrapper(apply_model, args):
            kept["calls"] += 1
            if kept["calls"] % 2:
                kept["out"] = apply_model(args["input"], args["timestep"], **args["c"])
            return kept["out"]

        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model


def test_a_cache_of_another_pack_gets_one_batch(sd15, prompts, monkeypatch):
    model = TeaCache().patch(tiny.patch(sd15))
    expected = tiny.ksampler(model, *prompts, tiny.clip())
    # These are more frames than would be run at once without the cache.
    longer = tiny.ksampler(TeaCache().patch(tiny.patch(sd15)), *prompts, tiny.clip(12))
    assert tiny.error(longer[:1], expected[:1]) < 1e-4
    model = TeaCache().patch(tiny.patch(sd15, frames_per_batch=2))
    refuses(
        lambda: tiny.ksampler(model, *prompts, tiny.clip()),
        match=r"^CrossFrameAttention: input 'model': a cache of another",
    )
