"""Frames between keyframes, in the small world where the truth is known."""

from random import Random

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from crossframe import consistency
from crossframe.demo import world
from crossframe.demo.exact_motion import ExactMotion
from crossframe.demo.looks import random_look
from crossframe.motion import EstimatedMotion, PairMotion, pixel_grid, shrunk_to
from crossframe.motion.chosen_frames import ChosenFrames
from crossframe.motion.gradients import from_gradients, gradients
from crossframe.motion.propagate import Neighbour, propagated

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
    share = 0.3 if exact else 0.7
    assert (found - truth).square().mean() < share * (faded - truth).square().mean()
    steps = world.correspondence(clip, 1)
    wobble = [float(consistency.warp_error(frames, steps).nanmean()) for frames in (found, faded)]
    assert wobble[0] < (0.3 if exact else 0.7) * wobble[1]


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
    assert torch.equal(found, motion.between(3, 0, SIZE).carry(truth[0]))


def test_the_one_that_explains_the_source_is_chosen():
    """The other one is far off, and nothing of it is seen, though it is nearer in time."""
    source = 0.4 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    still = PairMotion(pixel_grid(torch.empty(32, 32, 2)), torch.ones(32, 32))
    right = Neighbour(torch.full((3, 32, 32), 0.3), source, still, 7)
    wrong = Neighbour(torch.full((3, 32, 32), 0.9), source + 0.5, still, 1)
    for pair in ((right, wrong), (wrong, right)):
        assert (propagated(source, pair) - 0.3).abs().max() < 0.02


def test_from_gradients_solves_the_equation():
    """The same least squares, written down as a sparse matrix."""
    height, width, reach = 7, 9, 3.0
    random = torch.Generator().manual_seed(4)
    right, down, colours = torch.randn(3, height, width, generator=random, dtype=torch.float64)
    number = np.arange(height * width).reshape(height, width)
    rows, values = [], []
    for one, other, wanted in (
        (number[:, :-1], number[:, 1:], right[:, :-1]),
        (number[:-1], number[1:], down[:-1]),
    ):
        for a, b, value in zip(one.ravel(), other.ravel(), wanted.ravel().tolist()):
            rows.append({a: -1.0, b: 1.0})
            values.append(value)
    for pixel, value in zip(number.ravel(), colours.ravel().tolist()):
        rows.append({pixel: 1 / reach})
        values.append(value / reach)
    matrix = scipy.sparse.lil_matrix((len(rows), number.size))
    for row, entries in enumerate(rows):
        for column, entry in entries.items():
            matrix[row, column] = entry
    dense = matrix.toarray()
    expected = np.linalg.lstsq(dense, np.array(values), rcond=None)[0].reshape(height, width)
    found = from_gradients(right, down, colours, reach)
    assert np.allclose(found.numpy(), expected, atol=1e-9)


def test_a_picture_is_what_its_own_gradients_make():
    picture = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(from_gradients(*gradients(picture), picture, 4.0), picture, atol=1e-5)


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
