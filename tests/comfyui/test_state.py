"""A state: what a run leaves, so that later frames go on as if there had been no break."""

import dataclasses
import functools
import gc
import itertools
import re
import weakref

import bench
import pytest
import tiny
import torch
from bench import refuses
from clips import FRAMES, Clip
from tiny import DIFFERENT, SAME


@pytest.fixture(scope="module")
def clip(sd15, canny):
    return Clip.of(tiny.patch(sd15), canny)


@pytest.fixture(scope="module")
def whole(clip):
    """A function that gives the frames of the clip in one go. Each is painted once."""

    @functools.cache
    def paint(sampler="euler", noise=DIFFERENT):
        with torch.inference_mode():
            return clip.paint(sampler=sampler, frame_noise=noise)[0]

    return paint


@pytest.fixture(scope="module")
def anchor(clip):
    """(frame 0, the state it leaves)."""
    with torch.inference_mode():
        return clip.paint(0, 1)


@pytest.mark.parametrize("noise", [SAME, DIFFERENT])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde", "ddim"])
@pytest.mark.parametrize("cuts", [(1,), (3,), (2, 5)], ids=str)
def test_a_clip_in_pieces_is_the_clip_in_one(clip, whole, cuts, sampler, noise):
    """The frames are equal bit for bit, with hints, masks, prompts and every kind of noise."""
    edges = [0, *cuts, FRAMES]
    state, pieces = None, []
    for first, stop in itertools.pairwise(edges):
        painted, state = clip.paint(first, stop, sampler, frame_noise=noise, state=state)
        pieces.append(painted)
    assert torch.equal(torch.cat(pieces), whole(sampler, noise))
    assert state.frames == FRAMES


@pytest.mark.parametrize("references", ["first", "previous"])
@pytest.mark.parametrize("include_self", [False, True])
def test_every_policy_goes_on(sd15, canny, references, include_self):
    model = tiny.patch(sd15, references=references, include_self=include_self, layers="all")
    clip = Clip.of(model, canny)
    whole, _ = clip.paint()
    start, state = clip.paint(0, 4)
    assert torch.equal(torch.cat((start, clip.paint(4, state=state)[0])), whole)
    assert state.held == {"first": {0}, "previous": {3}}[references]


def test_without_its_state_a_piece_comes_out_otherwise(clip, whole):
    """The test above can fail."""
    assert tiny.error(clip.paint(3)[0], whole()[3:]) > 0.1


@pytest.mark.parametrize("precision", ["as computed", "int8 per token"])
@pytest.mark.parametrize("device", ["with the model", "system memory"])
def test_however_the_bank_is_kept(sd15, canny, device, precision):
    clip = Clip.of(tiny.patch(sd15, bank_device=device, bank_precision=precision), canny)
    whole, _ = clip.paint()
    start, state = clip.paint(0, 3)
    assert torch.equal(torch.cat((start, clip.paint(3, state=state)[0])), whole)


def test_custom_sampling_goes_on(sd15, prompts):
    latent = tiny.clip(FRAMES)["samples"]
    guider = bench.guider(tiny.patch(sd15), prompts, 3.0)

    def paint(first, stop, state=None):
        part = {"samples": latent[first:stop]}
        painted, x0, state = bench.custom_output(
            guider, "euler_ancestral", (6.0, 3.0, 1.0, 0.0), part, state=state
        ).args
        return painted["samples"], x0["samples"], state

    whole, whole_x0, _ = paint(0, FRAMES)
    start, start_x0, state = paint(0, 2)
    rest, rest_x0, _ = paint(2, FRAMES, state)
    assert torch.equal(torch.cat((start, rest)), whole)
    assert torch.equal(torch.cat((start_x0, rest_x0)), whole_x0)


def test_a_latent_that_says_which_frames_it_holds_gets_their_noise(sd15, prompts):
    """LatentFromBatch leaves such latents; they work with and without a state."""
    import nodes

    model = tiny.patch(sd15)
    latent = tiny.clip(FRAMES)
    whole = tiny.frame_ksampler(model, *prompts, latent)
    start, rest = (nodes.LatentFromBatch().frombatch(latent, *at)[0] for at in ((0, 2), (2, 4)))
    painted, state = _frames(model, prompts, start)
    assert torch.equal(painted, whole[:2])
    painted, _ = _frames(model, prompts, rest, state=state)
    assert torch.equal(painted, whole[2:])


