"""Cross-Frame Keyframes and Cross-Frame Propagate, on the motion that the pack estimates."""

import pytest
import torch
from crossframe.demo import world
from crossframe.demo.looks import random_look

FRAMES = 9


@pytest.fixture(scope="module")
def source():
    clip = world.random_clip(FRAMES, torch.Generator().manual_seed(905))
    return world.render(clip, world.PLAIN).movedim(1, -1)


@pytest.fixture(scope="module")
def look():
    from random import Random

    clip = world.random_clip(FRAMES, torch.Generator().manual_seed(905))
    return world.render(clip, random_look(Random(2))[0]).movedim(1, -1)


@pytest.fixture(scope="module")
def motion(source):
    from crossframe.nodes.motion import CrossFrameMotion

    return CrossFrameMotion.execute(source, "built in").args[0]


def pick(source, motion, every=4, keyframes=""):
    from crossframe.nodes.propagate import CrossFrameKeyframes

    return CrossFrameKeyframes.execute(source, motion, every, keyframes).args


def spread(images, source, motion, keyframes=""):
    from crossframe.nodes.propagate import CrossFramePropagate

    return CrossFramePropagate.execute(images, source, motion, keyframes).args[0]


def test_keyframes_are_every_nth_and_the_last(source, motion):
    images, chosen, numbers = pick(source, motion, 4)
    assert numbers == "0, 4, 8"
    assert torch.equal(images, source[[0, 4, 8]])
    assert chosen.frames == 3
    assert pick(source, motion, 5)[2] == "0, 5, 8"
    assert pick(source, motion, 99)[2] == "0, 8"
    assert pick(source, motion, 1)[2] == "0, 1, 2, 3, 4, 5, 6, 7, 8"
    assert pick(source, motion, 4, "1, 6")[2] == "1, 6"


def test_keyframes_stay_and_the_rest_follows(source, look, motion):
    numbers = [0, 4, 8]
    found = spread(look[numbers], source, motion, "0, 4, 8")
    assert found.shape == look.shape
    assert torch.equal(found[numbers], look[numbers])
    between = [1, 2, 3, 5, 6, 7]
    held = torch.stack([look[4 * round(n / 4)] for n in between])
    errors = [(frames - look[between]).square().mean() for frames in (found[between], held)]
    assert errors[0] < 0.5 * errors[1]


def test_keyframes_in_the_middle_alone(source, look, motion):
    """Before the first and after the last one, frames come from one side."""
    found = spread(look[[3, 5]], source, motion, "3, 5")
    assert torch.equal(found[[3, 5]], look[[3, 5]])
    assert found.isfinite().all()
    assert (found[0] - look[0]).square().mean() < (look[3] - look[0]).square().mean()


def test_without_numbers_they_are_those_of_the_motion(source, look, motion):
    numbers = list(motion.keyframes)
    named = ", ".join(map(str, numbers))
    assert torch.equal(
        spread(look[numbers], source, motion), spread(look[numbers], source, motion, named)
    )


def test_keyframes_of_another_size(source, look, motion):
    """They may have been painted larger than the source."""
    large = torch.nn.functional.interpolate(look.movedim(-1, 1), scale_factor=2).movedim(1, -1)
    found = spread(large[[0, 4, 8]], source, motion, "0, 4, 8")
    assert found.shape == (FRAMES, 128, 128, 3)
    assert torch.equal(found[4], large[4])
    small = torch.nn.functional.avg_pool2d(found.movedim(-1, 1), 2).movedim(1, -1)
    assert (small - look).square().mean() < 0.01


def test_an_alpha_channel_is_left_out(source, look, motion):
    alpha = torch.ones(3, 64, 64, 1)
    with_alpha = torch.cat([look[[0, 4, 8]], alpha], dim=-1)
    found = spread(with_alpha, source, motion, "0, 4, 8")
    assert torch.equal(found, spread(look[[0, 4, 8]], source, motion, "0, 4, 8"))


def test_progress_and_cancel(source, look, motion):
    import comfy.model_management
    import comfy.utils

    states = []
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: states.append(value))
    try:
        spread(look[[0, 8]], source, motion, "0, 8")
        assert states[-1] == FRAMES
        comfy.model_management.interrupt_current_processing()
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            spread(look[[0, 8]], source, motion, "0, 8")
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
        comfy.model_management.interrupt_current_processing(False)


def test_frames_do_not_depend_on_other_keyframes(source, look, motion):
    """A frame is made of the keyframes beside it, so a clip in pieces has the same frames."""
    whole = spread(look[[0, 4, 8]], source, motion, "0, 4, 8")
    changed = look[[0, 4, 8]].clone()
    changed[2] = 0
    found = spread(changed, source, motion, "0, 4, 8")
    assert torch.equal(found[:5], whole[:5])
    assert not torch.equal(found[5:], whole[5:])
    assert torch.equal(spread(look[[0, 4, 8]], source, motion, "0, 4, 8"), whole)


