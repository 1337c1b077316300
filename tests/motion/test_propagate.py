"""Frames between keyframes, in the small world where the truth is known."""

from random import Random

import pytest
import torch
from crossframe import consistency
from crossframe.demo import world
from crossframe.demo.exact_motion import ExactMotion
from crossframe.demo.looks import random_look
from crossframe.motion import EstimatedMotion, PairMotion, pixel_grid, shrunk_to
from crossframe.motion.chosen_frames import ChosenFrames
from crossframe.motion.propagate import Neighbour, propagated
from crossframe.motion.resample import carried_sharply
from crossframe.motion.smooth import slow_part

FRAMES, EVERY = 9, 8
SIZE = (world.SIZE, world.SIZE)


@pytest.fixture(scope="module", params=[900, 903, 905])
def clip(request):
    return world.random_clip(FRAMES, torch.Generator().manual_seed(request.param))


def between(clip, motion, pictures, frame, keyframes=(0, FRAMES - 1)):
    source = world.render(clip, world.PLAIN)
    neighbours = [
        Neighbour(pictures[key], source[key], motion.between(frame, key, SIZE), abs(frame - key))
        for key in keyframes
    ]
    return propagated(source[frame], neighbours)


def looks(clip):
    return world.render(clip, random_look(Random(1))[0])


def all_frames(clip, motion, pictures):
    middle = [between(clip, motion, pictures, frame) for frame in range(1, FRAMES - 1)]
    return torch.stack([pictures[0], *middle, pictures[FRAMES - 1]])


@pytest.mark.parametrize("exact", [True, False])
def test_a_constant_look_comes_back(clip, exact):
    """Far nearer to the truth than a cross-fade, and far steadier."""
    truth = looks(clip)
    source = world.render(clip, world.PLAIN)
    motion = ExactMotion(clip) if exact else EstimatedMotion(shrunk_to(128, source), SIZE)
    found = all_frames(clip, motion, truth)
    shares = torch.linspace(0, 1, FRAMES)[:, None, None, None]
    faded = (1 - shares) * truth[0] + shares * truth[-1]
    share = 0.2 if exact else 0.25
    assert (found - truth).square().mean() < share * (faded - truth).square().mean()
    steps = world.correspondence(clip, 1)
    wobble = [float(consistency.warp_error(frames, steps).nanmean()) for frames in (found, faded)]
    assert wobble[0] < (0.05 if exact else 0.7) * wobble[1]


@pytest.mark.parametrize("exact", [True, False])
def test_along_the_motion_a_colour_difference_passes_over_in_small_steps(clip, exact):
    """Followed from frame to frame, no place changes by much more than its even share."""
    truth = looks(clip)
    source = world.render(clip, world.PLAIN)
    motion = ExactMotion(clip) if exact else EstimatedMotion(shrunk_to(128, source), SIZE)
    tone = torch.tensor([0.6, 0.8, 1.0])[:, None, None]
    share = torch.linspace(0, 1, FRAMES)[:, None, None, None]
    wanted = truth * (1 - share + share * tone)
    found = all_frames(clip, motion, wanted)
    steps = world.correspondence(clip, 1)
    even, held = wanted, torch.cat([truth[:5], truth[5:] * tone])
    largest = [
        float(consistency.warp_error(frames, steps).nan_to_num().max())
        for frames in (found, even, held)
    ]
    assert largest[0] - largest[1] < (0.02 if exact else 0.45) * largest[2]


def test_a_colour_difference_between_keyframes_fades_over(clip):
    """There is no jump where the choice goes over from one keyframe to the other."""
    truth = looks(clip)
    pictures = {0: truth[0], FRAMES - 1: (0.7 * truth[-1])}
    found = all_frames(clip, ExactMotion(clip), pictures)
    whole = (pictures[FRAMES - 1].mean() - pictures[0].mean()).abs()
    steps = (found[1:].mean(dim=(1, 2, 3)) - found[:-1].mean(dim=(1, 2, 3))).abs()
    assert steps.max() < 0.4 * whole  # in one of eight steps


class Nothing:
    """A motion that finds nothing."""

    def between(self, frame, other, grid):
        rows, columns = grid
        return PairMotion(pixel_grid(torch.empty(rows, columns, 2)), torch.zeros(grid))


def test_without_any_trust_there_is_still_a_picture(clip):
    found = between(clip, Nothing(), looks(clip), 4)
    assert found.isfinite().all()
    assert 0.05 < found.mean() < 1


def test_one_neighbour_is_carried(clip):
    truth = looks(clip)
    motion = ExactMotion(clip)
    found = between(clip, motion, truth, 3, keyframes=(0,))
    assert torch.equal(found, carried_sharply(motion.between(3, 0, SIZE), truth[0]))


def test_the_one_that_explains_the_source_is_chosen():
    """The other one is far off, and nothing of it is seen, though it is nearer in time."""
    source = 0.4 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    same = still(torch.ones(32, 32))
    right = Neighbour(torch.full((3, 32, 32), 0.3), source, same, 7)
    wrong = Neighbour(torch.full((3, 32, 32), 0.9), source + 0.5, same, 1)
    for pair in ((right, wrong), (wrong, right)):
        assert (propagated(source, pair) - 0.3).abs().max() < 0.02


