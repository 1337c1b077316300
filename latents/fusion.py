"""Fusion as a step operation: which frames are fused to which, and what is kept for that."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..motion import Motion, PairMotion
from .fuse import fuse_frame
from .operations import Step, StepOperation

KEYFRAMES, FIRST_AND_PREVIOUS = "keyframes", "first + previous"
FUSED_TO = (KEYFRAMES, FIRST_AND_PREVIOUS)

# Predictions after fusion, each (channels, ..., height, width), by evaluation and by frame.
Predictions = dict[int, dict[int, Tensor]]


@dataclass(frozen=True)
class FusionPlan:
    """Which frames each frame of a clip is fused to.

    targets: for every frame that is painted, frames that come before it in the order; the first of
    them that shows a thing decides. order: the
    frames that are painted. carried: the frames that frames after these are fused to.
    """

    targets: Mapping[int, tuple[int, ...]]
    order: tuple[int, ...]
    carried: frozenset[int] = frozenset()

    @property
    def wanted(self) -> frozenset[int]:
        """The frames that are fused to and not painted here."""
        return frozenset(t for targets in self.targets.values() for t in targets) - {*self.order}


def fusion_plan(
    to: str,
    frames: range,
    scene: Callable[[int], int],
    keyframes: Collection[int] = (),
    carry: bool = False,
) -> FusionPlan:
    """Work out which frames the frames of a clip are fused to.

    to: a name in FUSED_TO. KEYFRAMES fuses a frame to the first keyframe and to those right before
    and after it, and a keyframe to the first one and the one before it. frames: those that are
    painted. scene: returns the first frame of a frame's scene; frames are fused within their scene
    only, whose first frame is always a keyframe. carry: whether frames after these are to go on
    from them.
    """
    keys = {scene(frame) for frame in frames} | {k for k in keyframes if k < frames.stop}

    def of(frame: int) -> tuple[int, ...]:
        start = scene(frame)
        if to == FIRST_AND_PREVIOUS:
            found = {start, frame - 1} if frame > start else set()
        else:
            mine = sorted(key for key in keys if scene(key) == start)
            before = [key for key in mine if key < frame]
            after = [key for key in mine if key > frame and frame not in keys]
            found = {*mine[:1], *before[-1:], *after[:1]} - {frame}
        return tuple(sorted(found))

    def rank(frame: int) -> tuple[bool, int]:
        return (to == KEYFRAMES and frame not in keys, frame)

    carried: set[int] = set()
    if carry:
        last = frames.stop - 1
        mine = sorted(key for key in keys if scene(key) == scene(last))
        carried = {scene(last), last} if to == FIRST_AND_PREVIOUS else {*mine[:1], *mine[-1:]}
    targets = {frame: of(frame) for frame in frames}
    return FusionPlan(targets, tuple(sorted(frames, key=rank)), frozenset(carried))


class Fusion(StepOperation):
    """Mixes the prediction of each frame with those of other frames, along the motion.

    It belongs to one run, since it keeps what frames have become at each evaluation until the last
    frame that is fused to them has been there.
    """

    def __init__(
        self,
        motion: Motion,
        plan: FusionPlan,
        strength: Callable[[float], float | None],
        given: Predictions | None = None,
    ) -> None:
        """strength: the share of the other frames at a noise level where the motion is trusted.

        It is a number from 0 to 1, or None where the operation does not act. given: what earlier
        frames have left.
        """
        self.motion = motion
        self.plan = plan
        self.strength = strength
        self.kept: Predictions = {step: {**frames} for step, frames in (given or {}).items()}
        self._place = {frame: place for place, frame in enumerate(plan.order)}
        self._last = self._last_readers()
        self._pairs: dict[tuple[int, int], PairMotion] = {}

    def __call__(self, x0: Tensor, step: Step) -> Tensor:
        """Return the fused predictions. See `StepOperation`."""
        strength = self.strength(step.noise_level)
        if strength is None:
            return x0
        known = self.kept.setdefault(step.number, {})
        grid = (x0.shape[-2], x0.shape[-1])
        for frame in sorted(step.frames, key=self._place.__getitem__):
            own = x0[step.frames.index(frame)]
            others = [
                (known[other].to(own), self._between(frame, other, grid))
                for other in self.plan.targets[frame]
            ]
            known[frame] = fuse_frame(own, others, strength)
        fused = torch.stack([known[frame] for frame in step.frames])
        self._forget(step)
        return fused

    def needed(self, painted: Collection[int]) -> frozenset[int]:
        """Return the frames that are needed once some frames are painted. painted: those."""
        last = max((self._place[frame] for frame in painted), default=-1)
        return frozenset(frame for frame, reader in self._last.items() if reader > last)

    def _last_readers(self) -> dict[int, int]:
        """Return for each frame the place in the order of the last frame that is fused to it."""
        last: dict[int, int] = {}
        for place, frame in enumerate(self.plan.order):
            last |= dict.fromkeys(self.plan.targets[frame], place)
        return last | dict.fromkeys(self.plan.carried, len(self.plan.order))

    def _forget(self, step: Step) -> None:
        """Drop predictions and motion that nobody will ask for again."""
        known = self.kept[step.number]
        needed = self.needed(step.frames)
        for frame in [frame for frame in known if frame not in needed]:
            del known[frame]
        if not known:
            del self.kept[step.number]
        if len(step.frames) < len(self.plan.order):  # the same frames come until they are finished
            of_others = [pair for pair in self._pairs if pair[0] not in step.frames]
            for pair in of_others:
                del self._pairs[pair]

    def _between(self, frame: int, other: int, grid: tuple[int, int]) -> PairMotion:
        pair = frame, other
        if pair not in self._pairs:
            self._pairs[pair] = self.motion.between(frame, other, grid)
        return self._pairs[pair]
