"""Pictures that every frame brings along: references of edit models, hints of Z-Image's ControlNet.

They go through the nodes of ComfyUI that users have for them.
"""

import functools

import pytest
import stand_ins
import tiny
import torch
from families import FAMILIES
from family import REFERENCE

FRAMES = 4
SAMPLING = {"steps": 2, "cfg": 1.0, "denoise": 1.0, "scheduler": "simple"}
EDITING = ["flux_kontext", "flux2_klein", "qwen_edit", "qwen_edit_2511", "krea2", "omnigen2"]


@pytest.fixture(scope="module")
def model_of():
    """Returns the MODEL of a family, which is made once."""
    return functools.cache(lambda name: stand_ins.MODELS[name].model())


def with_references(family, latents) -> list:
    """A prompt after the node ReferenceLatent."""
    from comfy_extras.nodes_edit_model import ReferenceLatent
    from comfy_extras.nodes_flux import FluxKontextMultiReferenceLatentMethod as Method

    ((cond, values),) = family.prompt(1)
    values = {key: value for key, value in values.items() if key != "reference_latents"}
    conds = ReferenceLatent.execute([[cond, values]], {"samples": latents}).args[0]
    if family.name == "krea2":  # it overlooks references without a method
        conds = Method.execute(conds, "index").args[0]
    return conds


def cut(latents, frame: int):
    return latents[frame : frame + 1]


def check_own(paint, alone) -> None:
    """Every frame comes out as it does alone with its own picture, and not with another one.

    paint: paints the clip in an order, every frame looking at itself. alone: paints one frame with
    the picture of one.
    """
    for order in tiny.ORDERS:
        together = paint(order)
        for frame in range(FRAMES):
            assert tiny.error(alone(frame, frame), cut(together, frame)) < 1e-4
            assert tiny.error(alone(frame, (frame + 1) % FRAMES), cut(together, frame)) > 0.01


def check_roads(patched, paint) -> None:
    """Frames that look at each other come out the same in batches of any size, and one by one."""
    whole = paint("batch", patched())
    for count in (1, 3):
        assert tiny.error(paint("batch", patched(frames_per_batch=count)), whole) < 1e-4
    assert tiny.error(paint("frames", patched()), whole) < 1e-4


@pytest.mark.parametrize("name", EDITING)
def test_every_frame_has_its_own_reference(name, model_of):
    family = FAMILIES[name]
    if not family.available():
        pytest.skip(f"this ComfyUI has no {family.source}")
    latent = family.clip(FRAMES)
    model, negative = model_of(name), family.prompt(2)
    references = family.latents(FRAMES, 30, REFERENCE)
    conds = with_references(family, references)

    def paint(order, patched=None):
        patched = tiny.patch_own(model) if patched is None else patched
        return tiny.ORDERS[order](patched, conds, negative, latent, **SAMPLING)

    def alone(frame, reference):
        one = with_references(family, cut(references, reference))
        clip = {"samples": cut(latent["samples"], frame), "batch_index": [frame]}
        return tiny.ORDERS["batch"](model, one, negative, clip, **SAMPLING)

    check_own(paint, alone)
    look = {"layers": "up", "include_self": True}
    check_roads(lambda **more: tiny.patch(model, **look, **more), paint)


def pictures(frames: int, height: int, width: int):
    generator = torch.Generator().manual_seed(6)
    return torch.rand(frames, height, width, 3, generator=generator)


def test_a_clip_through_the_vae_of_qwen_image_is_one_reference_per_frame(model_of):
    """Cross-Frame VAE Encode and ReferenceLatent; VAE Encode makes fewer latents than frames."""
    from crossframe.nodes.encoding import CrossFrameVAEEncode

    import nodes

    family = FAMILIES["qwen_edit"]
    vae, model = tiny.video_autoencoder(), model_of("qwen_edit")
    frames = pictures(5, 32, 48)
    (latent,) = CrossFrameVAEEncode.execute(frames, vae).args
    assert latent["samples"].shape == (5, 16, 1, 4, 6)
    assert nodes.VAEEncode().encode(vae, frames)[0]["samples"].shape == (1, 16, 2, 4, 6)
    conds, negative = with_references(family, latent["samples"]), family.prompt(2)
    whole = tiny.ksampler(tiny.patch(model, layers="all"), conds, negative, latent, **SAMPLING)
    by_frame = tiny.ORDERS["frames"](
        tiny.patch(model, layers="all"), conds, negative, latent, **SAMPLING
    )
    assert tiny.error(by_frame, whole) < 1e-4
    alone = tiny.ksampler(
        model,
        with_references(family, cut(latent["samples"], 3)),
        negative,
        {"samples": cut(latent["samples"], 3), "batch_index": [3]},
        **SAMPLING,
    )
    own = tiny.ksampler(tiny.patch_own(model), conds, negative, latent, **SAMPLING)
    assert tiny.error(alone, cut(own, 3)) < 1e-4


def test_the_text_encoder_of_qwen_image_edit_sees_the_first_picture_only():
    """So a clip cannot go through it: docs/transformers.md says to give it one frame."""
    from comfy.text_encoders.qwen_vl import process_qwen2vl_images

    frames = pictures(3, 56, 84)
    seen, first = process_qwen2vl_images(frames), process_qwen2vl_images(frames[:1])
    assert torch.equal(seen[0], first[0])


class Encoder:
    """A VAE for hints: averages of squares, in the number of channels that Z-Image has."""

    def encode(self, images):
        mix = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
        small = torch.nn.functional.avg_pool2d(images.movedim(-1, 1), 8)
        return (small.movedim(1, -1) @ mix).movedim(-1, 1)

    def spacial_compression_encode(self):
        return 8


VERSIONS = {
    "1": {},
    "2": {"n_control_layers": 15, "additional_in_dim": 17, "refiner_control": True},
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_frame_has_its_own_hint_of_z_images_controlnet(version, model_of):
    from comfy_extras.nodes_model_patch import QwenImageDiffsynthControlnet

    family, model = stand_ins.MODELS["z_image"], model_of("z_image")
    control = stand_ins.z_image_control(**VERSIONS[version])
    latent, conds = family.clip(FRAMES), (family.prompt(1), family.prompt(2))
    hints = pictures(FRAMES, *(8 * side for side in latent["samples"].shape[-2:]))

    def held(images):
        apply = QwenImageDiffsynthControlnet().diffsynth_controlnet
        return apply(model, control, Encoder(), images)[0]

    def paint(order, patched=None):
        patched = tiny.patch_own(held(hints)) if patched is None else patched
        return tiny.ORDERS[order](patched, *conds, latent, **SAMPLING)

    def alone(frame, hint):
        clip = {"samples": cut(latent["samples"], frame), "batch_index": [frame]}
        return tiny.ORDERS["batch"](held(cut(hints, hint)), *conds, clip, **SAMPLING)

    check_own(paint, alone)
    look = {"layers": "up", "include_self": True}
    check_roads(lambda **more: tiny.patch(held(hints), **look, **more), paint)
