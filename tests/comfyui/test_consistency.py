"""The node that measures flicker, on clips whose exact motion is known."""

import math
from random import Random

import pytest
import torch
from crossframe.consistency import warp_error

FRAMES, FAR = 10, 8


def node():
    from crossframe.nodes.consistency import CrossFrameConsistency

    return CrossFrameConsistency


def images(frames):
    """(frames, 3, h, w) -> IMAGE (frames, h, w, 3)."""
    return frames.permute(0, 2, 3, 1)


def measure(edited, source, far=FAR):
    """The node's outputs: near, far, report, plot, heat map."""
    return node().execute(images(edited), images(source), far).args


def clip_of(seed):
    from crossframe.demo import world

    clip = world.random_clip(FRAMES, torch.Generator().manual_seed(seed))
    return clip, world.render(clip, world.PLAIN)


def looks_over_time(kind, seed):
    """A look for every frame, (frames, classes, 2, 3): how an unsteady model might paint."""
    from crossframe.demo import looks

    random, generator = Random(seed), torch.Generator().manual_seed(seed)
    drawn = torch.stack([looks.random_look(random)[0] for _ in range(FRAMES)])
    if kind == "other look in every frame":
        return drawn
    if kind == "jitter":
        jitter = 0.03 * torch.randn(drawn.shape, generator=generator)
        return (drawn[:1] + jitter).clamp(0, 1)
    return (0.7 * drawn[:1] + 0.02 * torch.arange(FRAMES)[:, None, None, None]).clamp(0, 1)


@pytest.mark.parametrize("kind", ["other look in every frame", "jitter", "drift"])
def test_estimate_agrees_with_the_exact_value(kind):
    from crossframe.demo import world

    found, exact = [], []
    for seed in range(4):
        clip, source = clip_of(seed)
        edited = world.render(clip, looks_over_time(kind, seed))
        found.append(measure(edited, source)[:2])
        exact.append(
            [
                1000 * float(warp_error(edited, world.correspondence(clip, lag)).nanmean())
                for lag in (1, FAR)
            ]
        )
    assert torch.tensor(found).mean(0).tolist() == pytest.approx(
        torch.tensor(exact).mean(0).tolist(), rel=0.15
    )


def test_a_steady_edit_has_next_to_no_error():
    from crossframe.demo import world

    for seed in range(3):
        clip, source = clip_of(seed)
        steady = world.render(clip, looks_over_time("jitter", seed)[0])
        near, far, *_ = measure(steady, source)
        assert max(near, far) < 0.1  # x 1000; jitter of 3 % has about 1.8


def test_report_plot_and_heat_map():
    from crossframe.demo import world

    clip, source = clip_of(0)
    edited = world.render(clip, looks_over_time("jitter", 0)[0])
    edited[4] = 1 - edited[4]
    near, far, report, plot, heat = measure(edited, source, far=5)
    lines = report.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "4", "5"]
    assert float(lines[1].split()[1]) == pytest.approx(near, abs=1e-3)
    assert float(lines[-1].split()[1]) == pytest.approx(far, abs=1e-3)
    assert plot.shape[0] == 1
    assert plot.shape[-1] == 3
    assert plot.std() > 0.05
    assert heat.shape == images(edited).shape
    glow = (heat[..., 0] - heat[..., 2]).mean(dim=(1, 2))  # only what is hot is coloured
    assert glow[[3, 4]].min() > 10 * glow[[0, 1, 2, 5, 6]].max()


def test_alpha_and_half_precision_are_taken():
    _, source = clip_of(1)
    pictures = images(source)
    with_alpha = torch.cat((pictures, torch.rand(*pictures.shape[:3], 1)), dim=-1)
    plain = node().execute(pictures, pictures, 2).args
    assert node().execute(with_alpha, pictures, 2).args[0] == plain[0]
    assert node().execute(pictures.half(), pictures, 2).args[0] == pytest.approx(plain[0], abs=1e-2)


def test_one_progress_bar_over_the_pairs(monkeypatch):
    import comfy.utils

    states = []
    monkeypatch.setattr(
        comfy.utils,
        "PROGRESS_BAR_HOOK",
        lambda value, total, *_, **__: states.append((value, total)),
    )
    # ComfyUI leaves out what comes too soon after the state before.
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)
    _, source = clip_of(0)
    measure(source, source, far=2)
    assert states == [(pair, FRAMES - 1) for pair in range(1, FRAMES)]


def test_cancel_stops_it():
    import comfy.model_management as management

    _, source = clip_of(0)
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        measure(source, source, far=2)


