"""Soft masks of hidden places, and pictures that are laid over one another along the motion."""

import numpy as np
import pytest
import torch
from crossframe.motion import PairMotion, pixel_grid
from crossframe.motion.occlusion import on_cells, soft_occlusion
from crossframe.motion.pixel_fusion import laid_over
from scipy import ndimage

SIZE = 32, 40


def still(trust=1.0):
    trust = trust if isinstance(trust, torch.Tensor) else torch.full(SIZE, trust)
    return PairMotion(pixel_grid(torch.empty(*SIZE, 2)), trust)


def hole():
    trust = torch.ones(SIZE)
    trust[10:14, 20:30] = 0
    trust[0, 0] = 0
    return trust


def doubtful():
    """A trust that is nowhere whole and nowhere gone."""
    return 1 - 0.4 * torch.rand(SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("trust", [hole(), doubtful()], ids=["holes", "doubtful"])
def test_soft_occlusion_is_that_of_the_published_code(trust):
    """Widened by a square of 9 pixels, blurred by a kernel of 9, and the doubts are added."""
    hidden = 1 - trust.numpy()
    wide = ndimage.maximum_filter(hidden, size=9, mode="constant")
    weights = np.exp(-0.5 * (np.arange(-4, 5) / 18) ** 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    expected = np.clip(ndimage.convolve(wide, kernel, mode="mirror") + hidden, 0, 1)
    assert np.allclose(soft_occlusion(trust).numpy(), expected, atol=1e-5)


def test_what_is_seen_everywhere_is_not_hidden():
    assert torch.equal(soft_occlusion(torch.ones(SIZE)), torch.zeros(SIZE))


def test_a_cell_gets_its_largest_value():
    mask = torch.arange(16.0).reshape(4, 4)
    assert torch.equal(on_cells(mask, (2, 2)), torch.tensor([[5.0, 7.0], [13.0, 15.0]]))


def test_the_last_picture_lies_on_top():
    below, middle, top = (torch.full((*SIZE, 3), value) for value in (0.1, 0.5, 0.9))
    picture, hidden = laid_over(below, [(middle, still()), (top, still())])
    assert torch.allclose(picture, top)
    assert torch.equal(hidden, torch.zeros(SIZE))


def test_holes_show_what_is_below():
    below, middle, top = (torch.full((*SIZE, 3), value) for value in (0.1, 0.5, 0.9))
    picture, hidden = laid_over(below, [(middle, still()), (top, still(hole()))])
    assert torch.allclose(picture[12, 25], middle[12, 25])
    assert torch.allclose(picture[28, 38], top[28, 38])
    assert torch.equal(hidden, torch.zeros(SIZE))  # the middle one shows it
    picture, hidden = laid_over(below, [(middle, still(hole())), (top, still(hole()))])
    assert torch.allclose(picture[12, 25], below[12, 25])
    assert torch.allclose(hidden, soft_occlusion(hole()))


def test_seams_are_soft():
    """Around a hole, the picture below shines through as the soft mask says."""
    below, top = torch.zeros(*SIZE, 3), torch.ones(*SIZE, 3)
    picture, _ = laid_over(below, [(top, still(hole()))])
    assert torch.allclose(picture, 1 - soft_occlusion(hole())[..., None].expand_as(picture))
    assert ((picture > 0.1) & (picture < 0.9)).sum() > 100


def test_pictures_are_brought_along_the_motion():
    other = torch.rand(*SIZE, 3, generator=torch.Generator().manual_seed(0))
    moved = PairMotion(still().positions + torch.tensor([2.0, 0.0]), torch.ones(SIZE))
    picture, _ = laid_over(torch.zeros(*SIZE, 3), [(other, moved)])
    assert torch.allclose(picture[:, :-2], other[:, 2:], atol=1e-5)
