"""Reference policies: which frames a frame attends to.

A policy is data with one method: `references(frame)` names, for a frame of a clip, the
frames whose tokens become its keys and values, by absolute index. A frame's own index in
that tuple means its own tokens, so plain self-attention is `(frame,)`; an index may stand
twice and then weighs twice. Everything else, such as which hidden states have to be kept
and for how long, follows from this one method.

Add a policy
------------
Subclass `Policy`, decorate with `@dataclass(frozen=True)`, return a tuple, and give it a
name in `REFERENCES`:

    @dataclass(frozen=True)
    class Keyframes(Policy):
        every: int = 8

        def references(self, frame: int) -> tuple[int, ...]:
            return (frame - frame % self.every,)

Two rules: never name a frame after `frame` (it does not exist yet when frames are painted
one after another), and never return an empty tuple.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass


class Policy(ABC):
    """Which frames a frame takes its keys and values from."""

    @abstractmethod
    def references(self, frame: int) -> tuple[int, ...]:
        """Return the absolute indices of the reference frames of `frame` (0-based)."""

    def scene(self, frame: int) -> int:
        """The frame that counts as the first one for `frame`."""
        return 0


@dataclass(frozen=True)
class Own(Policy):
    """Plain self-attention: every frame attends to itself alone."""

    def references(self, frame: int) -> tuple[int, ...]:
        return (frame,)


@dataclass(frozen=True)
class First(Policy):
    """Every frame attends to the first one.

    The cross-frame attention of Text2Video-Zero (Khachatryan et al. 2023), section 3.3; there
    in all layers.
    """

    def references(self, frame: int) -> tuple[int, ...]:
        return (0,)


@dataclass(frozen=True)
class Previous(Policy):
    """Every frame attends to the one before it; the first to itself."""

    def references(self, frame: int) -> tuple[int, ...]:
        return (max(frame - 1, 0),)


@dataclass(frozen=True)
class FirstAndPrevious(Policy):
    """Every frame attends to the first and the previous one; the first frame to itself.

    The sparse-causal attention of Tune-A-Video (Wu et al. 2023), section 3.2, used without
    training as in Rerender A Video (Yang et al. 2023), section 4.1.
    """

    def references(self, frame: int) -> tuple[int, ...]:
        return (0, frame - 1) if frame else (0,)


@dataclass(frozen=True)
class WithSelf(Policy):
    """Another policy plus the frame's own tokens; the first frame keeps to its own."""

    policy: Policy

    def references(self, frame: int) -> tuple[int, ...]:
        others = self.policy.references(frame)
        return others if others == (frame,) else (frame, *others)


@dataclass(frozen=True)
class Scenes(Policy):
    """Another policy, begun anew where a scene starts: such a frame attends to itself alone.

    starts: numbers of frames; frame 0 starts a scene in any case.
    """

    policy: Policy
    starts: tuple[int, ...]

    def references(self, frame: int) -> tuple[int, ...]:
        start = self.scene(frame)
        return tuple(start + within for within in self.policy.references(frame - start))

    def scene(self, frame: int) -> int:
        return max((start for start in self.starts if start <= frame), default=0)


REFERENCES: dict[str, Policy] = {
    "first + previous": FirstAndPrevious(),
    "first": First(),
    "previous": Previous(),
}


def reference_policy(name: str, include_self: bool = False) -> Policy:
    """Return the policy called `name` in `REFERENCES`, with each frame's own tokens if asked.

    Raises KeyError for an unknown name.
    """
    policy = REFERENCES[name]
    return WithSelf(policy) if include_self else policy


def policy_name(policy: Policy) -> str:
    """What `REFERENCES` and its callers call a policy; its class if they have no name for it."""
    if isinstance(policy, Scenes):
        starts = ", ".join(map(str, policy.starts))
        return f"{policy_name(policy.policy)} (scenes from {starts})"
    if isinstance(policy, WithSelf):
        return f"{policy_name(policy.policy)} + self"
    names = (name for name, known in REFERENCES.items() if known == policy)
    return next(names, type(policy).__name__)


def with_scenes(policy: Policy, starts: Collection[int]) -> Policy:
    """A policy with more frames at which a scene starts; itself if there are none."""
    more = {start for start in starts if start > 0}
    if isinstance(policy, Scenes):
        more.update(policy.starts)
        policy = policy.policy
    return Scenes(policy, tuple(sorted(more))) if more else policy


def carried_frames(policy: Policy, frames: int) -> frozenset[int]:
    """Which of the first `frames` frames of a clip its later frames attend to.

    Asks as many later frames as there are earlier ones: a policy that looks back by a fixed
    distance, or at fixed frames, has named them all by then.
    """
    return frozenset(
        reference
        for later in range(frames, 2 * frames)
        for reference in policy.references(later)
        if reference < frames
    )


def last_readers(
    policy: Policy, frames: int, start: int = 0, carried: Collection[int] = ()
) -> list[int]:
    """For each of the first `frames` frames of a clip, the last later frame that attends to it.

    Only frames from `start` on count as readers; -1 where there is none: such a frame need not
    be kept. carried: frames that others after these `frames` will read; `frames` for them.
    Raises ValueError if the policy names a frame that is not in the past, or none at all.
    """
    readers = [-1] * frames
    for frame in range(start, frames):
        references = policy.references(frame)
        if not references or not all(0 <= reference <= frame for reference in references):
            raise ValueError(
                f"{policy!r} gives frame {frame} the references {references}; "
                f"they must be frames 0 to {frame}, at least one"
            )
        for reference in references:
            if reference != frame:
                readers[reference] = frame
    for frame in carried:
        readers[frame] = frames
    return readers


def frames_kept(readers: Sequence[int], start: int = 0) -> int:
    """How many frames are kept at once, at most, while frames are painted one by one.

    readers: what `last_readers` says. start: the first frame that is painted.
    """
    ends = [0] * (len(readers) + 1)
    for earlier in range(start):
        ends[max(readers[earlier], 0)] += readers[earlier] >= start
    kept = most = sum(ends)
    for frame in range(start, len(readers)):
        kept -= ends[frame]  # what this frame read last is dropped before it is kept itself
        if readers[frame] > frame:
            kept += 1
            ends[readers[frame]] += 1
        most = max(most, kept)
    return most
