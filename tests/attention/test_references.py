"""Policies are data: whom a frame attends to, and what has to be kept for that."""

from dataclasses import dataclass

import pytest
from crossframe.attention.painting_order import NOBODY, PaintingOrder
from crossframe.attention.references import (
    REFERENCES,
    First,
    FirstAndPrevious,
    Own,
    Policy,
    Previous,
    Reference,
    Scenes,
    WithSelf,
    attended,
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
        (Scenes(FirstAndPrevious(), (2,)), [(0,), (0, 0), (2,), (2, 2)]),
        (WithSelf(Scenes(First(), (2,))), [(0,), (1, 0), (2,), (3, 2)]),
    ],
    ids=repr,
)
def test_references(policy, expected):
    assert [attended(policy, frame) for frame in range(4)] == expected


@dataclass(frozen=True)
class Named(Policy):
    """Frame 0 has the given references, and every other frame attends to itself."""

    given: tuple

    def references(self, frame):
        return self.given if frame == 0 else (frame,)


def test_a_reference_with_a_weight_counts_as_often():
    assert attended(Named((Reference(3, weight=2), 1)), 0) == (3, 3, 1)
    scenes = Scenes(Named((Reference(0, weight=2),)), (4,))
    assert attended(scenes, 4) == (4, 4)
    with pytest.raises(ValueError, match="0 times"):
        attended(Named((Reference(3, weight=0),)), 0)


def test_by_name():
    assert list(REFERENCES) == ["first + previous", "first", "previous"]
    assert reference_policy("first") == First()
    assert reference_policy("previous", include_self=True) == WithSelf(Previous())
    with pytest.raises(KeyError):
        reference_policy("last")


@pytest.mark.parametrize(
    ("policy", "readers", "kept"),
    [
        (FirstAndPrevious(), (5, 2, 3, 4, 5, NOBODY), 2),
        (First(), (5, *[NOBODY] * 5), 1),
        (Previous(), (1, 2, 3, 4, 5, NOBODY), 1),
        (Own(), (NOBODY,) * 6, 0),
        (WithSelf(FirstAndPrevious()), (5, 2, 3, 4, 5, NOBODY), 2),
    ],
    ids=repr,
)
def test_what_must_be_kept(policy, readers, kept):
    order = PaintingOrder.of(policy, 6)
    assert order.groups == ((0,), (1,), (2,), (3,), (4,), (5,))
    assert order.last_readers == readers
    assert order.most_kept() == kept
    assert PaintingOrder.of(policy, 1).most_kept() == 0


@pytest.mark.parametrize(
    ("policy", "start", "carry", "readers", "wanted", "kept"),
    [
        (FirstAndPrevious(), 3, False, (2, NOBODY, 0, 1, 2, NOBODY), {0, 2}, 2),
        (FirstAndPrevious(), 3, True, (3, NOBODY, 0, 1, 2, 3), {0, 2}, 2),
        (First(), 3, True, (3, *[NOBODY] * 5), {0}, 1),
        (Own(), 3, True, (NOBODY,) * 6, set(), 0),
    ],
    ids=repr,
)
def test_a_part_of_a_clip(policy, start, carry, readers, wanted, kept):
    order = PaintingOrder.of(policy, 6, start, carry)
    assert order.groups == ((3,), (4,), (5,))
    assert (order.last_readers, order.wanted(), order.most_kept()) == (readers, wanted, kept)
    assert order.wanted(done=2) == {f for f, r in enumerate(readers) if r >= 2 and f < 5}


def test_frames_that_need_one_another_are_a_group():
    @dataclass(frozen=True)
    class Pairs(Policy):
        """Frames 2 and 3 need each other, and 5; all others look back."""

        def references(self, frame):
            return {2: (3, 5), 3: (2,)}.get(frame, (max(frame - 1, 0),))

    with pytest.raises(ValueError, match="the frames 0 to 4"):
        PaintingOrder.of(Pairs(), 5)
    order = PaintingOrder.of(Pairs(), 6)
    assert order.groups == ((0,), (1,), (2, 3, 4, 5))
    assert order.last_readers == (1, *[NOBODY] * 5)


def test_a_policy_of_ones_own():
    """The module's recipe works, and which frames are kept follows from it."""

    @dataclass(frozen=True)
    class Keyframes(Policy):
        every: int = 3

        def references(self, frame):
            return (frame - frame % self.every,)

    order = PaintingOrder.of(Keyframes(), 8)
    assert order.last_readers == (2, -1, -1, 5, -1, -1, 7, -1)
    assert order.most_kept() == 1


@pytest.mark.parametrize("references", [(2,), (0, 3), (), (-1,)])
def test_impossible_policies_are_refused(references):
    with pytest.raises(ValueError, match="frame 0"):
        PaintingOrder.of(Named(references), 2)
