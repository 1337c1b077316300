"""Cross-Frame Fusion in real samplings, in parts, beside attention, and with bad input.

That both orders and all batches give the same frames is in `test_invariance.py`.
"""

import re

import bench
import pytest
import tiny
import torch
from crossframe.latents.fusion import FUSED_TO
from families import FAMILIES
from graphs import CLIP, Graph, Moving, Plan

PLAN = Plan(frames=6, frame_noise=tiny.SAME, attends=False)
LOOK = {"layers": "all", "references": "first"}


@pytest.fixture(params=FUSED_TO)
def to(request):
    return request.param


def test_fusion_acts_and_nothing_is_patched_for_good(parts, to):
    graph = Graph.build(PLAN, parts)
    plain = graph.paint(model=graph.model)
    fused = graph.paint(model=graph.fused(graph.model, to))
    assert tiny.error(fused[0], plain[0]) < 1e-6  # nothing is mixed into the first frame
    assert all(tiny.error(fused[i], plain[i]) > 0.01 for i in range(1, 6))
    assert torch.equal(graph.paint(model=graph.model), plain)


def test_the_untrusted_half_stays_as_the_model_paints_it(parts, to):
    """With one step, the frames are the predictions, and the model has seen no mixed ones."""
    import dataclasses

    graph = Graph.build(dataclasses.replace(PLAN, steps=1), parts)
    plain = graph.paint(model=graph.model)
    fused = graph.paint(model=graph.fused(graph.model, to))
    half = plain.shape[-2] // 2
    assert torch.equal(fused[..., :half, :], plain[..., :half, :])
    assert tiny.error(fused[1:, ..., half:, :], plain[1:, ..., half:, :]) > 0.01


def test_the_foreground_stays_as_the_model_paints_it(parts, to):
    """Masks per frame and one for all; in one step, as above."""
    import dataclasses

    graph = Graph.build(dataclasses.replace(PLAN, steps=1), parts)
    plain = graph.paint(model=graph.model)
    fused = graph.paint(model=graph.fused(graph.model, to))
    left = torch.zeros(6, tiny.PIXELS, tiny.PIXELS)
    left[..., : tiny.PIXELS // 4] = 1
    masks = {
        "everything": torch.ones(1, 16, 16),
        "nothing": torch.zeros(16, 16),
        "left, by frame": left,
        "left": left[:1],
    }
    frames = {
        name: graph.paint(model=graph.fused(graph.model, to, foreground=mask))
        for name, mask in masks.items()
    }
    assert torch.equal(frames["everything"], plain)
    assert torch.equal(frames["nothing"], fused)
    assert torch.equal(frames["left"], frames["left, by frame"])
    columns = plain.shape[-1] // 4
    assert torch.equal(frames["left"][..., :columns], plain[..., :columns])
    assert tiny.error(frames["left"][1:, ..., columns:], plain[1:, ..., columns:]) > 0.01


def test_strength_0_is_as_without(parts, to):
    graph = Graph.build(PLAN, parts)
    plain = graph.paint(model=graph.model)
    none = {"strength": 0.0, "end_strength": 0.0}
    assert tiny.error(graph.paint(model=graph.fused(graph.model, to, **none)), plain) < 1e-5
    attending = tiny.patch(graph.model, **LOOK)
    fused = graph.fused(attending, to, **none)
    assert torch.equal(graph.paint(model=fused), graph.paint(model=attending))


def test_the_part_of_the_denoising(parts, to):
    import dataclasses

    graph = Graph.build(dataclasses.replace(PLAN, steps=6, denoise=1.0), parts)
    frames = [
        graph.paint(model=graph.fused(graph.model, to, start_percent=start, end_percent=end))
        for start, end in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))
    ]
    assert tiny.error(frames[1], frames[0]) > 0.01
    assert tiny.error(frames[2], frames[0]) > 0.01


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_the_strength_falls_evenly_over_the_denoising(parts, family):
    """Seen on what the node gives the step operation at the noise levels of equal parts."""
    import dataclasses

    from crossframe.hosts.comfy.orders.frame_by_frame import FrameByFrame
    from crossframe.hosts.comfy.run.comfy_run import new_run

    graph = Graph.build(dataclasses.replace(PLAN, family=family), parts)
    ends = {"strength": 0.9, "end_strength": 0.3, "start_percent": 0.2, "end_percent": 0.8}
    model = graph.fused(graph.model, "keyframes", **ends)
    run = new_run(bench.guider(model, graph.conds, 1.0), graph.latent["samples"], FrameByFrame)
    sampling = model.get_model_object("model_sampling")
    found = [run.keeps.strength(float(sampling.percent_to_sigma(n / 10))) for n in range(1, 10)]
    assert found == pytest.approx([None, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, None], abs=2e-3)


