"""The small world's truth, checked on what it paints."""

from random import Random

import pytest
import torch
from crossframe.consistency import colour_spread, layout_accuracy, warp_error
from crossframe.demo import looks, world
from crossframe.demo.judge import PARTS, Truth, diversity
from crossframe.motion import sample

SEEDS = range(8)


def clip_of(seed, frames=24):
    return world.random_clip(frames, torch.Generator().manual_seed(seed))


def look_of(seed):
    return looks.random_look(Random(seed))[0]


def one_object(kind=world.SQUARE, frames=4, **changes):
    """A clip of one object in the middle that stays where it is, but for the changes."""
    settings = {
        "kinds": torch.tensor([kind]),
        "radii": torch.tensor([12.0]),
        "centres": torch.full((frames, 1, 2), 32.0),
        "angles": torch.zeros(frames, 1),
        "pans": torch.zeros(frames, 2),
        "enters": torch.zeros(1, dtype=torch.long),
    }
    return world.Clip(**{**settings, **changes})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lag", [1, 8])
def test_a_perfect_edit_has_no_error(seed, lag):
    clip = clip_of(seed)
    frames = world.render(clip, look_of(seed))
    motion = world.correspondence(clip, lag)
    assert motion.valid.float().mean() > 0.2
    assert warp_error(frames, motion).nanmean() < 1e-7
    everywhere = world.correspondence(clip, lag, pure=False)
    assert (everywhere.valid >= motion.valid).all()
    assert everywhere.valid.float().mean() > 0.6
    assert 1e-6 < warp_error(frames, everywhere).nanmean() < 5e-3  # edges, sampled bilinearly


@pytest.mark.parametrize("seed", SEEDS)
def test_a_point_shows_the_same_object_where_it_has_moved_to(seed):
    clip = clip_of(seed)
    instance, part = world.labels(clip)
    motion = world.correspondence(clip, 5)
    ids = torch.where(instance >= 0, instance, 1000).float()[:, None]
    there = sample(ids[motion.later], motion.points)[:, 0]
    here = ids[motion.earlier, 0]
    assert torch.allclose(there[motion.valid], here[motion.valid], atol=1e-3)
    frames = world.render(clip, look_of(seed))
    assert layout_accuracy(frames, part, PARTS).min() > 0.999
    painted = frames.permute(0, 2, 3, 1)[part >= 0]
    assert torch.allclose(painted, look_of(seed).flatten(0, 1)[part[part >= 0]], atol=1e-5)


def test_motion_is_that_of_the_object():
    frames = 4
    centres = torch.stack((32 + 3.0 * torch.arange(frames), torch.full((frames,), 32.0)), -1)
    motion = world.correspondence(one_object(centres=centres[:, None]), 1)
    flow = motion.points - world.pixel_centres(world.SIZE)
    assert flow[0, 32, 32].tolist() == pytest.approx([3, 0], abs=1e-5)
    assert flow[0, 5, 5].tolist() == [0, 0]
    turning = one_object(angles=torch.arange(frames)[:, None] * torch.pi / 2)
    points = world.correspondence(turning, 1).points[0]
    # A quarter turn with y downwards takes what is right of the centre to below it.
    assert points[32, 40].tolist() == pytest.approx([31.5, 40.5], abs=1e-4)


def test_what_gets_hidden_cannot_be_compared():
    both = {
        "kinds": torch.tensor([world.SQUARE, world.DISC]),
        "radii": torch.tensor([12.0, 12.0]),
        "angles": torch.zeros(2, 2),
        "pans": torch.zeros(2, 2),
        "enters": torch.zeros(2, dtype=torch.long),
        "centres": torch.tensor([[[20.0, 32.0], [60.0, 32.0]], [[20.0, 32.0], [20.0, 32.0]]]),
    }
    valid = world.correspondence(world.Clip(**both), 1, pure=False).valid[0]
    assert not valid[32, 20]  # the square's middle, which the disc covers
    assert valid[22, 10]  # a corner of it that the disc leaves free
    assert valid[32, 60]  # the disc itself, though it moved


def test_late_objects_are_not_there_before():
    newcomers, late = 0, 0
    for seed in range(12):
        clip = clip_of(seed, frames=32)
        instance, _ = world.labels(clip)
        for number, first in enumerate(clip.enters.tolist()):
            if first:
                late += 1
                assert not (instance[:first] == number + 1).any()
        newcomers += bool(Truth.of(clip, 8).newcomers)
    assert late > 10
    assert newcomers > 5


def test_clips_move_turn_pan_and_leave():
    panning = leaving = overlapping = 0
    for seed in range(20):
        clip = clip_of(seed, frames=32)
        assert ((clip.angles[-1] - clip.angles[0]).abs() > 0.05).any()
        assert (clip.centres[8] - clip.centres[0]).norm(dim=-1).min() > 0.2
        panning += bool(clip.pans[-1].abs().sum() > 1)
        instance, _ = world.labels(clip)
        first, last = (set(instance[frame].unique().tolist()) for frame in (0, -1))
        leaving += len(first - last)
        apart = torch.cdist(clip.centres[0], clip.centres[0]) + 99 * torch.eye(len(clip.radii))
        overlapping += bool((apart < 15).any())
    assert 4 <= panning <= 16
    assert leaving > 3
    assert overlapping > 3


def test_all_objects_of_a_class_share_a_look():
    clip = clip_of(2)
    frames = world.render(clip, look_of(2))
    _, part = world.labels(clip)
    assert colour_spread(frames, part, PARTS).nan_to_num().max() < 1e-4


def test_stills_are_frames_of_their_own():
    stills = world.random_stills(6, torch.Generator().manual_seed(0))
    frames = world.render(stills, torch.stack([look_of(seed) for seed in range(6)]))
    assert frames.shape == (6, 3, world.SIZE, world.SIZE)
    assert (frames[0] - frames[1]).abs().max() > 0.1
    again = world.render(
        world.random_stills(6, torch.Generator().manual_seed(0)),
        torch.stack([look_of(seed) for seed in range(6)]),
    )
    assert torch.equal(frames, again)


def test_prompts_fix_the_look_only_in_part():
    random = Random(0)
    drawn = [looks.random_look(random) for _ in range(400)]
    warm = torch.stack([look for look, prompt in drawn if prompt == "a warm drawing"])
    assert len(warm) > 5
    assert (warm[..., 0] >= warm[..., 2]).float().mean() > 0.7  # more red than blue
    assert warm.std(dim=0).mean() > 0.05
    words = {word for _, prompt in drawn for word in prompt.split()}
    assert words <= set(looks.WORDS)


def test_diversity_is_that_of_looks_not_of_frames():
    """Seeds that give other looks are diverse; frames that flicker with one seed add nothing."""
    clip = clip_of(3, frames=6)
    truth = Truth.of(clip, 2)
    steady = torch.stack([world.render(clip, look_of(seed)) for seed in range(4)])
    flickering = torch.stack(
        [
            world.render(clip, torch.stack([look_of(6 * seed + n) for n in range(6)]))
            for seed in range(4)
        ]
    )
    same = steady[:1].expand(4, -1, -1, -1, -1)
    assert diversity(same, truth) == 0
    assert diversity(steady, truth) > 0.1
    assert diversity(flickering, truth) == pytest.approx(diversity(steady, truth), rel=0.3)
