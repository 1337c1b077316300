"""The fast path: every frame's keys and values are projected once, unless somebody objects.

FLOP are counted by torch, so that the tests see what is computed and not how it is called.
"""

import types

import pytest
import tiny
from torch.utils._python_dispatch import TorchDispatchMode

LAYERS = [("up", "first + previous"), ("all", "first"), ("all", "previous")]


def flop(sample) -> int:
    """FLOP of a call."""
    from crossframe.benchmarks.measures import count_flop

    return count_flop(sample)


def nothing(query, context, value, extra_options):
    """An attn1 patch of another pack, which changes nothing."""
    return query, context, value


def beside(model, patch=nothing):
    """The MODEL with another attn1 patch behind ours."""
    other = model.clone()
    other.set_model_attn1_patch(patch)
    return other


@pytest.mark.parametrize(("layers", "references"), LAYERS)
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_compatible_path_gives_the_same_frames(parts, layers, references, include_self, family):
    conds = tiny.prompt(1, pooled=family == "sdxl"), tiny.prompt(2, pooled=family == "sdxl")
    model, latent = parts.model(family), tiny.clip()
    inputs = {"layers": layers, "references": references, "include_self": include_self}
    for n in (0, 2):
        patched = tiny.patch(model, frames_per_batch=n, **inputs)
        for sample in tiny.ORDERS.values():
            fast, compatible = (sample(m, *conds, latent) for m in (patched, beside(patched)))
            assert tiny.error(fast, compatible) < 1e-4


@pytest.mark.parametrize("frames", [1, 3, 5])
@pytest.mark.parametrize("references", ["first + previous", "previous"])
def test_nothing_is_computed_twice(sd15, prompts, frames, references):
    """In one batch: plain img2img, and k times the products of attention for k references."""
    steps, latent = 2, tiny.clip(frames)
    model = tiny.patch(sd15, references=references, layers="all")
    layers = model.model_options["crossframe"].layers
    plain = flop(lambda: tiny.ksampler(sd15, *prompts, latent, steps=steps))
    one_more = sum(4 * a.tokens(16, 16) ** 2 * a.channels for a in layers)
    with_two = max(frames - 2, 0) if references == "first + previous" else 0
    expected = plain + one_more * with_two * steps * 2  # conds
    assert flop(lambda: tiny.ksampler(model, *prompts, latent, steps=steps)) == expected


def test_first_projects_keys_and_values_of_the_first_frame_alone(sd15, prompts):
    frames, latent = 5, tiny.clip(5)
    model = tiny.patch(sd15, references="first", layers="all")
    layers = model.model_options["crossframe"].layers
    plain = flop(lambda: tiny.ksampler(sd15, *prompts, latent, steps=1))
    of_a_frame = sum(2 * 2 * a.tokens(16, 16) * a.channels**2 for a in layers)  # K and V
    expected = plain - of_a_frame * (frames - 1) * 2  # conds
    assert flop(lambda: tiny.ksampler(model, *prompts, latent, steps=1)) == expected


@pytest.mark.parametrize("sample", tiny.ORDERS.values())
def test_the_model_is_called_as_often_as_without(sd15, prompts, sample):
    from crossframe.benchmarks.measures import counted_rows

    unet = sd15.model.diffusion_model
    with counted_rows(unet) as plain:
        tiny.ksampler(sd15, *prompts, tiny.clip(), steps=3)
    with counted_rows(unet) as ours:
        sample(tiny.patch(sd15, frames_per_batch=2), *prompts, tiny.clip(), steps=3)
    assert sum(ours) == sum(plain) == 3 * 2 * tiny.FRAMES


def hypernetwork(query, context, value, extra_options):
    """As ComfyUI's hypernetworks: keys and values are fed differently."""
    return query, context * 1.1, context * 0.9


def replaced(model):
    """The MODEL with another node's attention in one layer."""
    other = model.clone()

    def attention(query, key, value, extra_options):
        from comfy.ldm.modules.attention import optimized_attention

        return 0.5 * optimized_attention(query, key, value, extra_options["n_heads"])

    other.set_model_attn1_replace(attention, "output", 1, 0)
    return other


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "behind ours"])
def test_patches_that_feed_keys_and_values_differently(sd15, prompts, first):
    """Before ours they are shared as well; behind ours the compatible path is taken."""
    if first:
        model = tiny.patch(beside(sd15, hypernetwork), layers="all")
    else:
        model = beside(tiny.patch(sd15, layers="all"), hypernetwork)
    fast = tiny.ksampler(model, *prompts, tiny.clip())
    assert tiny.error(fast, tiny.ksampler(beside(model), *prompts, tiny.clip())) < 1e-4
    assert tiny.error(fast, tiny.frame_ksampler(model, *prompts, tiny.clip())) < 1e-4
    plain = tiny.ksampler(tiny.patch(sd15, layers="all"), *prompts, tiny.clip())
    assert tiny.error(fast, plain) > 0.01


