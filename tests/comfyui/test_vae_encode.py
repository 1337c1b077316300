"""Cross-Frame VAE Encode: what it gives is what ComfyUI's VAE Encode gives for each frame alone."""

import functools

import pytest
import tiny
import torch
from bench import Planted

FRAMES = 5


def node():
    from crossframe.nodes.encoding import CrossFrameVAEEncode

    return CrossFrameVAEEncode


def encode(pixels, vae) -> dict:
    """The node's LATENT."""
    (latent,) = node().execute(pixels, vae).args
    return latent


def stock_encode(pixels, vae) -> dict:
    """The LATENT of ComfyUI's VAE Encode."""
    import nodes

    return nodes.VAEEncode().encode(vae, pixels)[0]


def stock_decode(samples, vae) -> torch.Tensor:
    """The IMAGE of ComfyUI's VAE Decode."""
    import nodes

    return nodes.VAEDecode().decode(vae, {"samples": samples})[0]


def alone(pixels, vae) -> dict:
    """What VAE Encode gives for each frame alone, one after another."""
    latents = [stock_encode(frame, vae) for frame in pixels.split(1)]
    (keys,) = {tuple(latent) for latent in latents}
    return {key: torch.cat([latent[key] for latent in latents]) for key in keys}


def wanted(pixels, vae) -> dict:
    """What the node must give: one latent per frame, from VAE Encode."""
    return alone(pixels, vae) if vae.latent_dim == 3 else stock_encode(pixels, vae)


def clip(frames=FRAMES, height=32, width=48, channels=3, seed=0) -> torch.Tensor:
    """An IMAGE batch, (frames, height, width, channels)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(frames, height, width, channels, generator=generator)


def check_same(found: dict, other: dict) -> None:
    """Two LATENTs have the same keys, and tensors of the same bits, type and device."""
    assert found.keys() == other.keys()
    for key, value in other.items():
        assert found[key].dtype == value.dtype
        assert found[key].device == value.device
        assert torch.equal(found[key], value)


def make_vae(name: str):
    """A VAE of pictures or of videos."""
    if name == "demo":
        from crossframe.nodes.demo import CrossFrameDemoModel

        return CrossFrameDemoModel.execute().args[2]
    makers = {
        "stable diffusion": tiny.autoencoder,
        "wan": tiny.video_autoencoder,
        "wan with alpha": functools.partial(tiny.video_autoencoder, colours=4),
    }
    return makers[name]()


@pytest.fixture(scope="module")
def vae_of():
    """`make_vae`, which makes every VAE once; tests that change one make their own."""
    with torch.inference_mode():  # as ComfyUI executes nodes
        yield functools.cache(make_vae)


PICTURES, VIDEOS = ["stable diffusion", "demo"], ["wan", "wan with alpha"]
SHAPES = [(32, 48, 3), (37, 43, 3), (32, 48, 4), (41, 34, 4)]  # cropped sides, alpha channels


@pytest.fixture(params=[False, True], ids=["fp32", "fp16 intermediates"])
def intermediates(request, monkeypatch):
    """ComfyUI's option --fp16-intermediates."""
    import comfy.model_management
    from comfy.cli_args import args

    if not hasattr(comfy.model_management, "intermediate_dtype"):
        pytest.skip("this ComfyUI has no such option")
    monkeypatch.setattr(args, "fp16_intermediates", request.param)


@pytest.fixture
def bar(monkeypatch):
    """What the page's progress bar is told: (value, total)."""
    import comfy.utils

    states = []

    def hook(value, total, *_, **__):
        states.append((value, total))

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    # ComfyUI leaves out what comes too soon after the state before.
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0, raising=False)
    return states


def watched(vae, monkeypatch, frames_that_fit=10**6, on_call=lambda number: None) -> list:
    """Return a list that gets the shape of the pixels in every call of a VAE's network.

    frames_that_fit: for how many frames memory is free. on_call: gets the number of each call
    when it is over.
    """
    shapes: list[tuple] = []
    network = vae.first_stage_model
    run = network.encode

    def look(pixels, *args, **kwargs):
        shapes.append(tuple(pixels.shape))
        latents = run(pixels, *args, **kwargs)
        on_call(len(shapes))
        return latents

    monkeypatch.setattr(network, "encode", look)
    monkeypatch.setattr(vae, "memory_used_encode", lambda shape, dtype: 1000)
    monkeypatch.setattr(vae.patcher, "get_free_memory", lambda device: 1000 * frames_that_fit)
    return shapes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PICTURES)
