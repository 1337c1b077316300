"""Made-up motion: what was asked for is where things lie."""

import math

import pytest
import torch
from crossframe.motion import Motion, pixel_grid
from crossframe.motion.field import EVEN, PACES, MotionField, along
from crossframe.motion.keyframes import keyframes

FRAMES, SIZE = 5, (48, 64)


def field(x=0.0, y=0.0, zoom=1.0, turn=0.0, pace=EVEN, frames=FRAMES):
    return MotionField(SIZE, x, y, zoom, turn, along(frames, PACES[pace]))


def test_it_is_a_motion():
    assert isinstance(field(), Motion)
    assert field().frames == FRAMES
    assert field(x=1).fingerprint == field(x=1).fingerprint
    assert field(x=1).fingerprint != field(x=2).fingerprint


def test_a_shift_is_in_pixels_per_frame():
    there = field(x=3, y=-2).between(1, 4).positions
    assert torch.allclose(there - pixel_grid(there), torch.tensor([9.0, -6.0]).expand_as(there))


def test_on_a_grid_it_is_in_cells():
    there = field(x=8, y=4).between(0, 1, (6, 16)).positions  # cells of 8 x 4 pixels
    assert torch.allclose(there - pixel_grid(there), torch.tensor([2.0, 0.5]).expand_as(there))


def test_it_turns_clockwise_about_the_centre():
    there = field(turn=90).between(0, 1).positions
    centre = torch.tensor([32.0, 24.0])
    above = there[0, 31] - centre  # what is above the centre comes to its right
    assert torch.allclose(above, torch.tensor([23.5, -0.5]), atol=1e-4)


def test_it_grows_about_the_centre():
    there = field(zoom=2).between(0, 2).positions
    centre = torch.tensor([32.0, 24.0])
    here = pixel_grid(there)
    assert torch.allclose(there - centre, 4 * (here - centre), atol=1e-4)


@pytest.mark.parametrize("pace", PACES)
def test_there_and_back_is_the_same_place(pace):
    motion = field(x=2, y=1, zoom=1.1, turn=20, pace=pace)
    here = pixel_grid(torch.empty(*SIZE, 2, dtype=torch.float64))
    for frame, other in ((0, 3), (4, 1), (2, 2)):
        forth = motion._moved(here, frame, other)
        assert torch.allclose(motion._moved(forth, other, frame), here)
    over = motion._moved(motion._moved(here, 0, 2), 2, 4)
    assert torch.allclose(over, motion._moved(here, 0, 4))


def test_what_is_not_shown_is_not_trusted():
    trust = field(x=10).between(0, 1).trust
    assert trust[:, :54].all()
    assert not trust[:, 54:].any()


@pytest.mark.parametrize("pace", [pace for pace in PACES if pace != "there and back"])
def test_every_pace_goes_the_whole_way(pace):
    places = along(9, PACES[pace])
    assert places[0] == 0
    assert math.isclose(places[-1], 8)
    assert list(places) == sorted(places)


def test_there_and_back_goes_half_of_it_at_the_even_pace():
    assert along(9, PACES["there and back"]) == (0, 1, 2, 3, 4, 3, 2, 1, 0)


def test_keyframes_come_when_half_is_new():
    assert keyframes(field(x=4, frames=20)) == [0, 9, 18]


def test_a_frame_beyond_the_clip():
    with pytest.raises(IndexError, match="frame 5 of a clip of 5 frames"):
        field().between(0, 5)