@pytest.mark.parametrize("frames_per_batch", [0, 2])
def test_stock_samplers_go_on_from_a_state(sd15, prompts, frames_per_batch):
    """All frames per step after a state give the same frames as one go."""
    import nodes

    model = tiny.patch(sd15)
    latent = tiny.clip(FRAMES)
    whole = tiny.frame_ksampler(model, *prompts, latent, "dpmpp_sde")
    start = nodes.LatentFromBatch().frombatch(latent, 0, 2)[0]
    rest = nodes.LatentFromBatch().frombatch(latent, 2, 4)[0]
    _, state = _frames(model, prompts, start, sampler_name="dpmpp_sde")
    after = tiny.patch(sd15, state=state, frames_per_batch=frames_per_batch)
    painted = tiny.ksampler(after, *prompts, rest, "dpmpp_sde")
    assert tiny.error(painted, whole[2:]) < 1e-4
    painted = tiny.frame_ksampler(after, *prompts, rest, "dpmpp_sde")
    assert torch.equal(painted, whole[2:])


def _frames(model, prompts, latent, **inputs):
    """CrossFrameKSampler: (samples, state)."""
    painted, state = tiny.frame_output(model, *prompts, latent, **inputs).args
    return painted["samples"], state


def test_scenes_begin_anew_in_both_orders(sd15, prompts, sample):
    """A scene is what a clip of its own would be, but for the noise, which goes on."""
    latent = tiny.clip(FRAMES)
    model = tiny.patch(sd15, scene_starts="2, 5", frames_per_batch=4)
    painted = sample(model, *prompts, latent)
    plain = tiny.patch(sd15)
    alone = [
        sample(plain, *prompts, {"samples": latent["samples"][a:b], "batch_index": [*range(a, b)]})
        for a, b in ((0, 2), (2, 5), (5, 6))
    ]
    assert tiny.error(painted, torch.cat(alone)) < 1e-4
    assert tiny.error(painted[2:], sample(plain, *prompts, latent)[2:]) > 0.1


def test_a_scene_that_began_before_the_break_goes_on(sd15, canny):
    clip = Clip.of(tiny.patch(sd15, scene_starts="2"), canny)
    whole, _ = clip.paint()
    start, state = clip.paint(0, 4)
    assert torch.equal(torch.cat((start, clip.paint(4, state=state)[0])), whole)
    assert (state.scene, state.held) == (2, {2, 3})


def test_start_anew_at_a_cut(clip, sd15, canny):
    """It is as if scene_starts had named the cut, and later pieces keep to it."""
    whole, _ = Clip.of(tiny.patch(sd15, scene_starts="3"), canny).paint()
    start, state = clip.paint(0, 3)
    middle, state = clip.paint(3, 5, state=state, anchor="start anew")
    rest, _ = clip.paint(5, state=state)
    assert torch.equal(torch.cat((start, middle, rest)), whole)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_sde", "ddim"])
def test_parts_that_lie_apart_are_painted_from_one_anchor(sd15, canny, sampler):
    """Two machines could paint them. With `first` the frames are exact, also their noise."""
    clip = Clip.of(tiny.patch(sd15, references="first"), canny)
    whole, _ = clip.paint(sampler=sampler)
    start, anchor = clip.paint(0, 1, sampler=sampler)
    last, _ = clip.paint(4, sampler=sampler, state=anchor, first_frame=4)
    middle, _ = clip.paint(1, 4, sampler=sampler, state=anchor)
    assert torch.equal(torch.cat((start, middle, last)), whole)


def test_a_part_that_lies_apart_counts_scenes_in_the_whole_clip(sd15, canny):
    clip = Clip.of(tiny.patch(sd15, references="first", scene_starts="5"), canny)
    whole, _ = clip.paint()
    _, anchor = clip.paint(0, 1)
    part, state = clip.paint(4, state=anchor, first_frame=4)
    assert torch.equal(part, whole[4:])
    assert (state.frames, state.scene) == (6, 5)


def test_over_a_gap_the_last_painted_frame_is_the_previous_one(sd15, canny):
    """Frame 0, seen as first and as previous frame, weighs as it does alone."""
    first, both = (
        Clip.of(tiny.patch(sd15, references=references), canny)
        for references in ("first", "first + previous")
    )
    painted, _ = both.paint(3, 5, state=both.paint(0, 1)[1], first_frame=3)
    alone, _ = first.paint(3, 5, state=first.paint(0, 1)[1], first_frame=3)
    assert tiny.error(painted[:1], alone[:1]) < 1e-4
    assert tiny.error(painted[1:], alone[1:]) > 0.1


