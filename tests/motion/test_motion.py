"""Estimated motion against the exact one of the small world, and what holds for every motion."""

import pytest
import torch
from crossframe.demo import world
from crossframe.demo.exact_motion import ExactMotion
from crossframe.motion import (
    EstimatedMotion,
    Motion,
    Network,
    PairMotion,
    on_grid,
    pixel_grid,
    shrunk_to,
)
from crossframe.motion.keyframes import keyframes, newly_shown
from crossframe.motion.picture import motion_picture, strongest_of

FRAMES = 8
WRONG = 2.0  # pixels


def clip_of(seed, frames=FRAMES):
    return world.random_clip(frames, torch.Generator().manual_seed(seed))


def estimated(frames, **options):
    return EstimatedMotion(shrunk_to(128, frames), tuple(frames.shape[-2:]), **options)


def rendered(seed):
    return world.render(clip_of(seed), world.PLAIN)


def texture(height, width, seed=0):
    """A smooth picture without repetition, (3, height, width)."""
    noise = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[0].clamp(0, 1)


def panned(frames, step, size=64):
    """A camera that goes `step` pixels to the left over a texture in each frame."""
    wide = texture(size, size + 8 * (frames * step // 8 + 1))
    start = frames * step
    views = [wide[..., start - k * step : start - k * step + size] for k in range(frames)]
    return torch.stack(views)


def same(one: PairMotion, other: PairMotion) -> bool:
    return torch.equal(one.positions, other.positions) and torch.equal(one.trust, other.trust)


@pytest.mark.parametrize(
    ("lag", "most_off", "least_found", "most_wrong"),
    [(1, 0.3, 0.90, 0.05), (3, 0.5, 0.75, 0.15), (6, 0.6, 0.60, 0.20)],
)
def test_the_estimate_finds_what_moves(lag, most_off, least_found, most_wrong):
    off, found, wrong = [], [], []
    for seed in range(6):
        clip = clip_of(seed)
        motion = estimated(world.render(clip, world.PLAIN))
        exact = world.correspondence(clip, lag, pure=False)
        for frame in (0, FRAMES - lag - 1):
            pair, visible = motion.between(frame, frame + lag), exact.valid[frame]
            error = (pair.positions - exact.points[frame]).norm(dim=-1)
            trust = pair.trust > 0.5
            off.append(error[trust & visible].median())
            found.append((trust & visible).sum() / visible.sum())
            wrong.append((trust & ~(visible & (error < WRONG))).sum() / trust.sum())
    assert torch.stack(off).mean() < most_off
    assert torch.stack(found).mean() > least_found
    assert torch.stack(wrong).mean() < most_wrong


def test_it_goes_both_ways():
    motion = estimated(panned(4, 3))
    forth, back = motion.between(0, 2), motion.between(2, 0)
    inner = slice(16, 48)
    moved = (forth.positions - pixel_grid(forth.positions))[inner, inner]
    returned = (back.positions - pixel_grid(back.positions))[inner, inner]
    assert moved.mean(dim=(0, 1)).tolist() == pytest.approx([6, 0], abs=0.2)
    assert returned.mean(dim=(0, 1)).tolist() == pytest.approx([-6, 0], abs=0.2)
    assert forth.trust[inner, inner].mean() > 0.95
    assert forth.trust[:, -5:].mean() < 0.1  # it leaves the picture


def test_far_frames_are_found_by_the_way_from_frame_to_frame():
    frames = panned(9, 5)
    positions = estimated(frames).between(0, 8).positions
    moved = (positions - pixel_grid(positions))[8:56, 4:20]
    assert moved[..., 0].median() == pytest.approx(40, abs=0.5)


@pytest.mark.parametrize("grid", [(64, 64), (32, 32), (8, 8), (5, 7), (96, 128)])
def test_any_grid(grid):
    motion = estimated(panned(3, 4))
    pair = motion.between(0, 1, grid)
    assert pair.grid == grid
    assert pair.positions.shape == (*grid, 2)
    moved = pair.positions - pixel_grid(pair.positions)
    wanted = 4 * grid[1] / 64
    middle = moved[grid[0] // 4 : -grid[0] // 4, grid[1] // 4 : -grid[1] // 4]
    assert middle[..., 0].median() == pytest.approx(wanted, abs=0.05 * max(wanted, 1))
    assert 0 <= pair.trust.min() <= pair.trust.max() <= 1


def test_a_cell_follows_what_is_at_its_centre():
    """Of 4 x 4 pixels, the left column moves otherwise, and one pixel is not trusted."""
    flow = torch.zeros(2, 4, 4)
    flow[0, :, 1:] = 3
    trusted = torch.ones(4, 4, dtype=torch.bool)
    trusted[0, 3] = False
    pair = on_grid(flow, trusted, (1, 1))
    assert pair.positions[0, 0].tolist() == pytest.approx([0.5 + 3 / 4, 0.5])
    assert float(pair.trust) == pytest.approx(11 / 16)


def test_a_frame_lies_on_itself():
    pair = estimated(rendered(0)).between(3, 3, (32, 16))
    assert torch.equal(pair.positions, pixel_grid(torch.empty(32, 16, 2)))
    assert pair.trust.min() == 1


def test_answers_do_not_depend_on_what_was_asked_before():
    frames = rendered(1)
    fresh, forgetful = estimated(frames), estimated(frames, most_bytes=0)
    asked = [(0, 5), (4, 0), (2, 3), (0, 5), (7, 1)]
    used = estimated(frames)
    for pair in [(a, b) for a in range(FRAMES) for b in range(0, FRAMES, 3)]:
        used.between(*pair)
    for pair in reversed(asked):
        answers = [motion.between(*pair, (32, 32)) for motion in (used, forgetful)]
        assert same(answers[0], fresh.between(*pair, (32, 32)))
        assert same(*answers)


def test_memory_is_bounded():
    frames = panned(12, 2)
    pair_bytes = 64 * 64 * (4 * 2 + 2)
    motion = estimated(frames, most_bytes=8 * pair_bytes)
    for frame in range(12):
        motion.between(frame, 0)
    assert motion.kept_bytes <= 8 * pair_bytes
    assert motion.pictures.dtype == torch.uint8


def test_what_was_found_is_not_searched_again():
    searches = []
    motion = estimated(panned(4, 2), before_each=lambda: searches.append(1))
    first = motion.between(0, 3)
    assert len(searches) == 4  # three steps and the pair
    assert same(motion.between(0, 3), first)
    motion.between(3, 0, (8, 8))
    assert len(searches) == 4


def test_a_search_can_be_stopped():
    class StopError(Exception):
        pass

    def stop():
        raise StopError

    with pytest.raises(StopError):
        estimated(rendered(0), before_each=stop).between(0, 1)


def test_what_is_not_found_is_not_trusted():
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert estimated(noise).between(0, 1).trust.mean() < 0.02
    other = torch.stack((texture(64, 64, 1), texture(64, 64, 2)))
    assert estimated(other).between(0, 1).trust.mean() < 0.05


def test_frames_that_a_clip_does_not_have():
    for motion in (estimated(rendered(0)), ExactMotion(clip_of(0))):
        for asked in [(0, FRAMES), (-1, 0)]:
            with pytest.raises(IndexError, match="of a clip of 8 frames"):
                motion.between(*asked)


def test_fingerprints_tell_motions_apart():
    def network(here, there):
        return torch.zeros(2, *here.shape[-2:])

    frames = rendered(0)
    motions = [
        estimated(frames),
        estimated(frames[1:]),
        estimated(rendered(1)),
        EstimatedMotion(shrunk_to(128, frames), (128, 128)),
        estimated(frames, estimator=Network(network)),
        ExactMotion(clip_of(0)),
        ExactMotion(clip_of(1)),
    ]
    assert len({motion.fingerprint for motion in motions}) == len(motions)
    assert estimated(frames.clone()).fingerprint == motions[0].fingerprint


def test_every_motion_fits_where_one_is_wanted():
    motions = [estimated(rendered(0)), ExactMotion(clip_of(0))]
    assert all(isinstance(motion, Motion) for motion in motions)
    assert [motion.frames for motion in motions] == [FRAMES, FRAMES]
    assert [motion.size for motion in motions] == [(64, 64), (64, 64)]


def test_the_exact_motion_is_exact():
    clip = clip_of(4)
    exact = world.correspondence(clip, 3, pure=False)
    pair = ExactMotion(clip).between(2, 5)
    assert torch.allclose(pair.positions, exact.points[2], atol=1e-4)
    assert torch.equal(pair.trust > 0.5, exact.valid[2])
    assert ExactMotion(clip).between(5, 2, (32, 32)).trust.mean() > 0.5


def test_a_network_is_asked_and_checked():
    """One that knows the motion is trusted, one that errs is not."""
    frames = panned(4, 3)

    def right(here, there):
        forth = (here[..., :-3] - there[..., 3:]).abs().mean() < 1e-3
        back = (there[..., :-3] - here[..., 3:]).abs().mean() < 1e-3
        return torch.tensor([3.0 * forth - 3.0 * back, 0.0])[:, None, None].expand(2, 64, 64)

    def wrong(here, there):
        return torch.full((2, 64, 64), 7.0)

    pair = estimated(frames, estimator=Network(right)).between(1, 2)
    assert (pair.positions - pixel_grid(pair.positions))[..., 0].mean() == pytest.approx(3)
    assert pair.trust[:, :60].mean() > 0.95
    assert estimated(frames, estimator=Network(wrong)).between(1, 2).trust.mean() < 0.02


@pytest.mark.parametrize("size", [(8, 8), (17, 9), (8, 300), (130, 40), (200, 333)])
def test_all_sizes(size):
    frames = torch.stack([texture(size[0], size[1] + 8)[..., k : k + size[1]] for k in range(3)])
    motion = estimated(frames)
    shorter, longer = sorted(motion.pictures.shape[-2:])
    assert longer <= 128 or shorter <= 16
    assert shorter >= min(16, *size)
    assert motion.between(0, 2).positions.shape == (*size, 2)
    assert motion.between(0, 2).positions.isfinite().all()


def test_a_camera_that_moves_on_makes_keyframes():
    assert keyframes(estimated(panned(12, 6))) == [0, 6]  # half of 64 pixels are 5.3 frames
    assert keyframes(estimated(panned(1, 8).expand(5, -1, -1, -1))) == [0]


def test_a_cut_makes_a_keyframe():
    frames = torch.stack([texture(64, 64, 1)] * 3 + [texture(64, 64, 2)] * 3)
    motion = estimated(frames)
    seen = []
    assert keyframes(motion, lambda: seen.append(1)) == [0, 3]
    assert len(seen) == 5
    assert newly_shown(motion, 3, 2) > 0.9
    assert newly_shown(motion, 2, 0) < 0.02


def test_the_picture_shows_direction_and_distrust():
    still = pixel_grid(torch.empty(4, 4, 2))
    trust = torch.ones(4, 4)
    trust[0] = 0
    right = motion_picture(PairMotion(still + torch.tensor([2.0, 0.0]), trust), 2.0)
    left = motion_picture(PairMotion(still + torch.tensor([-2.0, 0.0]), trust), 2.0)
    assert right[:, 2, 2].tolist() == pytest.approx([1, 0, 0], abs=1e-5)  # red
    assert left[:, 2, 2].tolist() == pytest.approx([0, 1, 1], abs=1e-5)  # cyan
    assert right[:, 0].max() < 0.2
    assert motion_picture(PairMotion(still, trust), 2.0)[:, 2, 2].tolist() == [1, 1, 1]
    assert strongest_of([PairMotion(still + torch.tensor([5.0, 0.0]), trust)]) == pytest.approx(5)
    assert strongest_of([PairMotion(still + 5, torch.zeros(4, 4))]) == 1
