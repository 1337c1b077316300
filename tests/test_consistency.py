"""The measures, on frames whose faults are known."""

import math
from itertools import pairwise

import pytest
import torch
from crossframe import consistency
from crossframe.consistency.report import report
from crossframe.demo import world
from crossframe.demo.judge import Truth, judge
from crossframe.motion import Correspondence, inside, pixel_grid
from crossframe.motion.optical_flow import estimate_motion, follow_motion

SIZE = 16


def shift(frames, x, lag=1):
    """A motion of `x` pixels per frame to the right."""
    earlier = torch.arange(len(frames) - lag)
    grid = pixel_grid(torch.zeros(SIZE, SIZE, 2)).expand(len(earlier), -1, -1, -1)
    points = grid + torch.tensor([float(x * lag), 0.0])
    return Correspondence(earlier, earlier + lag, points, inside(points))


def moving_stripes(frames=5, speed=2):
    """Vertical stripes of period 8 that move right by `speed` pixels per frame."""
    x = torch.arange(SIZE) + 0.5
    line = [0.5 + 0.5 * torch.sin(2 * math.pi * (x - speed * frame) / 8) for frame in range(frames)]
    return torch.stack(line)[:, None, None].expand(-1, 3, SIZE, SIZE).contiguous()


def test_following_the_motion_finds_no_error():
    frames = moving_stripes()
    assert consistency.warp_error(frames, shift(frames, 2)).max() < 1e-10
    assert consistency.warp_error(frames, shift(frames, 2, lag=3)).max() < 1e-10
    assert consistency.warp_error(frames, shift(frames, 0)).min() > 0.1


def test_half_a_pixel_is_read_in_between():
    ramp = (torch.arange(SIZE) / SIZE).expand(2, 3, SIZE, SIZE)
    frames = torch.stack((ramp[0], ramp[1] - 0.5 / SIZE))
    assert consistency.warp_error(frames, shift(frames, 0.5)).max() < 1e-10


def test_a_change_of_colour_is_its_square():
    frames = moving_stripes()
    frames[2] += 0.1
    errors = consistency.warp_error(frames, shift(frames, 2))
    assert errors == pytest.approx([0, 0.01, 0.01, 0], abs=1e-6)


def test_hidden_pixels_do_not_count():
    frames = moving_stripes()
    frames[:, :, 3] = torch.rand(len(frames), 3, SIZE)
    motion = shift(frames, 2)
    assert consistency.warp_error(frames, motion).min() > 1e-3
    motion.valid[:, 3] = False
    assert consistency.warp_error(frames, motion).max() < 1e-10
    motion.valid[1] = False
    assert consistency.warp_error(frames, motion)[1].isnan()


def test_broken_frames_are_no_steady_ones():
    """Values that are nan or infinite show in the error of judged pixels only."""
    frames = moving_stripes()
    motion = shift(frames, 2)
    motion.valid[:, 2:5] = False
    for value in (torch.nan, torch.inf):
        broken = moving_stripes()
        broken[2, :, 3] = value
        unharmed = consistency.warp_error(broken, motion)
        assert torch.equal(unharmed, consistency.warp_error(frames, motion))
        broken[2, :, 8] = value
        error = consistency.warp_error(broken, motion)
        assert error.isfinite().tolist() == [True, False, False, True]
        assert consistency.frames_not_finite(broken) == [2]
    assert consistency.frames_not_finite(frames) == []


@pytest.mark.parametrize("which", ["edited", "source"])
def test_a_report_refuses_broken_frames(which):
    frames = {"edited": moving_stripes(), "source": moving_stripes()}
    frames[which][3, 0, 5, 5] = torch.nan
    with pytest.raises(ValueError, match=f"frame 3 of {which} has values that are nan"):
        report(**frames, lags=[1])
    with pytest.raises(ValueError, match="of 5 frames, no two are 5 frames apart"):
        report(moving_stripes(), moving_stripes(), [1, 5])


def test_judging_refuses_broken_frames():
    clip = world.random_clip(3, torch.Generator().manual_seed(0))
    frames = world.render(clip, world.PLAIN)
    frames[1, 0, 5, 5] = torch.inf
    with pytest.raises(ValueError, match="frame 1 has values that are nan"):
        judge(frames, Truth.of(clip, 2))


def test_the_error_map_shows_where():
    frames = moving_stripes()
    frames[2, :, 5, 7] += 0.3
    error = consistency.warp_error_map(frames, shift(frames, 2))
    assert error[2].argmax() == 5 * SIZE + 7
    assert error[1, 5, 5] == pytest.approx(0.09, abs=1e-6)


def test_motion_over_several_frames_is_motion_by_motion():
    frames = moving_stripes()
    one = shift(frames, 2)
    two = one.then(one)
    assert two.earlier.tolist() == [0, 1, 2]
    assert two.later.tolist() == [2, 3, 4]
    wanted = shift(frames, 2, lag=2)
    assert torch.equal(two.valid, wanted.valid)
    assert (two.points - wanted.points)[two.valid].abs().max() < 1e-4


