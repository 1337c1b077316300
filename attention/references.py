"""Reference policies: which frames a frame attends to.

A policy is data with one method. `references(frame)` names the frames whose tokens become the keys
and values of a frame, by their absolute index in the clip. A frame's own index in that tuple means
the frame's own tokens, so plain self-attention is `(frame,)`. Everything else follows from this one
method: in which order frames are painted, and what has to be kept for how long
(`painting_order.py`).

A plain number stands for a `Reference` of weight 1. A policy may also return `Reference` values, or
name a frame twice, which then counts twice. It may name frames after `frame`: frames that need one
another are then painted together.

Add a policy
------------
Subclass `Policy`, decorate it with `@dataclass(frozen=True)`, return a tuple, and give it a
name in `REFERENCES`:

    @dataclass(frozen=True)
    class Periodic(Policy):
        every: int = 8

        def references(self, frame: int) -> tuple[int, ...]:
            return (frame - frame % self.every,)

There are two rules. Never name a frame that the clip does not have, and never return an empty
tuple.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, log

CHOSEN_KEYFRAMES = 3  # in a scene for which the user has named none


@dataclass(frozen=True)
class Reference:
    """A frame that another frame attends to.

    frame: its absolute index in the clip. weight: a factor on the softmax mass of its keys, at
    least 0. A reference with weight 0 is left out.
    """

    frame: int
    weight: float = 1.0


References = tuple["int | Reference", ...]


def as_reference(value: int | Reference) -> Reference:
    """Return a reference for what a policy has named. Raises ValueError for a negative weight."""
    reference = value if isinstance(value, Reference) else Reference(value)
    if not (isfinite(reference.weight) and reference.weight >= 0):
        raise ValueError(f"a weight must be 0 or more, not {reference.weight}")
    return reference


class Policy(ABC):
    """Which frames a frame takes its keys and values from."""

    @abstractmethod
    def references(self, frame: int) -> References:
        """Return the references of a frame. frame: its absolute index, counted from 0."""

    @property
    def name(self) -> str:
        """What the policy is called in the log."""
        return type(self).__name__

    @property
    def named(self) -> frozenset[int]:
        """The frames that the policy names outright, by their absolute index."""
        return frozenset()

    def scene(self, frame: int) -> int:
        """Return the frame that counts as the first one for `frame`."""
        return 0

    def of_clip(self, scenes: Sequence[range]) -> "Policy":
        """Return the policy for a clip of known length. scenes: the frames of each scene in it."""
        return self

    def within(self, start: int, stop: float) -> "Policy":
        """Return the policy for one scene, in which frames are counted from its start.

        stop: the first frame of the next scene, or infinity.
        """
        return self


@dataclass(frozen=True)
class Own(Policy):
    """Plain self-attention: every frame attends to itself alone."""

    def references(self, frame: int) -> References:
        return (frame,)


@dataclass(frozen=True)
class First(Policy):
    """Every frame attends to the first one.

    This is the cross-frame attention of Text2Video-Zero (Khachatryan et al. 2023), section 3.3,
    which applies it in all layers. weight: that of the first frame.
    """

    weight: float = 1.0

    @property
    def name(self) -> str:
        return _times("first", self.weight)

    def references(self, frame: int) -> References:
        return (Reference(0, self.weight),) if frame else (0,)


@dataclass(frozen=True)
class Previous(Policy):
    """Every frame attends to the one before it, and the first frame to itself.

    weight: that of the previous frame.
    """

    weight: float = 1.0

    @property
    def name(self) -> str:
        return _times("previous", self.weight)

    def references(self, frame: int) -> References:
        return (Reference(frame - 1, self.weight),) if frame else (0,)


@dataclass(frozen=True)
class FirstAndPrevious(Policy):
    """Every frame attends to the first and the previous one, and the first frame to itself.

    This is the sparse-causal attention of Tune-A-Video (Wu et al. 2023), section 3.2. It is used
    without training, as in Rerender A Video (Yang et al. 2023), section 4.1.
    first, previous: the weights of these frames, of which one must be above 0.
    """

    first: float = 1.0
    previous: float = 1.0

    @property
    def name(self) -> str:
        return f"{_times('first', self.first)} + {_times('previous', self.previous)}"

    def references(self, frame: int) -> References:
        if frame == 0:
            return (0,)
        return (Reference(0, self.first), Reference(frame - 1, self.previous))


@dataclass(frozen=True)
class Keyframes(Policy):
    """Keyframes attend to all keyframes, and so does every other frame.

    Joint painting of keyframes is the anchor of TokenFlow (Geyer et al. 2023), section 4.1
    ("extended attention"). frames: the keyframes, by their absolute index. previous: the weight of
    the frame before, to which frames that are no keyframes then attend as well; 0 leaves it out.
    weight: that of every keyframe.

    Without frames, the policy must be asked `of_clip` for one that has some.
    """

    frames: tuple[int, ...] = ()
    previous: float = 0.0
    weight: float = 1.0

    @property
    def name(self) -> str:
        frames = ", ".join(map(str, self.frames)) or "chosen"
        name = f"{_times('keyframes', self.weight)} ({frames})"
        return f"{name} + {_times('previous', self.previous)}" if self.previous else name

    @property
    def named(self) -> frozenset[int]:
        return frozenset(self.frames)

    def references(self, frame: int) -> References:
        keyframes = tuple(Reference(keyframe, self.weight) for keyframe in self.frames)
        if frame in self.frames or frame == 0:
            return keyframes
        return (*keyframes, Reference(frame - 1, self.previous))

    def of_clip(self, scenes: Sequence[range]) -> "Policy":
        if self.frames:
            return self
        chosen = {frame for scene in scenes for frame in evenly(scene, CHOSEN_KEYFRAMES)}
        return replace(self, frames=tuple(sorted(chosen)))

    def within(self, start: int, stop: float) -> "Policy":
        """Return the policy with the keyframes of one scene, or its first frame if it has none."""
        frames = tuple(frame - start for frame in self.frames if start <= frame < stop)
        return replace(self, frames=frames or (0,))


def evenly(frames: range, count: int) -> tuple[int, ...]:
    """Return so many frames at equal distances, with the first and the last one, or all of them."""
    if len(frames) <= count:
        return tuple(frames)
    return tuple(frames[round(n * (len(frames) - 1) / (count - 1))] for n in range(count))


@dataclass(frozen=True)
class WithSelf(Policy):
    """Another policy with the frame's own tokens added.

    A frame that already attends only to itself, such as the first frame, stays as it is.
    weight: that of the frame's own tokens.
    """

    policy: Policy
    weight: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.policy.name} + {_times('self', self.weight)}"

    @property
    def named(self) -> frozenset[int]:
        return self.policy.named

    def references(self, frame: int) -> References:
        others = self.policy.references(frame)
        alone = {as_reference(other).frame for other in others} == {frame}
        return others if alone else (Reference(frame, self.weight), *others)

    def of_clip(self, scenes: Sequence[range]) -> "Policy":
        return replace(self, policy=self.policy.of_clip(scenes))

    def within(self, start: int, stop: float) -> "Policy":
        return replace(self, policy=self.policy.within(start, stop))


@dataclass(frozen=True)
class Scenes(Policy):
    """Another policy that begins again wherever a scene starts.

    A frame that starts a scene is treated like the first frame of a clip.
    starts: the numbers of these frames. Frame 0 always starts a scene.
    """

    policy: Policy
    starts: tuple[int, ...]

    @property
    def name(self) -> str:
        starts = ", ".join(map(str, self.starts))
        return f"{self.policy.name} (scenes from {starts})"

    @property
    def named(self) -> frozenset[int]:
        return self.policy.named

    def references(self, frame: int) -> References:
        start = self.scene(frame)
        stop = min((other for other in self.starts if other > frame), default=inf)
        within = map(as_reference, self.policy.within(start, stop).references(frame - start))
        return tuple(replace(reference, frame=start + reference.frame) for reference in within)

    def scene(self, frame: int) -> int:
        return max((start for start in self.starts if start <= frame), default=0)

    def of_clip(self, scenes: Sequence[range]) -> "Policy":
        parts = [part for scene in scenes for part in self._parts(scene)]
        return replace(self, policy=self.policy.of_clip(parts))

    def _parts(self, frames: range) -> list[range]:
        """Cut consecutive frames where scenes start."""
        inner = [start for start in sorted(self.starts) if frames.start < start < frames.stop]
        edges = [frames.start, *inner, frames.stop]
        return [range(start, stop) for start, stop in pairwise(edges)]


def _times(name: str, weight: float) -> str:
    """Write a weight before a name, unless it is 1."""
    return name if weight == 1 else f"{weight:g} x {name}"


@dataclass(frozen=True)
class Weights:
    """The weights of the parts of a policy. first: that of the first frame, or of each keyframe."""

    first: float = 1.0
    previous: float = 1.0
    own: float = 1.0


REFERENCES = ("first + previous", "first", "previous", "keyframes", "keyframes + previous")
WITH_KEYFRAMES = frozenset({"keyframes", "keyframes + previous"})


def reference_policy(
    name: str,
    include_self: bool = False,
    weights: Weights = Weights(),
    keyframes: tuple[int, ...] = (),
) -> Policy:
    """Return the policy called `name` in REFERENCES, with each frame's own tokens if asked.

    keyframes: those of the policies in WITH_KEYFRAMES; none means that they are chosen later (see
    `Policy.of_clip`). Raises KeyError for an unknown name.
    """
    first, previous = weights.first, weights.previous
    policies: dict[str, Policy] = {
        "first + previous": FirstAndPrevious(first, previous),
        "first": First(first),
        "previous": Previous(previous),
        "keyframes": Keyframes(keyframes, weight=first),
        "keyframes + previous": Keyframes(keyframes, previous, first),
    }
    policy = policies[name]
    return WithSelf(policy, weights.own) if include_self else policy


def with_scenes(policy: Policy, starts: Collection[int]) -> Policy:
    """Return a policy with further frames that start a scene, or itself if none are given."""
    more = {start for start in starts if start > 0}
    if isinstance(policy, Scenes):
        more.update(policy.starts)
        policy = policy.policy
    return Scenes(policy, tuple(sorted(more))) if more else policy


def attended(policy: Policy, frame: int) -> tuple[Reference, ...]:
    """Return the references of a frame that have a weight, as often as the policy names them.

    Raises ValueError if the policy names none, or if no weight is above 0.
    """
    references = [as_reference(value) for value in policy.references(frame)]
    weighed = tuple(reference for reference in references if reference.weight > 0)
    if not weighed:
        raise ValueError(f"{policy!r} names no references with a weight for frame {frame}")
    return weighed


def merged(references: Sequence[Reference]) -> tuple[tuple[int, ...], dict[int, float]]:
    """Return the frames of references, and what is added to the logits of each one's keys.

    A factor on the softmax mass of keys is its logarithm, added to their logits. If all weights are
    equal, frames are returned as often as they are named, and nothing is added. Otherwise each
    frame is returned once, with the sum of its weights.
    """
    if len({reference.weight for reference in references}) == 1:
        return tuple(reference.frame for reference in references), {}
    total: dict[int, float] = {}
    for reference in references:
        total[reference.frame] = total.get(reference.frame, 0.0) + reference.weight
    most = max(total.values())
    return tuple(total), {frame: log(weight / most) for frame, weight in total.items()}