def test_a_gap_changes_nothing_but_numbers(clip):
    """If all frames share one noise, numbers change nothing and the gap does not matter."""
    _, state = clip.paint(0, 2, frame_noise=SAME)
    near, _ = clip.paint(4, state=state, frame_noise=SAME)
    apart, _ = clip.paint(4, state=state, frame_noise=SAME, first_frame=4)
    assert torch.equal(near, apart)


def test_stock_samplers_paint_a_part_that_lies_apart(sd15, prompts):
    """What the sampler adds on its way goes by the number of the frame, too."""
    import nodes

    latent = tiny.clip(FRAMES)
    start, rest = (nodes.LatentFromBatch().frombatch(latent, *at)[0] for at in ((0, 1), (4, 2)))
    plain = tiny.patch(sd15, references="first")
    whole = tiny.frame_ksampler(plain, *prompts, latent, "dpmpp_sde")
    _, state = _frames(plain, prompts, start, sampler_name="dpmpp_sde")
    after = tiny.patch(sd15, references="first", state=state, first_frame=4)
    assert tiny.error(tiny.ksampler(after, *prompts, rest, "dpmpp_sde"), whole[4:]) < 1e-4


@pytest.mark.parametrize(
    ("first_frame", "with_state", "words"),
    [(3, False, "no state"), (1, True, "after 2 frames")],
    ids=["no state", "painted already"],
)
def test_a_first_frame_that_does_not_fit_is_refused(clip, sd15, first_frame, with_state, words):
    state = clip.paint(0, 2)[1] if with_state else None
    inputs = {"state": state, "first_frame": first_frame}
    refuses(lambda: clip.paint(3, **inputs), "CrossFrameKSampler", "'first_frame'", words)
    refuses(lambda: tiny.patch(sd15, **inputs), "CrossFrameAttention", "'first_frame'", words)


def test_a_reference_comes_out_as_it_is_and_leaves_its_look(sd15, prompts):
    model = tiny.patch(sd15, references="first", layers="all")
    picture, page = tiny.clip(1, seed=1), tiny.clip(1, seed=2)
    for sampler in ("euler", "dpmpp_sde", "heun"):
        inputs = {"sampler_name": sampler, "frame_noise": SAME}
        kept, state = _frames(model, prompts, picture, **inputs, reference_only=True)
        assert tiny.error(kept, picture["samples"]) < 1e-4
        painted, _ = _frames(model, prompts, page, **inputs, state=state)
        _, other = _frames(model, prompts, tiny.clip(1, seed=5), **inputs, reference_only=True)
        assert tiny.error(_frames(model, prompts, page, **inputs, state=other)[0], painted) > 0.1


def test_the_states_of_a_reference_are_those_of_its_noised_latents(sd15, prompts):
    """At every step the model sees the picture with that step's noise, nothing painted."""
    seen = []

    def look(number, args):
        seen.append((args["input"][:1].clone(), float(args["timestep"][0])))

    model, _ = bench.spied(tiny.patch(sd15), look)
    picture = tiny.clip(1)
    inputs = {"frame_noise": SAME, "steps": 3, "reference_only": True}
    tiny.frame_ksampler(model, *prompts, picture, **inputs)
    latent = model.model.process_latent_in(picture["samples"])
    noise = (seen[0][0] - latent) / seen[0][1]
    for x, sigma in seen[1:]:
        assert tiny.error(x, latent + sigma * noise) < 1e-4


CHANGES = {
    "steps": ({"steps": 5}, ("made with 3 steps", "has 5 steps")),
    "scheduler": ({"scheduler": "karras"}, ("noise levels", "scheduler")),
    "denoise": ({"denoise": 0.5}, ("noise levels", "denoise")),
    "sampler": ({"sampler": "heun"}, ("sampler euler", "uses the sampler heun")),
    "cfg 1": ({"cfg": 1.0}, ("1 positive prompt and 1 negative prompt", "has 1 positive prompt.")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_of_another_sampling_is_refused(clip, anchor, change):
    inputs, words = CHANGES[change]
    refuses(
        lambda: clip.paint(1, state=anchor[1], **inputs),
        "CrossFrameKSampler",
        "'state'",
        *words,
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"layers": "all"}, ("the layers 4 output,", "the layers 2 input, 1 middle, 4 output")),
        ({"end_percent": 0.5}, ("from 0 to 1 of the denoising", "acts from 0 to 0.5")),
    ],
    ids=["layers", "part"],
)
def test_a_state_of_other_settings_is_refused(clip, anchor, sd15, canny, changed, words):
    other = Clip.of(tiny.patch(sd15, **changed), canny)
    refuses(lambda: other.paint(1, state=anchor[1]), "'state'", *words)