def test_what_is_hidden_in_between_stays_hidden():
    one = shift(moving_stripes(), 2)
    one.valid[1, 4, 8] = False  # frame 1, reached from (6, 4) of frame 0
    two = one.then(one)
    assert not two.valid[0, 4, 6]
    assert two.valid[0, 4, 7]


def labelled():
    """Two frames: left half label 0, right half label 1, one row not judged."""
    labels = torch.zeros(2, SIZE, SIZE, dtype=torch.long)
    labels[..., SIZE // 2 :] = 1
    labels[:, 0] = -1
    frames = torch.where(labels[:, None] == 1, 0.8, 0.2).expand(-1, 3, -1, -1).clone()
    return frames, labels


def test_colours_of_labels():
    frames, labels = labelled()
    frames[:, :, 0] = 9.0  # not judged
    frames[1, 0, :, SIZE // 2 :] = 0.2  # red of label 1
    colours = consistency.mean_colours(frames, labels, 3)
    assert colours[0, 0].tolist() == pytest.approx([0.2, 0.2, 0.2])
    assert colours[1, 1].tolist() == pytest.approx([0.2, 0.8, 0.8])
    assert colours[:, 2].isnan().all()
    spread = consistency.colour_spread(frames, labels, 3)
    assert spread[0] == pytest.approx(0, abs=1e-6)
    assert spread[1] == pytest.approx(math.sqrt(0.3**2 / 3), abs=1e-6)
    assert spread[2].isnan()


def test_layout_accuracy_counts_pixels_in_foreign_colours():
    frames, labels = labelled()
    assert consistency.layout_accuracy(frames, labels, 2).tolist() == [1, 1]
    frames[1, :, 4, :3] = 0.8
    judged = SIZE * (SIZE - 1)
    assert consistency.layout_accuracy(frames, labels, 2)[1] == pytest.approx(1 - 3 / judged)


def test_blur_loses_fine_detail():
    sharp = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, stride=1, padding=1)
    detail, less = consistency.fine_detail(sharp), consistency.fine_detail(blurred)
    assert (less < 0.5 * detail).all()
    assert consistency.fine_detail(torch.full((1, 3, 8, 8), 0.5)) == 0


def test_distance_to_the_nearest_other_colour():
    colours = torch.tensor(
        [[[0.0] * 3, [0.3, 0, 0], [1.0] * 3], [[0.0] * 3, [torch.nan] * 3, [1.0] * 3]]
    )
    others = torch.tensor([[False, True, True]] * 2)
    distance = consistency.class_distance(colours, torch.tensor([0, 0]), others)
    assert distance.tolist() == pytest.approx([0.3, math.sqrt(3)])
    alone = consistency.class_distance(colours, torch.tensor([0, 0]), torch.zeros(2, 3).bool())
    assert alone.isnan().all()


def small_world(frames):
    """A source video: a clip of the demo's world."""
    clip = world.random_clip(frames, torch.Generator().manual_seed(0))
    return world.render(clip, world.PLAIN)


def test_following_step_by_step_is_composing_all_at_once():
    """The motion that is yielded for a frame leads to it from each frame before it."""
    source = small_world(5)
    steps = [estimate_motion(a, b, n) for n, (a, b) in enumerate(pairwise(source))]
    found = list(follow_motion(source, 3))
    assert [motion.later.unique().tolist() for motion in found] == [[1], [2], [3], [4]]
    assert found[3].earlier.tolist() == [1, 2, 3]
    whole = steps[1].then(steps[2]).then(steps[3])
    assert torch.equal(found[3].points[0], whole.points[0])
    assert torch.equal(found[3].valid[0], whole.valid[0])
    assert whole.valid.float().mean() > 0.3


def test_no_more_is_remembered_than_the_farthest_pairs():
    source = small_world(8)
    assert [len(motion) for motion in follow_motion(source, 2)] == [1, 2, 2, 2, 2, 2, 2]


def test_estimated_motion_is_the_true_one():
    """Most of what moves is followed, along its true way in both directions."""
    clip = world.random_clip(6, torch.Generator().manual_seed(0))
    source, exact = world.render(clip, world.PLAIN), world.correspondence(clip, 1)
    true = exact.points - pixel_grid(exact.points)  # (pairs, h, w, 2)
    moving = exact.valid & (true.norm(dim=-1) > 0.7)
    followed, ways = [], []
    for number, (here, there) in enumerate(pairwise(source)):
        found = estimate_motion(here, there, number)
        both = found.valid[0] & moving[number]
        followed.append(both.sum() / moving[number].sum())
        way = found.points[0] - pixel_grid(found.points)
        ways.append(torch.cat((true[number][both], way[both]), dim=1))  # (n, 4)
    assert torch.stack(followed).mean() > 0.5
    correlation = torch.corrcoef(torch.cat(ways).T)
    assert correlation[0, 2] > 0.75, correlation
    assert correlation[1, 3] > 0.75, correlation
