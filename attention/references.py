"""Reference policies: which frames a frame attends to.

A policy is data with one method. `references(frame)` names the frames whose tokens become the keys
and values of a frame, by their absolute index in the clip. A frame's own index in that tuple means
the frame's own tokens, so plain self-attention is `(frame,)`. Everything else follows from this one
method: in which order frames are painted, and what has to be kept for how long
(`painting_order.py`).

A plain number stands for a `Reference` that counts once. A policy may also return `Reference`
values, or name a frame twice, which then counts twice. It may name frames after `frame`: frames
that need one another are then painted together.

Add a policy
------------
Subclass `Policy`, decorate it with `@dataclass(frozen=True)`, return a tuple, and give it a
name in `REFERENCES`:

    @dataclass(frozen=True)
    class Keyframes(Policy):
        every: int = 8

        def references(self, frame: int) -> tuple[int, ...]:
            return (frame - frame % self.every,)

There are two rules. Never name a frame that the clip does not have, and never return an empty
tuple.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Reference:
    """A frame that another frame attends to.

    frame: its absolute index in the clip. weight: how many times its keys count in the softmax,
    a whole number from 1 on.
    """

    frame: int
    weight: int = 1


References = tuple["int | Reference", ...]


def as_reference(value: int | Reference) -> Reference:
    """Return a reference for what a policy has named. Raises ValueError for a weight below 1."""
    reference = value if isinstance(value, Reference) else Reference(value)
    if reference.weight < 1:
        raise ValueError(f"a reference counts at least once, not {reference.weight} times")
    return reference


class Policy(ABC):
    """Which frames a frame takes its keys and values from."""

    @abstractmethod
    def references(self, frame: int) -> References:
        """Return the references of a frame. frame: its absolute index, counted from 0."""

    def scene(self, frame: int) -> int:
        """Return the frame that counts as the first one for `frame`."""
        return 0


@dataclass(frozen=True)
class Own(Policy):
    """Plain self-attention: every frame attends to itself alone."""

    def references(self, frame: int) -> References:
        return (frame,)


@dataclass(frozen=True)
class First(Policy):
    """Every frame attends to the first one.

    This is the cross-frame attention of Text2Video-Zero (Khachatryan et al. 2023), section 3.3,
    which applies it in all layers.
    """

    def references(self, frame: int) -> References:
        return (0,)


@dataclass(frozen=True)
class Previous(Policy):
    """Every frame attends to the one before it, and the first frame to itself."""

    def references(self, frame: int) -> References:
        return (max(frame - 1, 0),)


@dataclass(frozen=True)
class FirstAndPrevious(Policy):
    """Every frame attends to the first and the previous one, and the first frame to itself.

    This is the sparse-causal attention of Tune-A-Video (Wu et al. 2023), section 3.2. It is used
    without training, as in Rerender A Video (Yang et al. 2023), section 4.1.
    """

    def references(self, frame: int) -> References:
        return (0, frame - 1) if frame else (0,)


@dataclass(frozen=True)
class WithSelf(Policy):
    """Another policy with the frame's own tokens added.

    A frame that already attends only to itself, such as the first frame, stays as it is.
    """

    policy: Policy

    def references(self, frame: int) -> References:
        others = self.policy.references(frame)
        alone = {as_reference(other).frame for other in others} == {frame}
        return others if alone else (frame, *others)


@dataclass(frozen=True)
class Scenes(Policy):
    """Another policy that begins again wherever a scene starts.

    A frame that starts a scene is treated like the first frame of a clip.
    starts: the numbers of these frames. Frame 0 always starts a scene.
    """

    policy: Policy
    starts: tuple[int, ...]

    def references(self, frame: int) -> References:
        start = self.scene(frame)
        within = map(as_reference, self.policy.references(frame - start))
        return tuple(replace(reference, frame=start + reference.frame) for reference in within)

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
    """Return the name of a policy in `REFERENCES`, or of its class if it has none there."""
    if isinstance(policy, Scenes):
        starts = ", ".join(map(str, policy.starts))
        return f"{policy_name(policy.policy)} (scenes from {starts})"
    if isinstance(policy, WithSelf):
        return f"{policy_name(policy.policy)} + self"
    names = (name for name, known in REFERENCES.items() if known == policy)
    return next(names, type(policy).__name__)


def with_scenes(policy: Policy, starts: Collection[int]) -> Policy:
    """Return a policy with further frames that start a scene, or itself if none are given."""
    more = {start for start in starts if start > 0}
    if isinstance(policy, Scenes):
        more.update(policy.starts)
        policy = policy.policy
    return Scenes(policy, tuple(sorted(more))) if more else policy


def attended(policy: Policy, frame: int) -> tuple[int, ...]:
    """Return the frames that a frame attends to, each repeated as many times as its weight says.

    Raises ValueError if the policy names none, or gives a weight below 1.
    """
    references = [as_reference(value) for value in policy.references(frame)]
    if not references:
        raise ValueError(f"{policy!r} names no references for frame {frame}")
    return tuple(r.frame for r in references for _ in range(r.weight))
