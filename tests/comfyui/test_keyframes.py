"""Keyframes: painted together, looked at by all frames, in both orders and over several runs.

That both orders and all batches give the same frames is in `test_invariance.py`.
"""

import bench
import pytest
import tiny
import torch
from families import FAMILIES
from graphs import Graph, Plan

KEYFRAMES = {"references": "keyframes", "layers": "all"}


def test_keyframes_see_one_another_and_all_others_see_them(sd15, prompts):
    """A change of a keyframe reaches every frame; a change of another frame only itself."""
    patched = tiny.patch(sd15, **KEYFRAMES, keyframes="1, 3")
    latent = tiny.clip(5)
    frames = tiny.ksampler(patched, *prompts, latent, steps=2)
    for changed, reached in ((0, {0}), (1, {0, 1, 2, 3, 4}), (3, {0, 1, 2, 3, 4}), (4, {4})):
        other = {"samples": latent["samples"].clone()}
        other["samples"][changed] += 1
        found = tiny.ksampler(patched, *prompts, other, steps=2)
        moved = {i for i in range(5) if tiny.error(found[i : i + 1], frames[i : i + 1]) > 1e-3}
        assert moved == reached


@pytest.mark.parametrize("frame_by_frame", [False, True])
@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_the_same_frames_as_a_batch_of_keyframes_alone(parts, family, frame_by_frame):
    """Keyframes see nothing else, so without the other frames they come out the same."""
    graph = Graph.build(Plan(family=family, frames=5, frame_noise=tiny.SAME), parts)
    patched = tiny.patch(graph.model, **KEYFRAMES, keyframes="0, 1, 2")
    whole = graph.paint(frame_by_frame, patched)
    alone = graph.part(0, 3).paint(frame_by_frame, patched)
    assert tiny.error(whole[:3], alone) < 1e-4


def test_empty_means_the_first_the_middle_and_the_last_frame(sd15, prompts):
    latent = tiny.clip(6)

    def paint(**inputs):
        return tiny.ksampler(tiny.patch(sd15, **KEYFRAMES, **inputs), *prompts, latent, steps=2)

    assert torch.equal(paint(), paint(keyframes="0, 2, 5"))
    scenes = {"scene_starts": "2"}
    assert torch.equal(paint(**scenes), paint(keyframes="0, 1, 2, 4, 5", **scenes))


def test_what_is_painted_is_said_on_the_node(sd15, prompts):
    latent = tiny.clip(6)
    patched = tiny.patch(sd15, **KEYFRAMES)
    report = tiny.frame_output(patched, *prompts, latent, steps=1).ui["text"]
    assert any("Keyframes: 0, 2, 5." in line for line in report)


def test_scenes_keep_their_keyframes_apart(sd15, prompts):
    """Each scene is painted as if it were a clip of its own."""
    plan = {**KEYFRAMES, "scene_starts": "3", "keyframes": "0, 1, 4"}
    patched = tiny.patch(sd15, **plan)
    latent = tiny.clip(6)
    frames = tiny.ksampler(patched, *prompts, latent, steps=2)
    other = {"samples": latent["samples"].clone()}
    other["samples"][:3] += 1
    assert torch.equal(tiny.ksampler(patched, *prompts, other, steps=2)[3:], frames[3:])


@pytest.mark.parametrize("references", ["keyframes", "keyframes + previous"])
def test_a_clip_in_parts(parts, references):
    """A later part looks at the keyframes of earlier ones, and has some of its own."""
    graph = Graph.build(Plan(frames=6, frame_noise=tiny.SAME), parts)

    def patched(keyframes, **inputs):
        chosen = {"references": references, "layers": "all", "keyframes": keyframes}
        return tiny.patch(graph.model, **chosen, **inputs)

    whole = graph.paint(True, patched("0, 2"))
    first, _, state = graph.part(0, 4).sample(True, patched("0, 2"), keep_state=True)
    assert state.held == {0, 2, *([3] if "previous" in references else [])}
    rest = graph.part(4, 6).paint(True, patched("0, 2"), state=state)
    assert torch.equal(torch.cat([first["samples"], rest]), whole)
    more = graph.part(4, 6).paint(True, patched("0, 2, 5"), state=state)
    assert tiny.error(more, rest) > 0.003
    again = graph.part(4, 6).paint(model=patched("0, 2, 5", state=state))
    assert tiny.error(again, more) < 1e-4


def test_a_transformers_keyframes_share_one_call():
    family = FAMILIES["flux"]
    model = family.model()
    patched = tiny.patch(model, **KEYFRAMES, keyframes="0, 3")
    spied, calls = bench.spied(patched)
    prompts = family.prompt(1), family.prompt(2)
    tiny.frame_ksampler(spied, *prompts, family.clip(4), steps=2)
    assert max(call.rows for call in calls) == 4  # two frames, two prompts


WRONG = {
    "words": ({"keyframes": "0, last"}, r"'keyframes': 'last' is not the number of a frame"),
    "negative": ({"keyframes": "-1"}, r"'keyframes': '-1' is not the number of a frame"),
    "without the references": (
        {"references": "first", "keyframes": "0, 2"},
        r"'keyframes': with the references 'first' nobody looks at keyframes.* choose 'keyframes'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_keyframes_are_refused_by_the_node(sd15, name):
    inputs, words = WRONG[name]
    with pytest.raises(ValueError, match=rf"^CrossFrameAttention: input {words}"):
        tiny.patch(sd15, **{**KEYFRAMES, **inputs})


@pytest.mark.parametrize("order", tiny.ORDERS)
def test_keyframes_beyond_the_clip_are_refused_before_sampling(sd15, prompts, order):
    patched = tiny.patch(sd15, **KEYFRAMES, keyframes="0, 4, 9")
    words = r"'keyframes': frame 4 is beyond the clip, whose last frame here is 3"
    sample = tiny.ORDERS[order]
    bench.refuses(lambda: sample(patched, *prompts, tiny.clip(4), steps=2), match=words)


def test_keyframes_that_cannot_be_chosen_or_are_not_kept(parts):
    graph = Graph.build(Plan(frames=6), parts)

    def patched(keyframes):
        return tiny.patch(graph.model, **KEYFRAMES, keyframes=keyframes)

    state = graph.part(0, 4).sample(True, patched("0, 2"), keep_state=True)[2]
    for keyframes, words in (
        ("", r"'keyframes': there are none, and they can only be chosen for a clip that begins"),
        ("0, 1, 2", r"'state': the frames from 4 on attend to frame 1, but nothing is kept"),
    ):
        bench.refuses(
            lambda: graph.part(4, 6).paint(True, patched(keyframes), state=state),  # noqa: B023
            match=words,
        )