@pytest.mark.parametrize(
    ("edited", "source", "far", "message"),
    [
        ((6, 64, 64), (5, 64, 64), 2, "'source': it has 5 frames of 64 x 64, but edited has 6"),
        ((5, 64, 32), (5, 64, 64), 2, "edited has 5 frames of 32 x 64"),
        ((1, 64, 64), (1, 64, 64), 1, "'edited': it has 1 frame of 64 x 64, and steadiness"),
        ((0, 64, 64), (0, 64, 64), 1, "'edited': it has 0 frames of 64 x 64, and steadiness"),
        ((3, 600, 1), (3, 600, 1), 1, "has 3 frames of 1 x 600, too small"),
        ((3, 1, 600), (3, 1, 600), 1, "has 3 frames of 600 x 1, too small"),
        ((3, 1, 1), (3, 1, 1), 1, "at least 2 x 2 pixels"),
        ((3, 2, 8, 8), (3, 2, 8, 8), 1, "it is not a batch of pictures, but has the shape"),
    ],
)
def test_clear_errors(edited, source, far, message):
    from crossframe.hosts.comfy.errors import BadInputError

    with pytest.raises(BadInputError, match=r"^CrossFrameConsistency: input ") as raised:
        node().execute(torch.rand(*edited, 3), torch.rand(*source, 3), far)
    assert message in str(raised.value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["edited", "source"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_frame_that_holds_no_numbers_is_named(name, value, dtype):
    from crossframe.hosts.comfy.errors import BadInputError

    _, source = clip_of(0)
    clips = {"edited": images(source).to(dtype), "source": images(source).to(dtype)}
    clips[name] = clips[name].clone()
    clips[name][7, 30, 20, 1] = value
    message = f"input '{name}': frame 7, counted from 0, has values that are nan or infinite"
    with pytest.raises(BadInputError, match=message):
        node().execute(**clips, far=2)
    clips[name][[2, 9]] = value
    with pytest.raises(BadInputError, match=r"frame 2, .*, and so have 2 others\."):
        node().execute(**clips, far=2)


def test_a_hidden_channel_does_not_count():
    _, source = clip_of(0)
    with_alpha = torch.cat((images(source), torch.full((FRAMES, 64, 64, 1), torch.nan)), dim=-1)
    assert measure(source, source, 1)[0] == node().execute(with_alpha, images(source), 1).args[0]


def test_what_cannot_be_compared_has_no_number_and_is_said():
    noise = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    output = node().execute(images(torch.full_like(noise, 0.5) + 0.1 * noise), images(noise), 2)
    near, far, report, plot, _ = output.args
    assert math.isnan(near)
    assert math.isnan(far)
    assert "Between frames 1 and 2 apart nothing could be compared" in report
    assert "nan is no score" in report
    assert output.ui.as_dict()["text"] == (report,)
    _, source = clip_of(0)
    assert not torch.equal(plot, measure(source[:3], source[:3], 2)[3])


def test_what_cannot_be_followed_so_far_is_said():
    """No point can be followed throughout: the left half is smooth up to the middle frame, the
    right half after it.
    """
    generator = torch.Generator().manual_seed(0)
    source = torch.full((3, 3, 32, 32), 0.5)
    source[0, :, :, 14:] = torch.rand(3, 32, 18, generator=generator)
    source[2, :, :, :18] = torch.rand(3, 32, 18, generator=generator)
    near, far, report, *_ = measure(0.9 * source, source, 2)
    assert near == pytest.approx(0, abs=0.1)
    assert math.isnan(far)
    assert "Between frames 2 apart nothing could be compared" in report


def test_few_pixels_are_said():
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    noise[..., 20:26, 20:26] = 0.5  # not even 1 % is smooth
    report = measure(noise, noise, 1)[2]
    assert "Between frames 1 apart fewer than 1 % of the pixels could be compared" in report


def test_a_short_video_is_measured_as_far_as_it_goes():
    _, source = clip_of(0)
    edited = source[:5].clone()
    edited[2] += 0.1
    shorter, longest = measure(edited, source[:5], 8), measure(edited, source[:5], 4)
    assert shorter[:2] == longest[:2]
    assert shorter[0] > 1
    assert "The videos have 5 frames, so the largest distance is 4 and not 8." in shorter[2]
    assert shorter[2].startswith(longest[2])
    assert "not" not in longest[2]
    assert measure(edited[:2], source[:2])[0] == measure(edited[:2], source[:2], 1)[1]


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (2, 600), (600, 3)])
def test_narrow_and_tiny_pictures_are_measured(size):
    ramp = torch.linspace(0.2, 0.8, size[0] * size[1]).view(1, 1, *size).expand(3, 3, *size)
    near, far, report, _, heat = measure(ramp + 0.1 * torch.eye(3)[:, :, None, None], ramp, 2)
    compared = report.splitlines()[1].split()[2] != "0%"
    assert (near > 1 and far > 1) if compared else "nothing could be compared" in report
    assert heat.shape == (3, *size, 3)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels(channels):
    """Either side may be grey, grey with alpha, or colours with alpha."""
    _, source = clip_of(1)
    grey = source.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    flicker = grey + 0.05 * torch.randn(FRAMES, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    odd = images(flicker)[..., [0, 0, 0, 0][:channels]].clone()
    if channels in (2, 4):
        odd[..., -1] = torch.rand(odd.shape[:-1])
    wanted = node().execute(images(flicker), images(flicker), 2).args
    for edited, source in ((odd, images(flicker)), (images(flicker), odd), (odd, odd)):
        found = node().execute(edited, source, 2).args
        assert found[:2] == pytest.approx(wanted[:2], rel=0.01)
        assert found[4].shape[:3] == (FRAMES, 64, 64)


def test_values_that_are_no_colours_are_said():
    _, source = clip_of(0)
    bytes_ = 255 * source[:3]
    report = measure(bytes_, source[:3], 2)[2]
    assert "edited has values from" in report
    assert "Pictures normally have values from 0 to 1" in report
    assert "source has" not in report
    assert "has values" not in measure(source[:3] * 1.02 - 0.01, source[:3], 2)[2]


def test_clips_that_show_nothing_are_said():
    _, source = clip_of(0)
    black = torch.zeros_like(source[:3])
    near, _, report, *_ = measure(black, source[:3], 2)
    assert near == 0
    assert "Every frame of edited is of one colour, so a low number says nothing." in report
    assert "Every frame of source is of one colour" in measure(source[:3], black, 2)[2]
    still = source[:1].expand(3, -1, -1, -1)
    near, _, report, *_ = measure(still, still, 2)
    assert near == pytest.approx(0, abs=1e-6)
    assert len(report.splitlines()) == 3


def test_missing_library_is_named(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "skimage" else find(name, *a)
    )
    with pytest.raises(RuntimeError, match=r"CrossFrameConsistency: .* scikit-image"):
        node().execute(torch.rand(3, 8, 8, 3), torch.rand(3, 8, 8, 3), 1)
