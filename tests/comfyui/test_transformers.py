"""Cross-frame attention in diffusion transformers, family by family."""

import families
import pytest
import tiny
import torch
from families import FAMILIES

STEPS = {"steps": 2, "cfg": 3.0, "denoise": 0.8, "scheduler": "simple"}
ATTENDING = ("first", "first + previous", "first + middle + previous")


@pytest.fixture(params=FAMILIES, scope="module")
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


def paint(model, prompts, latent, order="batch", **inputs):
    return tiny.ORDERS[order](model, *prompts, latent, **{**STEPS, **inputs})


def test_a_frame_that_attends_to_itself_comes_out_as_without_the_pack(family, model, prompts):
    latent = family.clip()
    expected = paint(model, prompts, latent)
    assert torch.equal(paint(tiny.patch_own(model), prompts, latent), expected)


@pytest.mark.parametrize("references", ["first + previous"])
def test_identical_frames_come_out_as_without_the_pack(family, model, prompts, references):
    latent = {
        "samples": family.clip(1)["samples"].repeat(4, *[1] * (family.clip(1)["samples"].ndim - 1))
    }
    from crossframe.hosts.comfy.noise.clip_noise import ClipNoise

    patched = tiny.patch(model, references=references, layers="all", include_self=True)
    one = paint(model, prompts, latent, "batch", seed=3)
    import bench


def test_every_road(family, model, prompts):
    latent = family.clip()
    whole = paint(tiny.patch(model, layers="all"), prompts, latent)
    assert tiny.error(paint(model, prompts, latent), whole) > 0.003
    for batch in (1, 2):
        patched = tiny.patch(model, layers="all", frames_per_batch=batch)
        assert tiny.error(paint(patched, prompts, latent), whole) < 1e-4
    assert tiny.error(paint(patched, prompts, latent, "frames"), whole) < 1e-4