def test_vae_of_pictures_gives_what_vae_encode_gives(name, shape, vae_of):
    pixels, vae = clip(FRAMES, *shape), vae_of(name)
    latent = encode(pixels, vae)
    check_same(latent, stock_encode(pixels, vae))
    ratio = vae.spacial_compression_encode()
    assert latent["samples"].shape == (FRAMES, 4, shape[0] // ratio, shape[1] // ratio)
    assert latent["samples"].std() > 0.01
    one_by_one = alone(pixels, vae)["samples"]
    torch.testing.assert_close(latent["samples"], one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VIDEOS)
def test_vae_of_videos_gives_every_frame_its_own_latent(name, shape, vae_of):
    pixels, vae = clip(FRAMES, *shape), vae_of(name)
    latent = encode(pixels, vae)
    check_same(latent, alone(pixels, vae))
    assert latent["samples"].shape == (FRAMES, 16, 1, shape[0] // 8, shape[1] // 8)
    assert len({tuple(frame.flatten().tolist()) for frame in latent["samples"]}) == FRAMES
    # This is why there is such a node.
    assert stock_encode(pixels, vae)["samples"].shape[:3] == (1, 16, 2)


@pytest.mark.parametrize("name", ["stable diffusion", "wan"])
def test_one_frame(name, vae_of):
    pixels, vae = clip(1), vae_of(name)
    check_same(encode(pixels, vae), stock_encode(pixels, vae))


@pytest.mark.parametrize("name", ["stable diffusion", "wan"])
def test_type_and_device_are_those_of_vae_encode(name, intermediates, vae_of):
    vae = vae_of(name)
    check_same(encode(clip(), vae), wanted(clip(), vae))


def test_vae_with_layers_for_video_that_takes_pictures(monkeypatch):
    """Built like a VAE for video, but ComfyUI gives every picture its latent (HunyuanImage 2.1)."""
    vae = tiny.video_autoencoder()
    vae.not_video = True
    shapes = watched(vae, monkeypatch, frames_that_fit=2)
    latent = encode(clip(), vae)
    assert [shape[0] for shape in shapes] == [2, 2, 1]
    check_same(latent, stock_encode(clip(), vae))
    assert latent["samples"].shape == (FRAMES, 16, 1, 4, 6)


@pytest.mark.parametrize("name", PICTURES + VIDEOS[:1])
def test_vae_decode_gives_one_image_per_frame(name, vae_of):
    """ComfyUI's own VAE Decode turns these latents back, so the pack needs no node for it."""
    pixels, vae = clip(), vae_of(name)
    samples = encode(pixels, vae)["samples"]
    images = stock_decode(samples, vae)
    assert images.shape == pixels.shape
    frames = [stock_decode(frame, vae) for frame in samples.split(1)]
    assert all(frame.shape == (1, 32, 48, 3) for frame in frames)
    torch.testing.assert_close(images, torch.cat(frames), rtol=0, atol=1e-5)
    assert len({tuple(image.flatten().tolist()) for image in images}) == FRAMES


def test_video_vae_never_sees_two_frames_at_once(monkeypatch):
    vae = tiny.video_autoencoder()
    shapes = watched(vae, monkeypatch)
    assert len(encode(clip(200, 16, 16), vae)["samples"]) == 200
    assert shapes == [(1, 3, 1, 16, 16)] * 200


def test_picture_vae_sees_as_many_frames_as_memory_allows(monkeypatch):
    vae = tiny.autoencoder()
    shapes = watched(vae, monkeypatch, frames_that_fit=7)
    latent = encode(clip(20, 16, 16), vae)
    assert [shape[0] for shape in shapes] == [7, 7, 6]
    check_same(latent, stock_encode(clip(20, 16, 16), vae))


def test_progress_with_a_video_vae(bar, vae_of):
    encode(clip(), vae_of("wan"))
    assert bar == [(frame, FRAMES) for frame in range(1, FRAMES + 1)]


def test_progress_with_a_picture_vae(bar, monkeypatch):
    vae = tiny.autoencoder()
    watched(vae, monkeypatch, frames_that_fit=2)
    encode(clip(), vae)
    assert bar == [(0, FRAMES), (2, FRAMES), (4, FRAMES), (FRAMES, FRAMES)]


@pytest.mark.parametrize("make", [tiny.autoencoder, tiny.video_autoencoder])
def test_cancel_stops_it_before_the_next_frame(make, monkeypatch):
    import comfy.model_management as management

    vae = make()
    whole = encode(clip(), vae)
    with monkeypatch.context() as patches:
        shapes = watched(
            vae,
            patches,
            frames_that_fit=1,
            on_call=lambda number: management.interrupt_current_processing(number == 2),
        )
        with pytest.raises(management.InterruptProcessingException):
            encode(clip(), vae)
        assert len(shapes) == 2
    check_same(encode(clip(), vae), whole)


@pytest.mark.parametrize("make", [tiny.autoencoder, tiny.video_autoencoder])
def test_the_vae_is_as_it_was(make, monkeypatch):
    """Also after an error, since ComfyUI keeps it and other nodes go on with it."""
    vae = make()
    before = dict(vars(vae))

    def fail(number):
        raise Planted

    encode(clip(), vae)
    with monkeypatch.context() as patches:
        watched(vae, patches, on_call=fail)
        with pytest.raises(Planted):
            encode(clip(), vae)
    assert vars(vae) == before


@pytest.mark.parametrize("make", [tiny.autoencoder, tiny.video_autoencoder])
def test_a_full_card_is_tiled_as_in_vae_encode(make, monkeypatch):
    """If memory runs out, ComfyUI encodes tiles of at most 1024 pixels instead."""
    import comfy.model_management as management

    vae, pixels = make(), clip(2, 16, 1200)
    encode_network = vae.first_stage_model.encode

    def in_little_memory(batch):
        if batch.shape[-1] > 1024:
            raise management.OOM_EXCEPTION("the card is full")
        return encode_network(batch)

    untiled = encode(pixels, vae)["samples"]
    monkeypatch.setattr(vae.first_stage_model, "encode", in_little_memory)
    latent = encode(pixels, vae)
    check_same(latent, wanted(pixels, vae))
    assert latent["samples"].shape == untiled.shape
    assert not torch.equal(latent["samples"], untiled)


def broken_vae(kind: str):
    """What may come through a VAE's socket beside a VAE for pictures."""
    import comfy.sd

    if kind == "none":
        return None
    if kind == "checkpoint without a VAE":
        return comfy.sd.VAE(sd={})
    if kind == "no VAE of ComfyUI":
        return torch.nn.Identity()
    if kind == "sound":
        return comfy.sd.VAE(sd={"decoder.layers.1.layers.0.beta": torch.zeros(2048)})
    vae = tiny.autoencoder()
    if kind == "sound in two dimensions":
        vae.output_channels, vae.extra_1d_channel = 2, 16  # as ACE-Step's and LTX's have them
    if kind == "3-D shapes":
        vae.latent_dim = 1  # as Hunyuan3D's has it, with 3 channels
    return vae


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "there is none. The checkpoint that it comes from has no VAE in it. Use a Load"),
        ("checkpoint without a VAE", "there is none. The checkpoint that it comes from has no VAE"),
        ("sound", "it is not for pictures, but for something else, such as sound or 3-D shapes."),
        ("sound in two dimensions", "it is not for pictures"),
        ("3-D shapes", "it is not for pictures"),
        ("no VAE of ComfyUI", "it is not for pictures"),
    ],
)
def test_what_is_no_vae_for_pictures_is_refused(kind, message):
    from crossframe.hosts.comfy.errors import BadInputError

    with pytest.raises(BadInputError, match=r"^CrossFrameVAEEncode: input 'vae': ") as raised:
        encode(clip(), broken_vae(kind))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "name", "message"),
    [
        ((0, 32, 32, 3), "wan", "it has no frames. Connect at least one picture."),
        ((0, 32, 32, 3), "stable diffusion", "it has no frames."),
        ((3, 32, 7, 3), "wan", "its frames have 7 x 32 pixels, and this VAE makes one pixel of"),
        ((3, 7, 32, 3), "stable diffusion", "32 x 7 pixels"),
        ((3, 7, 32, 3), "stable diffusion", "Give pictures of at least 8 x 8 pixels (ImageScale)"),
        ((3, 1, 32, 3), "demo", "at least 2 x 2 pixels"),
        ((3, 32, 32, 1), "wan", "not a batch of RGB pictures, but has the shape (3, 32, 32, 1)"),
        ((3, 32, 32, 2), "stable diffusion", "not a batch of RGB pictures"),
        ((3, 32, 32), "wan", "it is not a batch of RGB pictures, but has the shape (3, 32, 32)."),
        ((1, 3, 32, 32, 3), "wan", "it is not a batch of RGB pictures"),
    ],
)
def test_what_are_no_frames_for_a_vae_is_refused(shape, name, message, vae_of):
    from crossframe.hosts.comfy.errors import BadInputError

    with pytest.raises(BadInputError, match=r"^CrossFrameVAEEncode: input 'pixels': ") as raised:
        encode(torch.rand(shape), vae_of(name))
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["stable diffusion", "wan"])
def test_smallest_frames(name, vae_of):
    assert encode(clip(2, 8, 8), vae_of(name))["samples"].shape[-2:] == (1, 1)
