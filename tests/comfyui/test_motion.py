"""The node that finds motion: what it gives, what it says, and what it refuses."""

import pytest
import torch

FRAMES, SIDE = 6, 64


def node():
    from crossframe.nodes.motion import CrossFrameMotion

    return CrossFrameMotion


def find(source, method="built in", flow_model=None):
    """The node's outputs: motion, keyframes, preview."""
    return node().execute(source, method, flow_model).args


def panned(frames=FRAMES, step=4, side=SIDE):
    """An IMAGE of a camera that goes left over a texture, so that all things go right."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, side // 4, (side + frames * step) // 4 + 4, generator=generator)
    wide = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic")[0].clamp(0, 1)
    start = frames * step
    views = [wide[..., start - k * step : start - k * step + side] for k in range(frames)]
    return torch.stack(views).movedim(1, -1)


class ExactFlow(torch.nn.Module):
    """Stands in for RAFT on `panned`: it finds by how many whole pixels all things went."""

    def __init__(self, farthest=24):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.farthest, self.sides = farthest, set()

    def forward(self, here, there):
        assert here.min() < -0.2  # RAFT takes colours from -1 to 1
        self.sides.update(here.shape[-2:])
        errors = {}
        for step in range(-self.farthest, self.farthest + 1):
            shifted = torch.roll(there, -step, dims=-1)
            inner = slice(self.farthest, -self.farthest)
            errors[step] = float((here - shifted)[..., inner].abs().mean())
        flow = torch.zeros(1, 2, *here.shape[-2:])
        flow[:, 0] = min(errors, key=errors.get)
        return [torch.zeros_like(flow), flow]


def flow_model(network=None):
    """An OPTICAL_FLOW, as ComfyUI's loader makes it."""
    from comfy.model_patcher import ModelPatcher

    device = torch.device("cpu")
    return ModelPatcher(network or ExactFlow(), load_device=device, offload_device=device)


def moved(motion, frame, other, grid=None):
    """How far things go, (h, w, 2), in cells."""
    from crossframe.motion import pixel_grid

    pair = motion.between(frame, other, grid)
    return pair.positions - pixel_grid(pair.positions), pair.trust


def test_it_finds_the_motion_keyframes_and_pictures():
    motion, keyframes, preview = find(panned(12, step=5))
    assert (motion.frames, motion.size) == (12, (SIDE, SIDE))
    for frame, other, grid in [(0, 1, None), (1, 4, (8, 8)), (5, 2, (32, 32))]:
        flow, trust = moved(motion, frame, other, grid)
        wanted = 5 * (other - frame) * flow.shape[1] / SIDE
        middle = slice(flow.shape[0] // 3, -flow.shape[0] // 3)
        assert flow[middle, middle, 0].median() == pytest.approx(wanted, abs=0.3)
        assert trust[middle, middle].mean() > 0.9
    assert keyframes == "0, 7"  # half of 64 pixels are 6.4 frames
    assert preview.shape == (12, SIDE, SIDE, 3)
    assert 0 <= preview.min() <= preview.max() <= 1
    red, green, blue = preview[:-1, 16:48, 16:40].mean(dim=(0, 1, 2)).tolist()
    assert red > 0.9  # to the right
    assert max(green, blue) < 0.2
    assert preview[:-1, :, -3:].max() < 0.6  # what leaves the picture is dark


def test_the_preview_is_as_large_as_motion_is_estimated():
    pictures = find(panned(3, side=160))[2]
    assert pictures.shape == (3, 128, 128, 3)


def test_raft_is_asked_through_the_socket():
    network = ExactFlow()
    motion, keyframes, _ = find(panned(4, step=4, side=128), "RAFT", flow_model(network))
    flow, trust = moved(motion, 0, 2)
    assert flow[..., 0].median() == pytest.approx(8, abs=1e-3)
    assert flow[..., 1].abs().max() < 1e-3
    assert trust[:, :110].mean() > 0.95
    assert network.sides == {128}
    assert keyframes == "0"


def test_raft_gets_sides_that_it_takes():
    """At least 128 pixels, and multiples of 8; the flow comes back in the clip's pixels."""
    network = ExactFlow()
    motion = find(panned(2, step=3, side=64), "RAFT", flow_model(network))[0]
    assert network.sides == {128}
    assert moved(motion, 0, 1)[0][..., 0].median() == pytest.approx(3, abs=0.3)
    odd = panned(2, step=4, side=140)[:, :131]
    assert find(odd, "RAFT", flow_model(network))[0].size == (131, 140)
    assert network.sides == {128, 144}


def test_a_real_raft_runs():
    """With random weights there is nothing to trust, but the socket fits."""
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    motion, _, preview = find(panned(2), "RAFT", flow_model(raft_large(progress=False).eval()))
    assert moved(motion, 0, 1)[0].isfinite().all()
    assert preview.isfinite().all()


def test_a_wrong_network_is_not_trusted():
    class Wrong(torch.nn.Module):
        def forward(self, here, there):
            return [torch.full((1, 2, *here.shape[-2:]), 9.0)]

    motion = find(panned(3), "RAFT", flow_model(Wrong()))[0]
    assert motion.between(0, 1).trust.mean() < 0.02


def test_grey_and_alpha_are_taken():
    source = panned(3)
    with_alpha = torch.cat((source, torch.full((*source.shape[:3], 1), torch.nan)), dim=-1)
    one = find(source)[0].between(0, 1)
    other = find(with_alpha)[0].between(0, 1)
    assert torch.equal(one.positions, other.positions)
    grey = find(source.mean(dim=-1, keepdim=True))[0]
    assert moved(grey, 0, 1)[0][16:48, 16:48, 0].median() == pytest.approx(4, abs=0.3)


def test_it_is_found_again_by_its_fingerprint():
    source = panned(3)
    fingerprints = [find(s)[0].fingerprint for s in (source, source.clone(), source[:2])]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_one_progress_bar(monkeypatch):
    import comfy.utils

    states = []
    monkeypatch.setattr(
        comfy.utils,
        "PROGRESS_BAR_HOOK",
        lambda value, total, *_, **__: states.append((value, total)),
    )
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)
    find(panned(4))
    assert states == [(number, 6) for number in range(1, 7)]


