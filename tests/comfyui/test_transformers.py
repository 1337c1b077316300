"""Cross-frame attention in diffusion transformers, family by family.

`families.py` says, from reading ComfyUI's source, where the tokens of each family lie. What the
pack finds out by itself must agree with it. A slice that is a few tokens off changes nothing in
frames that attend to themselves or to their like, so only the layouts show it.
"""

import math

import bench
import pytest
import tiny
import torch
from families import FAMILIES, span
from family import IMG

SAMPLING = {"steps": 2, "cfg": 3.0, "denoise": 0.8, "scheduler": "simple"}
# Families that are refused, with words of the reason.
REFUSED = {
    # Its reference picture stands beside the picture, in the same rows of tokens.
    "hidream_e1": "the tokens of the picture are not next to each other",
    "pixart": "PixArt computes its attention in a way that ComfyUI lets no node change",
    "hunyuan_dit": "HunyuanDiT computes its attention in a way",
    "ernie": "ErnieImage computes its attention in a way",
}
WORKING = [name for name in FAMILIES if name not in REFUSED]


@pytest.fixture(params=WORKING, scope="module")
def family(request):
    found = FAMILIES[request.param]
    if not found.available():
        pytest.skip(f"this ComfyUI has no {found.source}")
    return found


@pytest.fixture(scope="module")
def model(family):
    return family.model()


@pytest.fixture(scope="module")
def prompts(family):
    return family.prompt(1), family.prompt(2)


@pytest.fixture(scope="module")
def rounding(family, model, prompts):
    """How far frames may differ: 1e-4, or three times as far as those of ComfyUI without the pack.

    There a frame that is painted alone differs from the same frame in a batch, and all frames
    differ if every key is there twice, which changes nothing but the rounding.
    """
    with torch.inference_mode():
        latent = family.clip(4)
        together = paint(model, prompts, latent)
        first = paint(model, prompts, {"samples": latent["samples"][:1]})
        twice = paint(with_every_key_twice(model), prompts, latent)
        return max(1e-4, 3 * tiny.error(first, together[:1]), 3 * tiny.error(twice, together))


def with_every_key_twice(model):
    """The MODEL without the pack, with attention to every key and value twice."""

    def attention(function, q, k, v, heads, mask=None, *args, **kwargs):
        axis = 2 if kwargs.get("skip_reshape") else 1
        if mask is not None and mask.shape[-1] == k.shape[axis]:
            mask = torch.cat([mask, mask], dim=-1)
        k, v = (torch.cat([tensor, tensor], dim=axis) for tensor in (k, v))
        return function(q, k, v, heads, mask, *args, **kwargs)

    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = attention
    return patched


def paint(model, prompts, latent, order="batch", **inputs):
    return tiny.ORDERS[order](model, *prompts, latent, **{**SAMPLING, **inputs})


def test_a_frame_that_attends_to_itself_comes_out_as_without_the_pack(family, model, prompts):
    latent = family.clip(3)
    expected = paint(model, prompts, latent)
    assert torch.equal(paint(tiny.patch_own(model), prompts, latent), expected)


@pytest.mark.parametrize("include_self", [False, True], ids=["two", "three"])
def test_identical_frames_come_out_as_without_the_pack(
    family, model, prompts, rounding, include_self
):
    """With two and three references. If the text counted less, they would not."""
    from crossframe.hosts.comfy.noise.clip_noise import SeededNoise

    frame = family.clip(1)["samples"]
    latent = {"samples": frame.repeat(4, *[1] * (frame.ndim - 1))}
    noise = bench.clip_noise(SeededNoise(3), tiny.SAME)
    patched = tiny.patch(model, layers="all", include_self=include_self)
    sigmas = (0.8, 0.4, 0.0)
    expected, *found = (
        bench.custom(bench.guider(one, prompts, 3.0), "euler", sigmas, latent, noise, by_frame)
        for one, by_frame in ((model, False), (patched, False), (patched, True))
    )
    assert max(tiny.error(frames, expected) for frames in found) < rounding


def test_the_same_frames_by_every_road(family, model, prompts, rounding, monkeypatch):
    latent = family.clip(4)
    whole = paint(tiny.patch(model, layers="all"), prompts, latent)
    assert tiny.error(paint(model, prompts, latent), whole) > 0.003
    patched = tiny.patch(model, layers="all", frames_per_batch=1)
    assert tiny.error(paint(patched, prompts, latent), whole) < rounding
    assert tiny.error(paint(patched, prompts, latent, "frames"), whole) < rounding
    patched = tiny.patch(model, layers="all", frames_per_batch=2)
    assert tiny.error(paint(patched, prompts, latent), whole) < rounding
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    assert tiny.error(paint(patched, prompts, latent), whole) < rounding


def layouts_of(patched, prompts, latent):
    """The layouts that a run has found, taken when its sampling ends."""
    from comfy.patcher_extension import WrappersMP

    found = []

    def look(executor, x, timestep, options, seed):
        result = executor(x, timestep, options, seed)
        found.append(options["transformer_options"]["crossframe"].run.layouts)
        return result

    patched = patched.clone()
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "test", look)
    paint(patched, prompts, latent, steps=1)
    return found[0]


def test_the_layout_that_is_found_is_that_of_the_source(family, model, prompts):
    """Every call in which the picture attends to itself is found, and no other one."""
    latent = family.clip(2)
    layouts = layouts_of(tiny.patch(model, layers="all"), prompts, latent)
    form, known = next(iter(layouts.measured.items()))  # that of the first prompt
    size = form[0][1:]
    assert size == tuple(latent["samples"].shape[2:])
    found = [layer for layers in known.layers.values() for layer in layers.values()]
    expected = [call for call in family.expected() if IMG in call.queries and IMG in call.keys]
    assert len(found) == len(expected)
    parts = family.parts()
    tokens = math.prod(math.ceil(side / family.patch) for side in size[-2:]) * family.columns
    for layer, call in zip(found, expected, strict=True):
        layout = layer.layout
        assert layout.queries.start == span(IMG, call.queries, parts)[0]
        assert layout.keys.start == span(IMG, call.keys, parts)[0]
        # What ComfyUI fills up the picture with is not of the picture.
        assert layout.queries.length == layout.keys.length == tokens
        assert layer.repeats == call.repeated
        if call.layer is not None and "index" in call.ids:
            assert layer.address[1] == call.layer[1]


def test_prompts_of_one_length_with_pictures_in_other_places():
    """One prompt has a reference picture after ours, the other one as much more text before it."""
    flux = FAMILIES["flux"]
    prompts = flux.with_references(flux.prompt(1)), flux.prompt(2, tokens=19)
    latent = flux.clip(2)
    layouts = layouts_of(tiny.patch(flux.model(), layers="all"), prompts, latent)
    starts = [
        {layers[34, 34].layout.keys.start for layers in known.layers.values()}
        for known in layouts.measured.values()
    ]
    assert starts == [{7}, {19}]


@pytest.mark.parametrize("name", REFUSED)
def test_families_that_cannot_work_are_refused_by_name(name):
    family = FAMILIES[name]
    if not family.available():
        pytest.skip(f"this ComfyUI has no {family.source}")
    model, prompts = family.model(), (family.prompt(1), family.prompt(2))
    with pytest.raises(ValueError, match=f"^CrossFrameAttention: input 'model': .*{REFUSED[name]}"):
        paint(tiny.patch(model), prompts, family.clip(2))
