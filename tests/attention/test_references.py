"""Policies are data: whom a frame attends to, and what has to be kept for that."""

from dataclasses import dataclass
from math import inf, log, nan

import pytest
from crossframe.attention.painting_order import NOBODY, PaintingOrder
from crossframe.attention.references import (
    REFERENCES,
    First,
    FirstAndPrevious,
    Keyframes,
    Own,
    Policy,
    Previous,
    Reference,
    Scenes,
    Weights,
    WithSelf,
    attended,
    merged,
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
    assert [frames_of(policy, frame) for frame in range(4)] == expected


def frames_of(policy, frame):
    references = attended(policy, frame)
    assert {reference.weight for reference in references} == {1}
    return tuple(reference.frame for reference in references)


@dataclass(frozen=True)
class Named(Policy):
    """Frame 0 has the given references, and every other frame attends to itself."""

    given: tuple

    def references(self, frame):
        return self.given if frame == 0 else (frame,)


def test_weights():
    """Different weights become biases of frames that are named once; equal ones change nothing."""
    named = (Reference(3, weight=2), 1, 3, Reference(5, weight=0))
    frames, added = merged(attended(Named(named), 0))
    assert frames == (3, 1)
    assert added == pytest.approx({3: 0, 1: log(1 / 3)})
    assert merged(attended(Named((Reference(3, 0.5), Reference(1, 0.5))), 0)) == ((3, 1), {})
    assert attended(Scenes(Named((Reference(0, weight=2),)), (4,)), 4) == (Reference(4, 2),)
    with pytest.raises(ValueError, match="no references with a weight for frame 0"):
        attended(Named((Reference(3, weight=0),)), 0)
    for weight in (-1, nan, inf):
        with pytest.raises(ValueError, match="0 or more"):
            attended(Named((Reference(3, weight=weight),)), 0)


def test_a_weight_of_0_leaves_a_reference_out():
    def frames(name, include_self=False, **weights):
        policy = reference_policy(name, include_self, Weights(**weights), (2, 5))
        return [{r.frame for r in attended(policy, frame)} for frame in range(7)]

    for own in (False, True):
        assert frames("first + previous", own, previous=0) == frames("first", own)
        assert frames("first + previous", own, first=0) == frames("previous", own)
        assert frames("keyframes + previous", own, previous=0) == frames("keyframes", own)
    for name in REFERENCES:
        assert frames(name, True, own=0) == frames(name) != frames(name, True)
    for name in REFERENCES[:3]:
        assert frames(name, True, first=0, previous=0) == [{frame} for frame in range(7)]


def test_keyframes():
    keyframes = Keyframes((2, 5))
    assert [frames_of(keyframes, frame) for frame in (0, 2, 3, 5)] == [(2, 5)] * 4
    beside = Keyframes((2, 5), previous=1)
    found = [frames_of(beside, frame) for frame in range(7)]
    assert found == [(2, 5), (2, 5, 0), (2, 5), (2, 5, 2), (2, 5, 3), (2, 5), (2, 5, 5)]
    scenes = Scenes(WithSelf(keyframes), (3, 8))
    found = [frames_of(scenes, frame) for frame in (0, 2, 4, 5, 8, 9)]
    assert found == [(0, 2), (2,), (4, 5), (5,), (8,), (9, 8)]


def test_keyframes_are_chosen_for_every_scene():
    scenes = Scenes(WithSelf(Keyframes()), (4, 10))
    assert scenes.of_clip([range(12)]).named == {0, 2, 3, 4, 6, 9, 10, 11}
    assert Keyframes().of_clip([range(1)]).named == {0}
    assert Keyframes((7,)).of_clip([range(20)]) == Keyframes((7,))
    assert First().of_clip([range(20)]) == First()


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (reference_policy("first + previous"), "first + previous"),
        (
            reference_policy("first + previous", True, Weights(2, 0.5, 1)),
            "2 x first + 0.5 x previous + self",
        ),
        (Scenes(Keyframes((0, 7), 1, 3), (4,)), "3 x keyframes (0, 7) + previous (scenes from 4)"),
        (reference_policy("keyframes"), "keyframes (chosen)"),
    ],
)
def test_names_for_the_log(policy, name):
    assert policy.name == name


def test_by_name():
    assert REFERENCES[:3] == ("first + previous", "first", "previous")
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
    class Periodic(Policy):
        every: int = 3

        def references(self, frame):
            return (frame - frame % self.every,)

    order = PaintingOrder.of(Periodic(), 8)
    assert order.last_readers == (2, -1, -1, 5, -1, -1, 7, -1)
    assert order.most_kept() == 1


@pytest.mark.parametrize("references", [(2,), (0, 3), (), (-1,)])
def test_impossible_policies_are_refused(references):
    with pytest.raises(ValueError, match="frame 0"):
        PaintingOrder.of(Named(references), 2)