@pytest.mark.parametrize("frame_by_frame", [False, True])
@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_before_or_after_cross_frame_attention(parts, family, frame_by_frame):
    import dataclasses

    graph = Graph.build(dataclasses.replace(PLAN, family=family), parts)
    after = graph.fused(tiny.patch(graph.model, **LOOK), "first + previous")
    before = tiny.patch(graph.fused(graph.model, "first + previous"), **LOOK)
    frames = [graph.paint(frame_by_frame, model) for model in (before, after)]
    assert torch.equal(*frames)
    alone = graph.paint(frame_by_frame, graph.fused(graph.model, "first + previous"))
    assert tiny.error(frames[0], alone) > 3e-4


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_clip_in_parts(parts, to, attends, sampler):
    """A state brings what frames are fused to, in memory and from a file."""
    import dataclasses

    plan = dataclasses.replace(PLAN, sampler=sampler, noise_mask=CLIP)
    graph = Graph.build(plan, parts)
    model = graph.fused(graph.model, to, keyframes="0, 2" if to == "keyframes" else "")
    if attends:
        model = tiny.patch(model, **LOOK)
    whole = graph.paint(True, model)
    cut = graph.part(0, 4)
    first = cut.sample(True, fitting(model, 4), keep_state=True)
    rest = graph.part(4, 6).paint(True, model, state=first[2])
    assert torch.equal(torch.cat([first[0]["samples"], rest]), whole)


def fitting(model, frames):
    """The MODEL with the motion of the first frames alone."""
    import dataclasses

    from crossframe.hosts.comfy.attach import attach_settings

    settings = tiny.settings_of(model)
    motion = dataclasses.replace(settings.fusion.motion, frames=frames)
    fusion = dataclasses.replace(settings.fusion, motion=motion)
    return attach_settings(model, dataclasses.replace(settings, fusion=fusion))


def test_keyframes_of_the_motion_beyond_a_part_wait_for_the_next(parts):
    """The motion is that of the whole clip, and so are its keyframes."""
    graph = Graph.build(PLAN, parts)
    whole = Moving(6, PLAN.size, (0, 3, 5))
    found, named = (
        graph.fused(graph.model, "keyframes", motion=whole, keyframes=keyframes)
        for keyframes in ("", "0, 3")
    )
    state = graph.part(0, 2).sample(True, fitting(found, 2), keep_state=True)[2]
    frames = [graph.part(2, 4).paint(True, model, state=state) for model in (found, named)]
    assert torch.equal(*frames)


def test_a_state_of_frames_without_attention_says_so(parts):
    graph = Graph.build(PLAN, parts)
    fused = graph.fused(graph.model, "first + previous")
    state = graph.part(0, 4).sample(True, fitting(fused, 4), keep_state=True)[2]
    bench.refuses(
        lambda: graph.part(4, 6).paint(True, tiny.patch(fused, **LOOK), state=state),
        match=r"'state': it was made with the layers none \(without cross-frame attention\), but",
    )


def test_a_state_in_a_file(parts, monkeypatch, tmp_path):
    from crossframe.hosts.comfy.state.files import read, write

    graph = Graph.build(PLAN, parts)
    model = tiny.patch(graph.fused(graph.model, "first + previous"), **LOOK)
    state = graph.part(0, 4).sample(True, fitting(model, 4), keep_state=True)[2]
    write(state, tmp_path / "state")
    rest = [
        graph.part(4, 6).paint(True, model, state=one) for one in (state, read(tmp_path / "state"))
    ]
    assert torch.equal(*rest)