def test_a_state_of_another_checkpoint_is_refused(anchor, canny):
    other = Clip.of(tiny.patch(tiny.model(seed=5)), canny)
    refuses(
        lambda: other.paint(1, state=anchor[1]), "another checkpoint's weights", "same checkpoint"
    )


def test_a_state_of_another_family_is_refused(anchor, sdxl, prompts):
    model = tiny.patch(sdxl)
    pooled = tiny.prompt(1, 1, True), tiny.prompt(2, 1, True)
    refuses(
        lambda: _frames(model, pooled, tiny.clip(1), state=anchor[1]), "kind BaseModel", "kind SDXL"
    )


def nudged(values, factor):
    """Multiply noise levels by a factor."""
    return tuple(value * factor for value in values)


def made_elsewhere(state, factor):
    """A state as a machine would leave it that rounds in another way."""
    origin = dataclasses.replace(
        state.origin,
        sigmas=nudged(state.origin.sigmas, factor),
        part=nudged(state.origin.part, factor),
    )
    return dataclasses.replace(
        state, noise_levels=nudged(state.noise_levels, factor), origin=origin
    )


@pytest.mark.parametrize("factor", [1 + 2**-23, 1 - 2**-22, 1 + 2**-18], ids=str)
def test_a_state_whose_noise_levels_were_rounded_otherwise_fits(clip, anchor, factor):
    """It fits beforehand and at every step, and the frames are the same bit for bit."""
    expected, _ = clip.paint(1, state=anchor[1])
    painted, state = clip.paint(1, state=made_elsewhere(anchor[1], factor))
    assert torch.equal(painted, expected)
    assert state.frames == FRAMES


@pytest.mark.parametrize("factor", [1 + 1e-4, 0.99], ids=str)
def test_noise_levels_that_differ_are_told_in_digits_that_differ(clip, anchor, factor):
    with pytest.raises(ValueError, match="noise levels") as caught:
        clip.paint(1, state=made_elsewhere(anchor[1], factor))
    (made, now) = re.findall(r"[0-9.]+(?= in)", str(caught.value))
    assert made != now
    assert float(made) / float(now) == pytest.approx(factor, abs=5e-4)


def test_a_step_at_the_edge_of_the_range_acts_however_it_is_rounded(sd15):
    """A start in the middle of the denoising lies on a step of many schedules."""
    from crossframe.attention import PerStep
    from crossframe.hosts.comfy.run.comfy_run import new_run

    guider = bench.guider(tiny.patch(sd15, start_percent=0.25, end_percent=0.75), ([], []))
    facts = new_run(guider, torch.ones(2, 4, 8, 8), PerStep).facts
    for edge in facts.sigmas:
        assert all(facts.is_active(edge * (1 + shift)) for shift in (2**-23, 0, -(2**-23)))
    start, end = facts.sigmas
    assert not facts.is_active(start * 1.001)
    assert not facts.is_active(end * 0.999)


def test_a_state_of_another_size_is_refused(anchor, clip, prompts):
    latent = tiny.clip(2, size=(8, 12))
    refuses(lambda: _frames(clip.model, prompts, latent, state=anchor[1]), "8 x 8", "12 x 8")


def test_a_state_without_the_frames_that_are_needed_is_refused(sd15, canny):
    first, both = (
        Clip.of(tiny.patch(sd15, references=references), canny)
        for references in ("first", "first + previous")
    )
    _, state = first.paint(0, 3)
    refuses(lambda: both.paint(3, state=state), "'state'", "frame 2", "start anew")