def test_inputs_stay_as_they_are(source, look, motion):
    painted, before = look[[0, 8]], source.clone()
    spread(painted, source, motion, "0, 8")
    assert torch.equal(painted, look[[0, 8]])
    assert torch.equal(source, before)


def test_pictures_in_half_precision_and_grey_ones(source, look, motion):
    """Keyframes are exactly as they came, whatever their kind."""
    half = look[[0, 8]].half()
    found = spread(half, source, motion, "0, 8")
    assert torch.equal(found[[0, 8]], half.float())
    grey = look[[0, 8], ..., :1]
    found = spread(grey, source, motion, "0, 8")
    assert torch.equal(found[[0, 8]], grey.expand(-1, -1, -1, 3))
    assert found[4].std(dim=-1).max() < 1e-5


def test_memory_grows_by_the_output_alone():
    """A long clip needs no more working memory than a short one."""
    from crossframe.benchmarks.measures import peak_bytes
    from crossframe.demo.exact_motion import ExactMotion

    def most(frames):
        clip = world.random_clip(frames, torch.Generator().manual_seed(905))
        source = world.render(clip, world.PLAIN).movedim(1, -1)
        ends = source[[0, -1]]
        keyframes = f"0, {frames - 1}"
        made = peak_bytes(lambda: spread(ends, source, ExactMotion(clip), keyframes))
        return made - source.nbytes

    assert most(40) <= 1.05 * most(8)


WRONG = {
    "too few pictures": (
        {"keyframes": "0, 4, 8"},
        r"'images': there are 2, but 3 keyframes \(0, 4, 8\)",
    ),
    "beyond": ({"keyframes": "0, 9"}, r"'keyframes': frame 9 is beyond the clip, whose last .* 8"),
    "no order": ({"keyframes": "8, 0"}, r"'keyframes': '8, 0' is not in order"),
    "twice": (
        {"keyframes": "8, 8"},
        r"'keyframes': '8, 8' is not in order, or names a frame twice",
    ),
    "words": ({"keyframes": "0, last"}, r"'keyframes': 'last' is not the number of a frame"),
    "another clip": (
        {"source": torch.zeros(4, 64, 64, 3)},
        r"'motion': it is that of 9 frames, but source has 4",
    ),
    "another shape": (
        {"source": torch.zeros(9, 64, 128, 3)},
        r"'motion': .* 64 x 64 pixels, but source has pictures of 128 x 64",
    ),
    "pictures of another shape": (
        {"images": torch.zeros(2, 64, 128, 3)},
        r"'images': they have 128 x 64 pixels, but source has 64 x 64",
    ),
    "nan": (
        {"images": torch.full((2, 64, 64, 3), torch.nan)},
        r"'images': picture 0, counted from 0, has values that are nan or infinite",
    ),
    "pictures that are no batch": (
        {"images": torch.zeros(64, 64, 3)},
        r"'images': it is not a batch of pictures",
    ),
    "pictures of two channels": (
        {"images": torch.zeros(2, 64, 64, 2)},
        r"'images': it is not a batch of pictures, but has the shape \(2, 64, 64, 2\)",
    ),
    "no motion": ({"motion": torch.zeros(2)}, r"'motion': it is not the motion of a clip"),
    "one picture that is no batch": (
        {"source": torch.zeros(64, 64, 3)},
        r"'source': it is not a batch of pictures",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(source, look, motion, name):
    changed, words = WRONG[name]
    inputs = {"images": look[[0, 8]], "source": source, "motion": motion, "keyframes": "0, 8"}
    with pytest.raises(ValueError, match=rf"^CrossFramePropagate: input {words}"):
        spread(**{**inputs, **changed})


def test_the_motion_of_keyframes_is_no_motion_of_the_clip(source, look, motion):
    chosen = pick(source, motion, 4)[1]
    with pytest.raises(ValueError, match=r"'motion': it is that of 3 frames.* That of CrossFrameK"):
        spread(look[[0, 4, 8]], source, chosen, "0, 4, 8")


def test_without_keyframes_anywhere(source, look, motion):
    with pytest.raises(ValueError, match=r"'keyframes': there are none, neither here nor in the m"):
        spread(look[[0, 8]], source, motion.motion)


def test_bad_input_comes_before_any_work(source, look, motion, monkeypatch):
    from crossframe.motion import EstimatedMotion

    monkeypatch.setattr(EstimatedMotion, "between", None)
    broken = look[[0, 8]].clone()
    broken[1, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"'images': picture 1, counted from 0"):
        spread(broken, source, motion, "0, 8")


def test_bad_input_of_keyframes(source, motion):
    with pytest.raises(ValueError, match=r"^CrossFrameKeyframes: input 'motion': .* source has 3"):
        pick(source[:3], motion)
    with pytest.raises(ValueError, match=r"^CrossFrameKeyframes: input 'keyframes': frame 12 is b"):
        pick(source, motion, 4, "0, 12")