def test_a_stock_sampler_goes_on_from_a_state(parts, to):
    graph = Graph.build(PLAN, parts)
    keyframes = "0, 2" if to == "keyframes" else ""
    model = graph.fused(graph.model, to, keyframes=keyframes)
    attending = tiny.patch(model, **LOOK)
    state = graph.part(0, 4).sample(True, fitting(attending, 4), keep_state=True)[2]
    expected = graph.part(4, 6).paint(True, attending, state=state)
    continued = tiny.patch(model, **LOOK, state=state)
    assert tiny.error(graph.part(4, 6).paint(False, continued), expected) < 1e-4


def test_an_interrupted_run_goes_on(parts, to, monkeypatch, tmp_path):
    import folder_paths
    from crossframe.hosts.comfy.orders import sampler_nodes
    from crossframe.hosts.comfy.page.notes import Notes
    from crossframe.hosts.comfy.state.record import Record

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(sampler_nodes, "open_record", lambda *_: Record("run", Notes()))
    graph = Graph.build(PLAN, parts)
    model = graph.fused(graph.model, to)
    expected = graph.paint(True, model)
    for painted in (1, 3, 5):

        def stop(number, args):
            if number == PLAN.steps * painted:  # noqa: B023
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            graph.paint(True, bench.spied(model, stop)[0], resume=True)
        spied, calls = bench.spied(model)
        assert torch.equal(graph.paint(True, spied, resume=True), expected)
        assert len(calls) == PLAN.steps * (6 - painted)


def test_memory_does_not_grow_with_the_clip(parts):
    """Frame by frame, two predictions are kept for every step."""
    from crossframe.latents.fusion import Fusion

    graph = Graph.build(PLAN, parts)
    most = []
    call = Fusion.__call__

    def watched(self, x0, step):
        result = call(self, x0, step)
        most.append(sum(map(len, self.kept.values())))
        return result

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(Fusion, "__call__", watched)
        graph.paint(True, graph.fused(graph.model, "first + previous"))
    assert max(most) <= 2 * PLAN.steps


