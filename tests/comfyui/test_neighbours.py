"""Beside other nodes: the same frames by every road, or refused by name before sampling.

To add a node that works, write how it is applied and put it into WORKING; to add one that
cannot work, a line in REFUSED and in `hosts/comfy/neighbours/known.py`.
"""

import functools
import types

import pytest
import tiny
import torch


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
    """As packs do that look at every model call; the value depends on the call's own rows."""

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


@pytest.mark.parametrize("name", WORKING)
@pytest.mark.parametrize("first", ["the other node", "CrossFrameAttention"])
def test_the_same_frames_by_every_road(sd15, canny, prompts, name, first):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())

    def applied(frames_per_batch):
        if first == "the other node":
            model = WORKING[name](sd15)
            return tiny.patch(model, layers="all", frames_per_batch=frames_per_batch)
        return WORKING[name](tiny.patch(sd15, layers="all", frames_per_batch=frames_per_batch))

    expected = tiny.ksampler(applied(0), *conds, tiny.clip())
    assert tiny.error(tiny.ksampler(applied(2), *conds, tiny.clip()), expected) < 1e-4
    assert tiny.error(tiny.frame_ksampler(applied(0), *conds, tiny.clip()), expected) < 1e-4
    without = tiny.ksampler(tiny.patch(sd15, layers="all"), *conds, tiny.clip())
    assert tiny.error(without, expected) > 0.01


def test_compiled(sd15, prompts):
    """What a compiler has seen at one step must not be what it does at the next."""
    latent = tiny.clip(3)
    expected = tiny.ksampler(tiny.patch(sd15), *prompts, latent)
    model = compiled(tiny.patch(sd15, frames_per_batch=2))
    for sample in tiny.ORDERS.values():
        assert tiny.error(sample(model, *prompts, latent), expected) < 1e-4


def test_compiled_for_a_part_of_the_denoising(sd15, prompts):
    """Steps with and without cross-frame attention share what was compiled."""
    latent, part = tiny.clip(3), {"start_percent": 0.0, "end_percent": 0.6, "frames_per_batch": 2}
    sampling = {"steps": 6, "denoise": 1.0}
    expected = tiny.ksampler(tiny.patch(sd15, **part), *prompts, latent, **sampling)
    model = compiled(tiny.patch(sd15, **part))
    for sample in tiny.ORDERS.values():
        assert tiny.error(sample(model, *prompts, latent, **sampling), expected) < 1e-4


def test_compiled_before_for_a_model_without_us(sd15, prompts):
    """ComfyUI's node compiles patches in and looks at them no more: an error, not plain frames."""
    torch._dynamo.reset()
    model = compiled(sd15)
    tiny.ksampler(model, *prompts, tiny.clip(3))
    with pytest.raises(ValueError, match=r"^CrossFrameAttention: input 'model'.*TorchCompileModel"):
        tiny.ksampler(tiny.patch(model), *prompts, tiny.clip(3))
    torch._dynamo.reset()


