"""Moving copies of a noisy latent: where they lie, and how much noise they have."""

import pytest
import torch
from crossframe.latents.dynamics import NEAREST, SMOOTH, moved_copies, with_more_noise
from crossframe.motion.field import MotionField

FRAMES, CELLS, CELL = 4, 64, 8  # cells of 8 pixels


def field(x, y=0.0):
    places = tuple(float(frame) for frame in range(FRAMES))
    return MotionField((CELLS * CELL, CELLS * CELL), x, y, 1.0, 0.0, places)


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("reading", [NEAREST, SMOOTH])
@pytest.mark.parametrize("shape", [(1, 4, CELLS, CELLS), (1, 16, 1, CELLS, CELLS)])
def test_whole_cells_move_and_nothing_else(reading, shape):
    latent = randn(*shape)
    copies, left = moved_copies(latent, field(16.0, -8.0), reading)
    assert copies.shape == (FRAMES, *shape[1:])
    assert torch.equal(left, torch.ones(FRAMES, CELLS, CELLS))
    for frame, copy in enumerate(copies):
        inner = slice(8, -8)
        expected = latent[0].roll((2 * frame, -frame), (-1, -2))
        assert torch.allclose(copy[..., inner, inner], expected[..., inner, inner], atol=1e-5)


def test_beyond_the_rim_it_is_mirrored():
    latent = randn(1, 1, CELLS, CELLS)
    copies, _ = moved_copies(latent, field(16.0), NEAREST)
    assert torch.equal(copies[1][..., :2], latent[0][..., :2].flip(-1))


def test_half_a_cell_takes_no_cell_twice():
    """Halfway between two cells, all go to the same side."""
    latent = torch.arange(float(CELLS)).expand(1, 1, CELLS, CELLS).contiguous()
    copies, _ = moved_copies(latent, field(-4.0), NEAREST)
    steps = copies[1][0, 0, :-2].diff()
    assert torch.equal(steps, torch.ones_like(steps))


def test_the_published_way_to_move():
    """A field of 512 pixels that holds where each pixel comes from, brought to the latent's size.

    Moved things go against the published flow, which says where to read. It counts from the corners
    of pixels, so it is half a pixel off; this shows where a cell's rounding is undecided only.
    """
    latent = randn(1, 4, 64, 64)
    copies, _ = moved_copies(latent, field(-12.0, -12.0), NEAREST)
    for frame in range(FRAMES):
        y, x = torch.meshgrid(torch.arange(512.0), torch.arange(512.0), indexing="ij")
        where = (torch.stack((x, y)) + 12 * frame) / 512 * 2 - 1
        where = torch.nn.functional.interpolate(where[None], (64, 64), mode="bilinear")
        published = torch.nn.functional.grid_sample(
            latent, where.permute(0, 2, 3, 1), "nearest", "reflection", align_corners=False
        )
        assert torch.equal(copies[frame], published[0])


@pytest.mark.parametrize("reading", [NEAREST, SMOOTH])
@pytest.mark.parametrize("x", [8.0, 4.0, 3.0])
def test_the_noise_has_the_level_that_is_wanted(reading, x):
    level, wanted = 3.0, 5.0
    copies, left = moved_copies(level * randn(1, 64, CELLS, CELLS), field(x), reading)
    found = with_more_noise(copies, randn(*copies.shape, seed=2), level, wanted, left)
    assert torch.allclose(found.std(dim=(1, 2, 3)), torch.full((FRAMES,), wanted), rtol=0.02)


def test_smooth_motion_moves_by_less_than_a_cell():
    ramp = torch.arange(float(CELLS)).expand(1, 1, CELLS, CELLS).contiguous()
    copies, left = moved_copies(ramp, field(2.0), SMOOTH)
    assert torch.allclose(copies[1][0, 0, 4:-4], ramp[0, 0, 0, 4:-4] - 0.25)
    assert torch.allclose(left[1], torch.tensor(0.75**2 + 0.25**2))


def test_less_noise_than_there_is_cannot_be_added():
    with pytest.raises(ValueError, match="a noise level of 1 is wanted, but the latent has 2"):
        with_more_noise(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), 2.0, 1.0)


def test_it_is_diffusion_from_one_step_to_an_earlier_one():
    """The same in the variance-preserving scaling: x * sqrt(A) + noise * sqrt(1 - A)."""
    kept = torch.tensor([0.3, 0.1], dtype=torch.float64)  # alphas_cumprod of the later, the earlier
    clean, noise, new = randn(3, 2, 4, 8, 8).double()
    level, wanted = (((1 - a) / a).sqrt() for a in kept)
    x = kept[0].sqrt() * clean + (1 - kept[0]).sqrt() * noise
    share = kept[1] / kept[0]
    published = share.sqrt() * x + (1 - share).sqrt() * new
    found = with_more_noise(clean + level * noise, new, float(level), float(wanted))
    assert torch.allclose(found * kept[1].sqrt(), published)


def test_it_is_flow_matching_from_one_step_to_an_earlier_one():
    """x = (1 - s) * clean + s * noise; its parts get the shares of the earlier step."""
    later, earlier = 0.6, 0.8
    clean, noise, new = randn(3, 2, 4, 8, 8).double()
    x = (1 - later) * clean + later * noise
    scale = (1 - earlier) / (1 - later)
    added = (earlier**2 - (scale * later) ** 2) ** 0.5
    by_hand = scale * x + added * new
    found = with_more_noise(x / (1 - later), new, later / (1 - later), earlier / (1 - earlier))
    assert torch.allclose((1 - earlier) * found, by_hand)