WRONG = {
    "no motion": (
        {"motion": torch.zeros(3)},
        r"'motion': it is not the motion of a clip, but a Tensor.* CrossFrameMotion",
    ),
    "empty part": ({"start_percent": 0.8}, r"'start_percent': the range from 0.8 to 0.8 is empty"),
    "words": ({"keyframes": "0, last"}, r"'keyframes': 'last' is not the number of a frame"),
    "keyframes without need": (
        {"to": "first + previous", "keyframes": "0"},
        r"'keyframes': frames are fused to 'first \+ previous', so keyframes do nothing",
    ),
    "no keyframes": (
        {"motion": Moving(6, (8, 8), ())},
        r"'keyframes': there are none, neither here nor in the motion",
    ),
    "masks of other frames": (
        {"foreground": torch.zeros(3, 8, 8)},
        r"'foreground': it has 3 masks for a clip of 6 frames\. Give 1 for all frames, or 6",
    ),
    "no mask": ({"foreground": "left"}, r"'foreground': it is not a mask"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_refused_by_the_node(parts, name):
    inputs, words = WRONG[name]
    graph = Graph.build(PLAN, parts)
    with pytest.raises(ValueError, match=rf"^CrossFrameFusion: input {words}"):
        graph.fused(graph.model, **{"to": "keyframes", **inputs})


def test_two_fusions_are_refused(parts):
    graph = Graph.build(PLAN, parts)
    with pytest.raises(ValueError, match=r"^CrossFrameFusion: input 'model': its frames are alr"):
        graph.fused(graph.fused(graph.model, "keyframes"), "keyframes")


def test_a_video_model_is_refused(parts):
    import types

    import comfy.model_base

    base = object.__new__(comfy.model_base.WAN21)
    object.__setattr__(base, "diffusion_model", None)
    model = types.SimpleNamespace(model=base, model_options={})
    graph = Graph.build(PLAN, parts)
    with pytest.raises(ValueError, match=r"^CrossFrameFusion: input 'model': WAN21 is a video mod"):
        graph.fused(model, "keyframes")


MISFIT = {
    "another number of frames": (
        {"motion": Moving(5, PLAN.size)},
        r"'motion': it is that of 5 frames, but the clip has 6",
    ),
    "another shape": (
        {"motion": Moving(6, (8, 11))},
        r"'motion': it is that of pictures of 11 x 8 pixels, but the latents have",
    ),
    "keyframes beyond the clip": (
        {"keyframes": "0, 6"},
        r"'keyframes': frame 6 is beyond the clip, whose last frame here is 5",
    ),
}


@pytest.mark.parametrize("frame_by_frame", [False, True])
@pytest.mark.parametrize("name", MISFIT)
def test_what_does_not_fit_the_clip_is_refused_before_sampling(parts, name, frame_by_frame):
    inputs, words = MISFIT[name]
    graph = Graph.build(PLAN, parts)
    model = graph.fused(graph.model, "keyframes", **inputs)
    words = rf"^CrossFrameFusion: input {words}"
    bench.refuses(lambda: graph.paint(frame_by_frame, model), match=words)


@pytest.mark.parametrize(
    ("references", "to", "other"),
    [
        ("previous", "keyframes", "first + previous"),
        ("keyframes", "first + previous", "keyframes"),
    ],
)
def test_frames_that_would_have_to_be_painted_together_are_refused(parts, references, to, other):
    """Frame by frame; a stock sampler can do it, and so can what the error advises."""
    graph = Graph.build(PLAN, parts)
    keyframes = {"keyframes": "0, 5"}

    def model(to):
        look = keyframes if references == "keyframes" else {}
        attending = tiny.patch(graph.model, references=references, layers="all", **look)
        return graph.fused(attending, to, **(keyframes if to == "keyframes" else {}))

    words = (
        r"^CrossFrameFusion: input 'to': frame by frame, frames cannot be fused to "
        rf"'{re.escape(to)}'.*set to to '{re.escape(other)}'"
    )
    bench.refuses(lambda: graph.paint(True, model(to)), match=words)
    assert torch.isfinite(graph.paint(False, model(to))).all()
    assert torch.isfinite(graph.paint(True, model(other))).all()


def test_a_state_without_fusion_is_refused(parts):
    graph = Graph.build(PLAN, parts)
    attending = tiny.patch(graph.model, **LOOK)
    state = graph.part(0, 4).sample(True, attending, keep_state=True)[2]
    model = graph.fused(attending, "first + previous")
    bench.refuses(
        lambda: graph.part(4, 6).paint(True, model, state=state),
        match=r"'state': it was made without fusion, but this run is made with frames fused to",
    )


def test_keyframes_that_a_state_does_not_hold_are_refused(parts):
    graph = Graph.build(PLAN, parts)
    model = graph.fused(graph.model, "keyframes", keyframes="0, 2")
    state = graph.part(0, 4).sample(True, fitting(model, 4), keep_state=True)[2]
    other = graph.fused(graph.model, "keyframes", keyframes="0, 3")
    bench.refuses(
        lambda: graph.part(4, 6).paint(True, other, state=state),
        match=r"^CrossFrameFusion: input 'keyframes': frames are fused to frame 3, of which the",
    )


def test_what_is_done_is_said(parts):
    graph = Graph.build(PLAN, parts)
    model = graph.fused(graph.model, "first + previous")
    report = tiny.frame_output(model, *graph.conds, graph.latent, steps=1).ui["text"]
    assert any(
        "fused to first + previous by 100% to 50%; from 0% to 80%" in line for line in report
    )


def test_latents_with_a_moment(parts):
    """5-D latents of one moment are warped as pictures."""
    family = FAMILIES["qwen_image"]
    graph = Graph.build(Plan(family="qwen_image", frames=3, attends=False), parts)
    assert graph.latent["samples"].ndim == 5
    fused = graph.paint(model=graph.fused(graph.model, "first + previous"))
    assert fused.shape == graph.latent["samples"].shape
    assert family.size
