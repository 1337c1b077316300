"""Weights of references: a factor on the softmax mass of their keys, on every road."""

import dataclasses
from dataclasses import dataclass

import pytest
import tiny
import torch
from crossframe.attention import Policy
from families import FAMILIES

FLUX = FAMILIES["flux"]


@dataclass(frozen=True)
class Repeated(Policy):
    """The first frame is named twice, the previous one three times, and the frame itself once."""

    def references(self, frame):
        return (frame, 0, 0, *[max(frame - 1, 0)] * 3) if frame else (0,)


WHOLE = {"include_self": True, "first_weight": 2.0, "previous_weight": 3.0}


def repeated(model, **inputs):
    """The MODEL with references that are named as often as WHOLE weighs them."""
    from crossframe.hosts.comfy.attach import attach_settings

    settings = tiny.settings_of(tiny.patch(model, **inputs))
    return attach_settings(model, dataclasses.replace(settings, policy=Repeated()))


def nothing(query, context, value, extra_options):
    """An attn1 patch of another pack, which changes nothing."""
    return query, context, value


def beside(model):
    """The MODEL with another attn1 patch behind ours, so that projections are not shared."""
    other = model.clone()
    other.set_model_attn1_patch(nothing)
    return other


@pytest.fixture(scope="module", params=["sd15", "sd15 beside another patch", "flux"])
def subject(request, sd15):
    """A MODEL, its prompts, its LATENT, and what to do to it after ours."""
    if request.param == "flux":
        return FLUX.model(), (FLUX.prompt(1), FLUX.prompt(2)), FLUX.clip(4), lambda model: model
    after = beside if "beside" in request.param else lambda model: model
    return sd15, (tiny.prompt(1), tiny.prompt(2)), tiny.clip(4), after


@pytest.mark.parametrize("order", tiny.ORDERS)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_whole_weights_are_repetitions(subject, order, n):
    model, prompts, latent, after = subject
    sample = tiny.ORDERS[order]
    weighed = after(tiny.patch(model, layers="all", frames_per_batch=n, **WHOLE))
    named = after(repeated(model, layers="all", frames_per_batch=n))
    frames = sample(weighed, *prompts, latent, steps=2)
    assert tiny.error(frames, sample(named, *prompts, latent, steps=2)) < 1e-4
    usual = after(tiny.patch(model, layers="all", include_self=True, frames_per_batch=n))
    assert tiny.error(frames, sample(usual, *prompts, latent, steps=2)) > 0.003


@pytest.mark.parametrize("order", tiny.ORDERS)
def test_weight_1_is_as_without_and_0_leaves_the_reference_out(subject, order):
    model, prompts, latent, after = subject

    def paint(**inputs):
        patched = after(tiny.patch(model, layers="all", **inputs))
        return tiny.ORDERS[order](patched, *prompts, latent, steps=2)

    usual = paint()
    assert torch.equal(paint(first_weight=1.0, previous_weight=1.0, self_weight=1.0), usual)
    assert torch.equal(paint(previous_weight=0.0), paint(references="first"))
    assert torch.equal(paint(first_weight=0.0), paint(references="previous"))
    assert torch.equal(paint(include_self=True, self_weight=0.0), usual)


def test_equal_weights_are_as_without(subject):
    """What is multiplied alike cancels."""
    model, prompts, latent, after = subject
    weights = {"first_weight": 5.0, "previous_weight": 5.0}
    frames, usual = (
        tiny.ksampler(after(tiny.patch(model, layers="all", **inputs)), *prompts, latent, steps=2)
        for inputs in (weights, {})
    )
    assert tiny.error(frames, usual) < 1e-4


def test_a_heavy_reference_is_all_that_counts(subject):
    model, prompts, latent, after = subject

    def paint(**inputs):
        patched = after(tiny.patch(model, layers="all", **inputs))
        return tiny.ksampler(patched, *prompts, latent, steps=2)

    heavy = paint(first_weight=100.0, previous_weight=1e-4)
    assert tiny.error(heavy, paint(references="first")) < 1e-3


@pytest.mark.parametrize("name", ["basic", "split", "sub_quad", "pytorch"])
def test_every_attention_function_of_comfyui(subject, monkeypatch, name):
    """They take the mask in which the weights are, and give the same frames."""
    import comfy.ldm.modules.attention as attention

    model, prompts, latent, after = subject
    patched = after(tiny.patch(model, layers="all", first_weight=3.0))
    expected = tiny.ksampler(patched, *prompts, latent, steps=2)
    function = getattr(attention, f"attention_{name}")
    with monkeypatch.context() as patching:
        patching.setattr(attention, "optimized_attention", function)
        patching.setattr(attention, "optimized_attention_masked", function)
        patched = tiny.patch(model, layers="all", first_weight=3.0)
        override = {"optimized_attention_override": lambda _, *args, **kw: function(*args, **kw)}
        patched.model_options["transformer_options"].update(override)
        frames = tiny.ksampler(after(patched), *prompts, latent, steps=2)
    assert tiny.error(frames, expected) < 1e-4


def test_a_layer_whose_code_another_pack_has_replaced_is_an_error(sd15, prompts):
    """A block that does not call replacements of attention would lose the weights."""
    from comfy.ldm.modules.attention import BasicTransformerBlock

    def forward(block, x, context=None, transformer_options={}):  # noqa: B006  (as ComfyUI's)
        options = {**transformer_options, "patches_replace": {}}
        return BasicTransformerBlock.forward(block, x, context, options)

    patched = tiny.patch(sd15, layers="all", first_weight=2.0)
    for name, module in sd15.model.diffusion_model.named_modules():
        if isinstance(module, BasicTransformerBlock):
            path = f"diffusion_model.{name}.forward"
            patched.add_object_patch(path, forward.__get__(module))
    for sample in tiny.ORDERS.values():
        with pytest.raises(RuntimeError, match=r"layers of the model from attending .* as they"):
            sample(patched, *prompts, tiny.clip(3), steps=2)


WRONG = {
    "of frames that nobody looks at": (
        {"references": "first", "previous_weight": 2.0},
        r"'previous_weight': no frame looks at these frames.* Set it to 1, or choose",
    ),
    "of the frame itself": ({"self_weight": 0.5}, r"'self_weight': no frame looks at"),
    "of the only reference": (
        {"references": "first", "first_weight": 2.0},
        r"'first_weight': frames look at nothing else",
    ),
    "none": (
        {"first_weight": 0.0, "previous_weight": 0.0},
        r"'first_weight': the weights of all frames that are looked at are 0",
    ),
    "of keyframes": (
        {"references": "keyframes + previous", "first_weight": 0.0},
        r"'first_weight': it is 0, so nobody looks at keyframes",
    ),
    "not a number": ({"first_weight": float("nan")}, r"'first_weight': "),
    "negative": ({"first_weight": -1.0}, r"'first_weight': "),
}


@pytest.mark.parametrize("name", WRONG)
def test_weights_that_do_nothing_are_refused(sd15, name):
    inputs, words = WRONG[name]
    with pytest.raises(ValueError, match=rf"^CrossFrameAttention: input {words}"):
        tiny.patch(sd15, **inputs)
