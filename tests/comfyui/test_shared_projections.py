"""The fast path: every frame's keys and values are projected once, unless somebody objects.

FLOP are counted by torch, so that the tests see what is computed and not how it is called.
"""

import functools
import sys
import types

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

LAYERS = [("up", "first + previous"), ("all", "first"), ("all", "previous")]


def flop(sample) -> int:
    """Count the FLOP of a call."""
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
    model, latent = parts.model(family), tiny.clip(3)
    inputs = {"layers": layers, "references": references, "include_self": include_self}
    for sample, n in ((tiny.ksampler, 0), (tiny.ksampler, 2), (tiny.frame_ksampler, 0)):
        patched = tiny.patch(model, frames_per_batch=n, **inputs)
        fast, compatible = (sample(m, *conds, latent, steps=2) for m in (patched, beside(patched)))
        assert tiny.error(fast, compatible) < 1e-4


@pytest.mark.parametrize("frames", [1, 3, 5])
@pytest.mark.parametrize("references", ["first + previous", "previous"])
def test_nothing_is_computed_twice(sd15, prompts, frames, references):
    """In one batch: plain img2img, and k times the products of attention for k references."""
    steps, latent = 2, tiny.clip(frames)
    model = tiny.patch(sd15, references=references, layers="all")
    layers = tiny.settings_of(model).layers
    plain = flop(lambda: tiny.ksampler(sd15, *prompts, latent, steps=steps))
    one_more = sum(4 * a.tokens(tiny.SIZE, tiny.SIZE) ** 2 * a.channels for a in layers)
    with_two = max(frames - 2, 0) if references == "first + previous" else 0
    expected = plain + one_more * with_two * steps * 2  # conds
    assert flop(lambda: tiny.ksampler(model, *prompts, latent, steps=steps)) == expected


def test_first_projects_keys_and_values_of_the_first_frame_alone(sd15, prompts):
    frames, latent = 5, tiny.clip(5)
    model = tiny.patch(sd15, references="first", layers="all")
    layers = tiny.settings_of(model).layers
    plain = flop(lambda: tiny.ksampler(sd15, *prompts, latent, steps=1))
    # Keys and values are two products, each of two operations per weight and token.
    of_a_frame = sum(2 * 2 * a.tokens(tiny.SIZE, tiny.SIZE) * a.channels**2 for a in layers)
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
    """ComfyUI's hypernetworks feed keys and values differently, as this patch does."""
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
    """Keys are shared if the patch runs before ours; if it runs behind, the compatible path is
    taken.
    """
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
    """Packs that bring another attention function set it like this."""
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
    """A block's forward pass as a pack may write it, to replace ComfyUI's."""
    options = {**transformer_options, "n_heads": block.n_heads, "dim_head": block.d_head}
    query = keys = values = block.norm1(x)
    for patch in options.get("patches", {}).get("attn1_patch", []):
        query, keys, values = patch(query, keys, values, options)
    assert len(keys) == len(query)
    x = x + 0.5 * block.attn1(query, context=keys, value=values)
    x = x + block.attn2(block.norm2(x), context=context)
    return x + block.ff(block.norm3(x))


def test_blocks_that_run_another_packs_code(sd15, prompts, monkeypatch):
    """Advanced-ControlNet's blocks are such ones: they run the patch, but not all that is around
    it.
    """
    block = sd15.model.diffusion_model.output_blocks[1][1].transformer_blocks[0]
    model = tiny.patch(sd15, layers="all")
    usual = tiny.ksampler(model, *prompts, tiny.clip())
    with monkeypatch.context() as patch:
        patch.setattr(block, "forward", types.MethodType(own_forward, block))
        fast = tiny.ksampler(model, *prompts, tiny.clip())
        assert tiny.error(fast, tiny.frame_ksampler(model, *prompts, tiny.clip())) < 1e-4
    assert tiny.error(fast, usual) > 0.01
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip()), usual) < 1e-4


def own_attention(attn, x, context=None, value=None, mask=None, transformer_options=None):
    """An attention layer's forward pass as a pack writes it."""
    from comfy.ldm.modules.attention import CrossAttention, attention_basic

    assert isinstance(attn, CrossAttention)
    context = x if context is None else context
    value = context if value is None else value
    out = attention_basic(attn.to_q(x), attn.to_k(context), attn.to_v(value), attn.heads)
    return 0.5 * attn.to_out(out)


class AsObject:
    """A forward pass that is an object, so that Python does not bind it to a block."""

    def __init__(self, function, block):
        self.function, self.block = function, block

    def __call__(self, *args, **kwargs):
        return self.function(self.block, *args, **kwargs)


def as_function(patch, kind, module, function):
    patch.setattr(kind, "forward", function)


def as_wrapper(patch, kind, module, function):
    """The replacement has the name, the module and all else that functools.wraps copies."""

    @functools.wraps(kind.forward)
    def forward(*args, **kwargs):
        return function(*args, **kwargs)

    patch.setattr(kind, "forward", forward)


def as_decorated_wrapper(patch, kind, module, function):
    patch.setattr(kind, "forward", torch.no_grad()(functools.wraps(kind.forward)(function)))


def as_method_of_an_argument(patch, kind, module, function):
    patch.setattr(kind, "forward", functools.partialmethod(function))


