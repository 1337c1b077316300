"""Fusion mixes predictions along the motion, and leaves alone what the motion does not find."""

import pytest
import torch
from crossframe.demo import world
from crossframe.demo.exact_motion import ExactMotion
from crossframe.latents.fuse import fuse_clip, fuse_frame
from crossframe.motion import PairMotion, pixel_grid

GRID = 6, 8


def still(trust=1.0):
    return PairMotion(pixel_grid(torch.empty(*GRID, 2)), torch.full(GRID, trust))


def latents(count, seed=0):
    return torch.randn(count, 4, *GRID, generator=torch.Generator().manual_seed(seed))


def test_half_precision_keeps_places_exact():
    """Stripes that are one cell wide turn a shift by 0.3 cells into 0.3 and 0.7 everywhere."""
    stripes = (torch.arange(300.0) % 2).expand(4, 2, 300)
    motion = PairMotion(pixel_grid(torch.empty(2, 300, 2)), torch.ones(2, 300))
    motion.positions[..., 0] -= 0.3
    moved = fuse_frame(torch.zeros_like(stripes).half(), [(stripes.half(), motion)], 1.0)
    assert moved.dtype == torch.float16
    wanted = 0.3 + 0.4 * stripes
    assert torch.allclose(moved[..., 1:].float(), wanted[..., 1:], atol=0.01)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_without_motion_it_is_a_plain_mix(strength):
    one, other = latents(2)
    mixed = fuse_frame(one, [(other, still())], strength)
    assert torch.allclose(mixed, (1 - strength) * one + strength * other, atol=1e-6)


def test_where_nothing_is_trusted_nothing_changes():
    one, other = latents(2)
    assert torch.equal(fuse_frame(one, [(other, still(0.0))], 0.5), one)
    assert torch.equal(fuse_frame(one, [], 0.5), one)
    motion = still()
    motion.trust[2:] = 0
    mixed = fuse_frame(one, [(other, motion)], 0.5)
    assert torch.equal(mixed[:, 2:], one[:, 2:])
    assert not torch.isclose(mixed[:, :2], one[:, :2]).any()


def test_the_first_that_shows_a_place_decides():
    one, *others = latents(3)
    for trust in (1.0, 0.8, 0.0):
        mixed = fuse_frame(one, [(others[0], still(trust)), (others[1], still(0.5))], 0.5)
        wanted = trust * others[0] + (1 - trust) * (0.5 * others[1] + 0.5 * one)
        assert torch.allclose(mixed, (one + wanted) / 2, atol=1e-6)


def test_values_are_taken_from_where_things_lie():
    one, other = latents(2)
    motion = still()
    motion.positions[..., 0] += 1  # what this frame shows lies one cell further right there
    mixed = fuse_frame(one, [(other, motion)], 1.0)
    assert torch.allclose(mixed[..., :-1], other[..., 1:], atol=1e-6)


def test_the_latents_of_video_vaes_are_taken():
    one, other = latents(2)
    flat = fuse_frame(one, [(other, still())], 0.5)
    assert torch.equal(fuse_frame(one[:, None], [(other[:, None], still())], 0.5)[:, 0], flat)


def test_another_grid_is_refused():
    with pytest.raises(ValueError, match="a motion on"):
        fuse_frame(torch.zeros(4, 3, 3), [(torch.zeros(4, 3, 3), still())], 0.5)


class NoMotion:
    """All stays where it is."""

    frames, size, fingerprint = 4, GRID, "still"

    def between(self, frame, other, grid=None):
        return still()


def test_a_clip_is_mixed_in_painting_order():
    x0 = latents(4)
    fused = fuse_clip(x0, [3, 0, 1, 2], lambda frame: [0, 3, frame], NoMotion(), 0.5)
    first = (x0[0] + x0[3]) / 2  # 3 was painted before 0, and 0 is changed
    assert torch.allclose(fused[3], x0[3])
    assert torch.allclose(fused[0], first, atol=1e-6)
    assert torch.allclose(fused[1], (x0[1] + first) / 2, atol=1e-6)


def test_frames_that_flicker_become_steady_along_the_exact_motion():
    from crossframe.consistency import warp_error

    clip = world.random_clip(8, torch.Generator().manual_seed(3))
    frames = world.render(clip, world.PLAIN)
    frames = frames + 0.1 * torch.randn(8, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    fused = fuse_clip(frames, range(8), lambda frame: [0, frame - 1], ExactMotion(clip), 0.5)
    exact = world.correspondence(clip, 1)
    assert warp_error(fused, exact).mean() < 0.4 * warp_error(frames, exact).mean()