def still(trust):
    """A motion of nothing. trust: (h, w)."""
    return PairMotion(pixel_grid(torch.empty(*trust.shape, 2)), trust)


def test_nobody_is_preferred_by_the_order_of_neighbours(clip):
    truth = looks(clip)
    motion = ExactMotion(clip)
    for frame in (1, 4, 6):
        found = [between(clip, motion, truth, frame, keys) for keys in ((0, 8), (8, 0))]
        assert torch.allclose(*found, atol=1e-5)


def test_what_only_one_keyframe_shows_gets_the_colours_of_its_time():
    """A darker keyframe leaves no stain where the other one alone shows a place."""
    source = 0.4 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(64, 64)
    seen[20:44, 20:44] = 0
    first = Neighbour(torch.full((3, 64, 64), 0.8), source, still(torch.ones(64, 64)), 2)
    darker = Neighbour(torch.full((3, 64, 64), 0.5), source, still(seen), 4)
    found = propagated(source, (first, darker))
    assert (found - 0.7).abs().max() < 0.01


def test_colours_are_compared_only_where_both_show_the_same():
    """Something bright that the other keyframe alone shows does not shine on what is around it."""
    source = torch.full((3, 64, 64), 0.3)
    seen = torch.ones(64, 64)
    seen[:, 32:] = 0
    painted = torch.full((3, 64, 64), 0.4)
    bright = painted.clone()
    bright[..., 32:] = 1.0
    first = Neighbour(painted, source, still(torch.ones(64, 64)), 4)
    other = Neighbour(bright, source, still(seen), 4)
    assert (propagated(source, (first, other)) - 0.4).abs().max() < 0.01


def test_what_comes_out_from_behind_has_a_sharp_rim():
    """Two pixels from the rim nothing is mixed in of what hid the place."""
    source = torch.zeros(3, 64, 64)
    source[..., 32:] = 0.9
    hides = torch.zeros(3, 64, 64)
    seen = torch.ones(64, 64)
    seen[:, 32:] = 0
    first = Neighbour(source, source, still(torch.ones(64, 64)), 4)
    other = Neighbour(hides, hides, still(seen), 4)
    error = (propagated(source, (first, other)) - source).abs()
    assert error.max() < 0.02


def shifted(right):
    """A motion of as many pixels to the right everywhere, on 32 x 32 pixels."""
    moved = pixel_grid(torch.empty(32, 32, 2)) + torch.tensor([right, 0.0])
    return PairMotion(moved, torch.ones(32, 32))


def test_whole_pixels_are_carried_as_they_are():
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(carried_sharply(shifted(0.0), picture), picture, atol=1e-5)
    found = carried_sharply(shifted(3.0), picture)
    assert torch.allclose(found[..., :-3], picture[..., 3:], atol=1e-5)
    assert torch.allclose(found[..., -3:], picture[..., -1:].expand(3, 32, 3), atol=1e-5)


def test_half_a_pixel_costs_little_detail_and_nothing_overshoots():
    random = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(6))
    motion = shifted(0.5)
    found, blunt = carried_sharply(motion, random), motion.carry(random)
    deviations = [values[..., 4:-4].std() for values in (random, found, blunt)]
    assert deviations[2] < 0.8 * deviations[0]
    assert deviations[1] > 1.08 * deviations[2]
    step = (torch.arange(32) >= 16).float().expand(3, 32, 32)
    for right in (0.25, 0.5, 0.75):
        found = carried_sharply(shifted(right), step)
        assert found.min() >= 0
        assert found.max() <= 1


def test_the_slow_part_of_what_is_known_in_places():
    """It fills what is unknown from around it, and does not see what stands there."""
    ramp = torch.linspace(0, 1, 96).expand(2, 64, 96)
    known = torch.ones(64, 96)
    known[16:40, 30:50] = 0
    values = torch.where(known > 0, ramp, torch.tensor(50.0))
    found = slow_part(values, known)
    assert found.shape == values.shape
    assert (found - ramp)[..., 8:-8].abs().max() < 0.1
    assert torch.equal(slow_part(values, torch.zeros(64, 96)), torch.zeros(2, 64, 96))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 200)])
def test_pictures_of_any_shape(size):
    source = torch.rand(3, *size, generator=torch.Generator().manual_seed(7))
    neighbours = [Neighbour(source, source, still(torch.ones(size)), n) for n in (1, 2)]
    assert torch.allclose(propagated(source, neighbours), source, atol=1e-5)


def test_chosen_frames_are_those_of_the_clip(clip):
    motion = ExactMotion(clip)
    chosen = ChosenFrames(motion, (0, 4, 8))
    assert (chosen.frames, chosen.size) == (3, motion.size)
    found, expected = chosen.between(1, 2, (16, 16)), motion.between(4, 8, (16, 16))
    assert torch.equal(found.positions, expected.positions)
    assert torch.equal(found.trust, expected.trust)
    assert chosen.fingerprint != ChosenFrames(motion, (0, 5, 8)).fingerprint
    with pytest.raises(IndexError):
        chosen.between(0, 3)