def as_edited_source(patch, kind, module, function):
    """The replacement is compiled in ComfyUI's own module, as by packs that edit a function's
    text.
    """
    scope = vars(sys.modules[kind.__module__])
    text = "def forward(self, *args, **kwargs):\n    return _theirs(self, *args, **kwargs)\n"
    patch.setitem(scope, "_theirs", function)
    made = types.FunctionType(compile(text, "<edited>", "exec").co_consts[0], scope)
    made.__qualname__ = kind.forward.__qualname__
    patch.setattr(kind, "forward", made)


def as_subclass(patch, kind, module, function):
    patch.setattr(module, "__class__", type(kind.__name__, (kind,), {"forward": function}))


def as_call_of_a_subclass(patch, kind, module, function):
    patch.setattr(module, "__class__", type(kind.__name__, (kind,), {"__call__": function}))


def as_object(patch, kind, module, function):
    patch.setattr(module, "forward", AsObject(function, module))


REPLACEMENTS = [
    as_function,
    as_wrapper,
    as_decorated_wrapper,
    as_method_of_an_argument,
    as_edited_source,
    as_subclass,
    as_call_of_a_subclass,
    as_object,
]


@pytest.fixture
def load_again():
    """Load the pack once more, as if another pack had been imported before it."""
    import importlib

    import crossframe

    name = "crossframe_later"

    def load():
        package = types.ModuleType(name)
        package.__path__ = list(crossframe.__path__)
        sys.modules[name] = package
        attention = importlib.import_module(f"{name}.nodes.attention").CrossFrameAttention
        sampling = importlib.import_module(f"{name}.nodes.sampling").CrossFrameKSampler
        return attention, sampling

    yield load
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


@pytest.fixture(scope="module")
def usual(sd15):
    """The frames of the tests below if no code is replaced."""
    with torch.inference_mode():
        conds = tiny.prompt(1), tiny.prompt(2)
        return tiny.ksampler(tiny.patch(sd15, layers="all"), *conds, tiny.clip(3), steps=2)


@pytest.mark.parametrize("what", ["block", "attention"])
@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_code_that_was_replaced_before_the_pack_was_imported(
    sd15, prompts, usual, monkeypatch, load_again, replace, what
):
    """However the code was replaced, it gets a row of keys for every row of queries."""
    from comfy.ldm.modules.attention import BasicTransformerBlock, CrossAttention

    block = sd15.model.diffusion_model.output_blocks[1][1].transformer_blocks[0]
    if what == "block":
        kind, module, function = BasicTransformerBlock, block, own_forward
    else:
        kind, module, function = CrossAttention, block.attn1, own_attention
    replace(monkeypatch, kind, module, function)
    attention, sampler = load_again()
    choices = {"references": "first + previous", "include_self": False, "layers": "all"}
    choices |= {"start_percent": 0.0, "end_percent": 1.0, "frames_per_batch": 0}
    model = attention.execute(model=sd15, **choices).args[0]
    inputs = *prompts, tiny.clip(3)
    frames = tiny.frame_ksampler(model, *inputs, node=sampler, steps=2)
    for one in (model, beside(model)):
        assert tiny.error(tiny.ksampler(one, *inputs, steps=2), frames) < 1e-4
    assert tiny.error(frames, usual) > 0.01


def test_projections_of_another_pack_are_shared_as_well(sd15, prompts, monkeypatch):
    """What projects keys may be any module: each reference is still projected once."""
    attn1 = sd15.model.diffusion_model.output_blocks[1][1].transformer_blocks[0].attn1
    rows = []

    class Lora(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear, self.in_features = linear, linear.in_features

        def forward(self, x):
            rows.append(len(x))
            return 0.9 * self.linear(x)

    model = tiny.patch(sd15, layers="all", references="first")
    monkeypatch.setitem(attn1._modules, "to_k", Lora(attn1.to_k))
    fast = tiny.ksampler(model, *prompts, tiny.clip(), steps=1)
    assert rows == [2]  # the first frame, for both conds
    assert tiny.error(fast, tiny.ksampler(beside(model), *prompts, tiny.clip(), steps=1)) < 1e-4


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
    """If a wrapper takes our patch away, there is an error instead of plain self-attention."""
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
    """Refuses operations for whose result a CPU would wait for a graphics card."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in WAITING, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("compatible", [False, True])
def test_no_layer_waits_for_the_device(sd15, prompts, monkeypatch, n, compatible):
    """In neither path does anything between two layers ask for values."""
    from crossframe.attention import Evaluation
    from crossframe.hosts.comfy.run import self_attention as attn1

    calls = []

    def watched(function):
        def call(*args, **kwargs):
            calls.append(function.__name__)
            with NoWaiting():
                return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Evaluation, "gathered", watched(Evaluation.gathered))
    monkeypatch.setattr(Evaluation, "collected", watched(Evaluation.collected))
    monkeypatch.setattr(attn1, "attend_to_rows", watched(attn1.attend_to_rows))
    model = tiny.patch(sd15, layers="all", frames_per_batch=n)
    tiny.ksampler(beside(model) if compatible else model, *prompts, tiny.clip(), steps=2)
    assert set(calls) == ({"gathered"} if compatible else {"collected", "attend_to_rows"})