def test_a_state_that_was_not_kept_is_refused_by_all_who_read_it(clip, sd15):
    """It must not count as no state."""
    from crossframe.hosts.comfy.state.comfy_state import NOT_KEPT

    assert "not kept" in repr(NOT_KEPT)
    refuses(lambda: clip.paint(1, state=NOT_KEPT), "CrossFrameKSampler", "'state'", "keep_state")
    refuses(lambda: tiny.patch(sd15, state=NOT_KEPT), "CrossFrameAttention", "'state'", "keep_sta")


def test_what_is_no_state_is_refused(clip, sd15):
    """A node that lets everything through may bring anything."""
    for other in (False, torch.ones(1), {"samples": torch.ones(1)}):
        refuses(lambda value=other: clip.paint(1, state=value), "CrossFrameKSampler", "not a state")
        refuses(
            lambda value=other: tiny.patch(sd15, state=value), "CrossFrameAttention", "not a state"
        )


def test_two_states_are_refused(sd15, canny, anchor):
    other = Clip.of(tiny.patch(sd15, state=anchor[1]), canny)
    refuses(lambda: other.paint(1, state=anchor[1]), "'state'", "only one")


@pytest.mark.parametrize("text", ["one", "-3", "4.5", "4; 5"])
def test_scene_starts_that_are_no_frames(sd15, text):
    refuses(lambda: tiny.patch(sd15, scene_starts=text), "scene_starts", "e.g. 40, 95")


def test_a_state_says_what_it_is(anchor):
    text = repr(anchor[1])
    for word in ("1 frames painted", "keeps frame 0", "BaseModel", "4 layers", "euler", "3 steps"):
        assert word in text
    assert "8 x 8" in text
    assert "KiB" in text


def test_a_state_is_as_large_as_its_bank_was_estimated(clip, caplog):
    """What is printed before a run is the size of what is kept."""
    from crossframe.attention.bank import readable_size

    _, state = clip.paint(0, 3)
    assert f"bank of up to {readable_size(state.nbytes)}" in caplog.text


def test_a_state_holds_nothing_of_its_run(clip):
    """A state does not change when a run goes on from it, and it is freed with the graph."""
    _, state = clip.paint(0, 3)
    before = {key: dict(frames) for key, frames in state.stored.items()}
    assert torch.equal(clip.paint(3, state=state)[0], clip.paint(3, state=state)[0])
    assert {key: dict(frames) for key, frames in state.stored.items()} == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.frames = 0
    kept = weakref.ref(next(iter(next(iter(state.stored.values())).values()))[0].values)
    del state, before
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde"])
def test_frames_after_a_state_of_another_seed_still_share_their_noise(sd15, canny, sampler):
    """If all latents and rows are the same, all frames are then the same."""
    clip = Clip.of(tiny.patch(sd15, references="first"), canny)
    same = {
        name: getattr(clip, name)[:1].repeat(FRAMES, *[1] * (getattr(clip, name).ndim - 1))
        for name in ("latent", "tokens", "hints", "masks")
    }
    clip = dataclasses.replace(clip, **same)
    _, state = clip.paint(0, 1, sampler, frame_noise=SAME, seed=1)
    frames, _ = clip.paint(1, FRAMES, sampler, state=state, frame_noise=SAME, seed=2)
    assert tiny.error(frames[1:], frames[:1].expand_as(frames[1:])) < 1e-4


def test_pictures_that_are_only_looked_at_come_out_as_they_are(sd15, prompts):
    """This includes samplers, and parts of the steps, that leave noise in their latents."""
    latent = tiny.clip(2)
    inputs = {"frame_noise": SAME, "reference_only": True, "return_with_leftover_noise": "enable"}
    for more in ({"sampler_name": "uni_pc"}, {"end_at_step": 2}):
        assert torch.equal(
            tiny.frame_ksampler(tiny.patch(sd15), *prompts, latent, **inputs, **more),
            latent["samples"],
        )


def test_prompts_that_find_nothing_in_a_state_are_named_on_the_node(sd15, prompts):
    def paint(area, **inputs):
        positive = [[prompts[0][0][0], {"area": area, "strength": 1.0}], *tiny.prompt(4)]
        inputs |= {"frame_noise": SAME, "keep_state": True}
        return tiny.frame_output(tiny.patch(sd15), positive, prompts[1], tiny.clip(1), **inputs)

    state = paint((4, 4, 0, 0)).args[1]
    assert "nothing to look at" not in paint((4, 4, 0, 0), state=state).ui["text"][0]
    assert "nothing to look at" in paint((4, 8, 0, 0), state=state).ui["text"][0]
