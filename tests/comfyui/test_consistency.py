"""The node that measures flicker, on clips whose exact motion is known."""

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
        ((6, 64, 64), (5, 64, 64), 2, "input 'source': has 5 frames of 64 x 64, edited has 6"),
        ((5, 64, 32), (5, 64, 64), 2, "edited has 5 frames of 32 x 64"),
        ((5, 64, 64), (5, 64, 64), 5, "input 'far': is 5, but the video has only 5 frames"),
        ((1, 64, 64), (1, 64, 64), 1, "has only 1 frames"),
    ],
)
def test_clear_errors(edited, source, far, message):
    from crossframe.hosts.comfy.errors import BadInputError

    with pytest.raises(BadInputError, match=r"^CrossFrameConsistency: input ") as raised:
        node().execute(torch.rand(*edited, 3), torch.rand(*source, 3), far)
    assert message in str(raised.value)


def test_missing_library_is_named(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "skimage" else find(name, *a)
    )
    with pytest.raises(RuntimeError, match=r"CrossFrameConsistency: .* scikit-image"):
        node().execute(torch.rand(3, 8, 8, 3), torch.rand(3, 8, 8, 3), 1)
