"""Motion that is trusted in the background only."""

import pytest
import torch
from crossframe.motion import Motion
from crossframe.motion.background import BackgroundMotion
from crossframe.motion.field import MotionField

SIZE = (32, 32)
FIELD = MotionField(SIZE, 4.0, 0.0, 1.0, 0.0, (0.0, 1.0, 2.0))


def mask(*columns):
    """A foreground in some columns of each frame."""
    made = torch.zeros(len(columns), *SIZE)
    for frame, column in enumerate(columns):
        made[frame, :, column : column + 8] = 1
    return made


def test_neither_frame_may_show_the_foreground():
    motion = BackgroundMotion(FIELD, mask(0, 16, 24))
    found, whole = motion.between(1, 0), FIELD.between(1, 0)
    assert isinstance(motion, Motion)
    assert torch.equal(found.positions, whole.positions)
    held = torch.zeros(32, dtype=torch.bool)
    held[4:12] = True  # columns 0 to 7 of frame 0 lie there in frame 1
    held[16:24] = True
    held |= whole.trust[0] == 0
    assert torch.equal(found.trust[0] == 0, held)
    assert (found.trust[0][~held] == 1).all()


def test_one_mask_is_for_all_frames():
    one, many = BackgroundMotion(FIELD, mask(8)), BackgroundMotion(FIELD, mask(8, 8, 8))
    for pair in ((0, 1), (2, 0)):
        assert torch.equal(one.between(*pair).trust, many.between(*pair).trust)
    assert one.fingerprint != FIELD.fingerprint
    assert one.fingerprint != BackgroundMotion(FIELD, mask(9)).fingerprint


@pytest.mark.parametrize("size", [(64, 64), (8, 8), (32, 32)])
def test_a_mask_may_have_any_size(size):
    """A cell with any foreground in it is foreground."""
    foreground = torch.nn.functional.interpolate(mask(8)[None], size)[0]
    found = BackgroundMotion(FIELD, foreground).between(0, 0, (8, 8)).trust
    expected = torch.ones(8)
    expected[2:4] = 0
    assert torch.equal(found[0], expected)


def test_half_a_foreground_is_half_trusted():
    found = BackgroundMotion(FIELD, 0.5 * mask(0)).between(0, 0).trust
    assert torch.allclose(found[:, :8], torch.tensor(0.25))  # by this frame and by the other
