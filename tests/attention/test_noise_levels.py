"""Noise levels of two machines: rounding is no difference, another schedule is one."""

import itertools
from dataclasses import replace

import pytest
import torch
from crossframe.attention import FrameByFrame, Key, Layer, PaintingOrder, Run, reference_policy
from crossframe.attention.noise_levels import at_most, first_difference, same_level, told_apart


@pytest.mark.parametrize("level", [1.2345e-2, 0.248, 14.6146, 999.0])
def test_one_rounding_is_no_difference(level):
    """A float32 may be rounded up or down."""
    one = torch.tensor(level)
    for towards in (0.0, torch.inf):
        other = torch.nextafter(one, torch.tensor(towards))
        assert other != one
        assert same_level(float(one), float(other))
        assert at_most(float(one), float(other))


def test_neighbouring_steps_differ_however_many_there_are():
    levels = torch.linspace(14.6146, 0.0292, 10_000).tolist()
    assert not any(same_level(*pair) for pair in itertools.pairwise(levels))
    assert not same_level(0.0, levels[-1])
    assert same_level(0.0, 0.0)


def test_the_first_difference_is_found():
    assert first_difference([3, 2, 1], [3, 2 + 1e-6, 1]) is None
    assert first_difference([3, 2, 1], [3, 2.001, 1.5]) == 1
    assert first_difference([3, 2, 1], [3, 2]) == 2


@pytest.mark.parametrize("shift", [1e-2, 1e-5, 1e-12])
def test_different_numbers_are_told_in_digits_that_differ(shift):
    one, other = told_apart(0.248, 0.248 * (1 + shift))
    assert one != other
    assert told_apart(1.0, 2.0) == ("1", "2")


def test_frames_go_on_from_noise_levels_that_were_rounded_otherwise():
    policy = reference_policy("previous")
    first = FrameByFrame(Run(policy, PaintingOrder.of(policy, 1, carry=True)))
    first.next_group()
    for level in (3.0, 2.0, 1.0):
        first.next_step(level)
    order = PaintingOrder.of(policy, 2, start=1)
    later = FrameByFrame(Run(policy, order, state=_with_frame(first.leave())))
    later.next_group()
    for level in (3.0, 2.0, 1.0):
        later.next_step(level * (1 - 2**-22))
    assert later.step == 2


def _with_frame(state):
    """Return the state as if it held something of its last frame."""
    key = Key(0, Layer("output", 0, 0), "cond", 1)
    return replace(state, stored={key: {state.frames - 1: ()}})
