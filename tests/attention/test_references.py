"""Policies are data: whom a frame attends to, and what has to be kept for that."""

from dataclasses import dataclass

import pytest
from crossframe.attention.references import (
    REFERENCES,
    First,
    FirstAndPrevious,
    Own,
    Policy,
    Previous,
    WithSelf,
    frames_kept,
    last_readers,
    reference_policy,
)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (FirstAndPrevious(), [(0,), (0, 0), (0, 1), (0, 2)]),
        (First(), [(0,), (0,), (0,), (0,)]),
        (Previous(), [(0,), (0,), (1,), (2,)]),
        (Own(), [(0,), (1,), (2,), (3,)]),
        (WithSelf(FirstAndPrevious()), [(0,), (1, 0, 0), (2, 0, 1), (3, 0, 2)]),
        (WithSelf(First()), [(0,), (1, 0), (2, 0), (3, 0)]),
        (WithSelf(Previous()), [(0,), (1, 0), (2, 1), (3, 2)]),
        (WithSelf(Own()), [(0,), (1,), (2,), (3,)]),
    ],
    ids=repr,
)
def test_references(policy, expected):
    assert [policy.references(frame) for frame in range(4)] == expected


def test_by_name():
    assert list(REFERENCES) == ["first + previous", "first", "previous"]
    assert reference_policy("first") == First()
    assert reference_policy("previous", include_self=True) == WithSelf(Previous())
    with pytest.raises(KeyError):
        reference_policy("last")


@pytest.mark.parametrize(
    ("policy", "readers", "kept"),
    [
        (FirstAndPrevious(), [5, 2, 3, 4, 5, -1], 2),
        (First(), [5, -1, -1, -1, -1, -1], 1),
        (Previous(), [1, 2, 3, 4, 5, -1], 1),
        (Own(), [-1] * 6, 0),
        (WithSelf(FirstAndPrevious()), [5, 2, 3, 4, 5, -1], 2),
    ],
    ids=repr,
)
def test_what_must_be_kept(policy, readers, kept):
    assert last_readers(policy, 6) == readers
    assert frames_kept(last_readers(policy, 6)) == kept
    assert frames_kept(last_readers(policy, 1)) == 0


def test_a_policy_of_ones_own():
    """The module's recipe works, and which frames are kept follows from it."""

    @dataclass(frozen=True)
    class Keyframes(Policy):
        every: int = 3

        def references(self, frame):
            return (frame - frame % self.every,)

    assert last_readers(Keyframes(), 8) == [2, -1, -1, 5, -1, -1, 7, -1]
    assert frames_kept(last_readers(Keyframes(), 8)) == 1


@pytest.mark.parametrize("references", [(1,), (0, 3), (), (-1,)])
def test_impossible_policies_are_refused(references):
    @dataclass(frozen=True)
    class Broken(Policy):
        def references(self, frame):
            return references if frame == 0 else (frame,)

    with pytest.raises(ValueError, match="frame 0"):
        last_readers(Broken(), 2)