def test_layers_that_another_node_replaces_are_left_to_it(sd15, prompts):
    model = replaced(tiny.patch(sd15, layers="all"))
    fast = tiny.ksampler(model, *prompts, tiny.clip())
    assert tiny.error(fast, tiny.ksampler(beside(model), *prompts, tiny.clip())) < 1e-4
    plain = tiny.ksampler(tiny.patch(sd15, layers="all"), *prompts, tiny.clip())
    assert tiny.error(fast, plain) > 0.01


def test_the_users_choice_of_attention_is_kept(sd15, prompts):
    """As packs do that bring another attention function."""
    seen = []

    def count(function, query, key, value, *args, **kwargs):
        seen.append(key.shape[1] / query.shape[1])
        return function(query, key, value, *args, **kwargs)

    model = tiny.patch(sd15, layers="up").clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = count
    tiny.ksampler(model, *prompts, tiny.clip(), steps=1)
    assert 2.0 in seen  # frames from the third on
    assert 0.5 in seen  # the first two, which look at one frame


def own_forward(block, x, context=None, transformer_options=None):
    """A block's forward pass as a pack writes it that puts its own in the place of ComfyUI's."""
    options = {**transformer_options, "n_heads": block.n_heads, "dim_head": block.d_head}
    query = keys = values = block.norm1(x)
    for patch in options.get("patches", {}).get("attn1_patch", []):
        query, keys, values = patch(query, keys, values, options)
    assert len(keys) == len(query)
    x = x + 0.5 * block.attn1(query, context=keys, value=values)
    x = x + block.attn2(block.norm2(x), context=context)
    return x + block.ff(block.norm3(x))


def test_blocks_that_run_another_packs_code(sd15, prompts, monkeypatch):
    """As Advanced-ControlNet's while it samples: they know the patch, but not all around it."""
    block = sd15.model.diffusion_model.output_blocks[1][1].transformer_blocks[0]
    model = tiny.patch(sd15, layers="all")
    usual = tiny.ksampler(model, *prompts, tiny.clip())
    with monkeypatch.context() as patch:
        patch.setattr(block, "forward", types.MethodType(own_forward, block))
        fast = tiny.ksampler(model, *prompts, tiny.clip())
        assert tiny.error(fast, tiny.frame_ksampler(model, *prompts, tiny.clip())) < 1e-4
    assert tiny.error(fast, usual) > 0.01
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip()), usual) < 1e-4


def wrapped(model, kind, wrapper):
    """The MODEL with another pack's wrapper behind ours."""
    other = model.clone()
    other.add_wrapper_with_key(kind, "another pack", wrapper)
    return other


def test_a_wrapper_that_calls_the_model_again(sd15, prompts):
    from comfy.patcher_extension import WrappersMP

    def again(executor, *args, **kwargs):
        if args[5].get("again"):
            return executor(*args, **kwargs)
        options = {**args[5], "again": True}
        return executor.class_obj.apply_model(*args[:5], options, **kwargs)

    model = tiny.patch(sd15, layers="all")
    expected = tiny.ksampler(model, *prompts, tiny.clip())
    model = wrapped(model, WrappersMP.APPLY_MODEL, again)
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip()), expected) < 1e-4


def test_frames_that_nobody_attends_to_are_an_error(sd15, prompts):
    """Rather than plain self-attention where a wrapper takes the replacement away."""
    from comfy.patcher_extension import WrappersMP

    def without(executor, *args, **kwargs):
        options = {**args[5], "patches_replace": {}}
        return executor(*args[:5], options, *args[6:], **kwargs)

    model = wrapped(tiny.patch(sd15), WrappersMP.DIFFUSION_MODEL, without)
    with pytest.raises(RuntimeError, match="CrossFrameAttention: another node has kept 4 layers"):
        tiny.ksampler(model, *prompts, tiny.clip())


def test_samplings_leave_nothing_on_the_model(sd15, prompts):
    model = tiny.patch(sd15)
    before = repr(model.model_options)
    tiny.ksampler(model, *prompts, tiny.clip())
    assert repr(model.model_options) == before
    assert not model.model_options["transformer_options"].get("patches_replace")


# By the names that operations have with and without inference mode.
WAITING = {"item", "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"}


class NoWaiting(TorchDispatchMode):
    """Refuses operations for whose result a processor would wait for a graphics card."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in WAITING, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("compatible", [False, True])
def test_no_layer_waits_for_the_device(sd15, prompts, monkeypatch, n, compatible):
    """Nothing that depends on values is asked between two layers, in either path."""
    from crossframe.attention import Evaluation
    from crossframe.hosts.comfy import attn1

    calls = []

    def watched(function):
        def call(*args, **kwargs):
            calls.append(function.__name__)
            with NoWaiting():
                return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Evaluation, "attend", watched(Evaluation.attend))
    monkeypatch.setattr(Evaluation, "collect", watched(Evaluation.collect))
    monkeypatch.setattr(attn1, "attend_to_rows", watched(attn1.attend_to_rows))
    model = tiny.patch(sd15, layers="all", frames_per_batch=n)
    tiny.ksampler(beside(model) if compatible else model, *prompts, tiny.clip(), steps=2)
    assert set(calls) == ({"attend"} if compatible else {"collect", "attend_to_rows"})