def test_token_merging(sd15, prompts, monkeypatch):
    """ToMe merges queries only. Which, it draws at random for every call; here it does not."""
    from comfy_extras import nodes_tomesd

    real = torch.randint

    def corner(high, *args, **kwargs):
        return torch.zeros_like(real(high, *args, **kwargs))

    quiet = types.SimpleNamespace(**{**vars(torch), "randint": corner})
    monkeypatch.setattr(nodes_tomesd, "torch", quiet)
    merge = execute("nodes_tomesd", "TomePatchModel", 0.5)
    roads = [
        sample(tiny.patch(merge(sd15), layers="all", frames_per_batch=n), *prompts, tiny.clip())
        for sample, n in ((tiny.ksampler, 0), (tiny.ksampler, 2), (tiny.frame_ksampler, 0))
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


def counted(model, calls: list):
    """A MODEL that counts its calls."""

    def count(apply_model, args):
        calls.append(args["input"].shape[0])
        return apply_model(args["input"], args["timestep"], **args["c"])

    counting = model.clone()
    counting.set_model_unet_function_wrapper(count)
    return counting


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_or_right(sd15, prompts, name, way):
    apply, works = REFUSED[name]
    sample, frames_per_batch = WAYS[way]
    calls = []
    model = apply(tiny.patch(counted(sd15, calls), frames_per_batch=frames_per_batch))
    if way in works:
        frames = sample(model, *prompts, tiny.clip())
        expected = tiny.ksampler(apply(tiny.patch(sd15, frames_per_batch=0)), *prompts, tiny.clip())
        assert tiny.error(frames, expected) < 1e-4
        assert calls
    else:
        with pytest.raises(ValueError, match=r"^CrossFrame\w+: input '\w+': .*") as caught:
            sample(model, *prompts, tiny.clip())
        assert name in str(caught.value)
        assert not calls
    plain = tiny.ksampler(tiny.patch(sd15), *prompts, tiny.clip())  # nothing stays behind
    assert torch.equal(plain, tiny.ksampler(tiny.patch(sd15), *prompts, tiny.clip()))


@pytest.mark.parametrize("name", CACHES)
def test_caches_do_skip_steps(sd15, prompts, name):
    calls, all_calls = [], []
    model = CACHES[name](tiny.patch(counted(sd15, calls)))
    tiny.ksampler(model, *prompts, tiny.clip(), steps=8)
    tiny.ksampler(tiny.patch(counted(sd15, all_calls)), *prompts, tiny.clip(), steps=8)
    assert len(all_calls) == 8
    if name == "LazyCache":  # EasyCache skips the U-Net inside of a model call
        assert len(calls) < len(all_calls)


def test_a_node_that_needs_one_batch_gets_it(sd15, prompts, monkeypatch):
    """Short of memory, SAG's clip is not cut: it would fail, as without cross-frame attention."""
    calls = []
    model = REFUSED["Self-Attention Guidance"][0](tiny.patch(counted(sd15, calls)))
    monkeypatch.setattr(model.model, "memory_required", lambda shape, **_: 1e15 * shape[0])
    tiny.ksampler(model, *prompts, tiny.clip())
    assert set(calls) == {tiny.FRAMES}


def test_perp_neg_frame_by_frame(sd15, prompts):
    from comfy.samplers import sampler_object
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
    from comfy_extras.nodes_perpneg import Guider_PerpNeg
    from crossframe.nodes.sampling import CrossFrameSampler

    guider = Guider_PerpNeg(tiny.patch(sd15))
    guider.set_conds(*prompts, tiny.prompt(3))
    guider.set_cfg(3.0, 1.0)
    sigmas = torch.tensor([5.0, 2.0, 0.0])
    inputs = Noise_RandomNoise(1), guider, sampler_object("euler"), sigmas, tiny.clip()
    with pytest.raises(ValueError, match=r"CrossFrameSampler.*PerpNegGuider.*SamplerCustomAdv"):
        CrossFrameSampler.execute(*inputs)


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
    """They run the model twice in a call, which only one batch stands; and they get it."""
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())
    behind = tiny.apply_controlnet(*conds, canny, tiny.images(seed=3))  # the first is in a chain
    reference = conds[0][0][1]["control"]
    reference.__class__ = type("ReferenceAdvanced", (type(reference),), {})
    for cond in behind:
        cond[0][1]["control"].previous_controlnet = reference
    sample, frames_per_batch = WAYS[way]
    calls = []
    model = tiny.patch(counted(sd15, calls), frames_per_batch=frames_per_batch)
    if way == "one batch":
        monkeypatch.setattr(model.model, "memory_required", lambda shape, **_: 1e15 * shape[0])
        sample(model, *behind, tiny.clip())
        assert set(calls) == {tiny.FRAMES}
    else:
        with pytest.raises(
            ValueError, match=r"^CrossFrame\w+: input 'positive': .*Advanced-Control"
        ):
            sample(model, *behind, tiny.clip())
        assert not calls


@pytest.mark.parametrize("sample", tiny.ORDERS.values())
def test_a_plain_controlnet_behind_one_that_picks_its_hints(sd15, canny, prompts, sample):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images(seed=3))
    conds = tiny.apply_controlnet(*conds, advanced(canny), tiny.images())
    with pytest.raises(ValueError, match=r"CrossFrame\w+: input '\w+': .*Advanced-ControlNet"):
        sample(tiny.patch(sd15), *conds, tiny.clip())


class TeaCache:
    """As other packs' caches work: every second call gives what the one before gave."""

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
    assert (
        tiny.error(
            tiny.ksampler(TeaCache().patch(tiny.patch(sd15)), *prompts, tiny.clip(12))[:1],
            expected[:1],
        )
        < 1e-4
    )  # more than are run at once otherwise
    with pytest.raises(
        ValueError, match=r"^CrossFrameAttention: input 'model': a cache of another"
    ):
        model = TeaCache().patch(tiny.patch(sd15, frames_per_batch=2))
        tiny.ksampler(model, *prompts, tiny.clip())