def test_cancel_stops_it():
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        find(panned(3))


def test_cancel_stops_a_search_that_a_sampler_asks_for():
    import comfy.model_management as management

    motion = find(panned(4))[0]
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        motion.between(1, 3)


def other_model():
    """A MODEL, which some bundle of wires may bring to the socket."""
    import tiny

    return tiny.model(tiny.SD15)


class NoFlow(torch.nn.Module):
    """Gives something else than a flow."""

    def forward(self, here, there):
        return here.mean()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 64, 64, 3), "'source': it has 1 frame, and motion is between frames. Connect all"),
        ((0, 64, 64, 3), "it has 0 frames"),
        ((3, 64, 7, 3), "it has pictures of 7 x 64, too small .* at least 8 x 8"),
        ((2, 3, 64, 64, 3), "it is not a batch of pictures, but has the shape"),
        ((3, 64, 64, 0), "it is not a batch of pictures"),
    ],
)
def test_clips_without_motion_are_refused(shape, message):
    from crossframe.hosts.comfy.errors import BadInputError

    with pytest.raises(BadInputError, match=f"^CrossFrameMotion: input .*{message}"):
        find(torch.rand(shape))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_frame_without_numbers_is_named(value):
    from crossframe.hosts.comfy.errors import BadInputError

    source = panned(4)
    source[2, 5, 6, 1] = value
    with pytest.raises(BadInputError, match="'source': frame 2, counted from 0, has values that"):
        find(source)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: None, "nothing is connected, and the method 'RAFT' needs it. .*'built in'"),
        (other_model, "it is not a model that finds the motion .* Load Optical Flow Model"),
        (lambda: "flow", "it is not a model that finds the motion"),
        (lambda: flow_model(NoFlow()), "it is not a model that finds the motion"),
    ],
)
def test_models_that_find_no_motion_are_refused(made, message):
    from crossframe.hosts.comfy.errors import BadInputError

    with pytest.raises(BadInputError, match=f"^CrossFrameMotion: input 'flow_model': {message}"):
        find(panned(3), "RAFT", made())


@pytest.mark.parametrize("size", [(853, 480), (511, 767), (100, 37)])
def test_latents_that_an_encoder_has_cropped_fit(size):
    from crossframe.hosts.comfy.run.fusion import check_motion

    width, height = size
    motion = find(torch.rand(2, height, width, 3))[0]
    for ratio in (8, 16, 2):
        check_motion(motion, range(2), torch.Size((2, 4, height // ratio, width // ratio)))


def test_the_motion_brings_its_keyframes():
    motion, keyframes, _ = find(panned(3))
    assert ", ".join(map(str, motion.keyframes)) == keyframes
