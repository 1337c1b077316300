"""A run: the one mutable object of a sampling, and the evaluations it is made of.

Frame i at step t and layer l needs its own hidden states and those of its references at
the same t and l, nothing else. So two orders of work are valid, and both are this file:

- frame by frame: `start_frame` for each frame, `next_step` for each model evaluation; the
  bank lives as long as the run and is addressed by step.
- all frames per step: `forget` for each model evaluation, then one `evaluate` per batch of
  frames, in clip order; the bank holds only what one batch leaves to the next.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from .bank import Bank, Key, Tokens
from .compose import gather
from .errors import PackError
from .layers import Layer
from .noise_levels import same_level
from .references import Policy, carried_frames, last_readers
from .shared import Rows, collect
from .state import State, frozen
from .storage import Storage

log = logging.getLogger("crossframe")

Made = TypeVar("Made")


class StepMismatchError(PackError, RuntimeError):
    """Frames of one run do not go through the same denoising steps."""


class Run:
    """Everything that changes while a clip is sampled.

    A run belongs to one sampling and is thrown away with it; nothing is ever reset.
    """

    def __init__(
        self,
        policy: Policy,
        frames: int,
        storage: Storage = Storage(),  # noqa: B008  (frozen)
        state: State | None = None,
        carry: bool = False,
    ) -> None:
        """policy: whom each frame attends to. frames: number of the last frame, plus 1.

        storage: how hidden states are kept. state: what earlier frames have left; the run
        goes on after them. carry: whether frames after `frames` are to go on after this run.
        Raises ValueError if a frame attends to one that the state does not hold.
        """
        self.policy = policy
        self.frames = frames
        self.state = state
        self.start = state.frames if state is not None else 0
        carried = carried_frames(policy, frames) if carry else frozenset()
        self.last_readers = last_readers(policy, frames, self.start, carried)
        if state is None or state.kept:  # else it attended nowhere, as at other noise levels
            self._check_held(state.held if state is not None else frozenset())
        self.bank = Bank(storage)
        self.peak_bytes = 0
        self.frame = self.start - 1
        self.step = -1
        self._noise_levels = [*state.noise_levels] if state is not None else []
        self.missed = False  # whether a reference was not to be had

    def _check_held(self, held: frozenset[int]) -> None:
        """Raise ValueError if an earlier frame is wanted that is not held."""
        wanted = {frame for frame in range(self.start) if self.last_readers[frame] >= 0}
        if missing := sorted(wanted - held):
            raise ValueError(
                f"the frames from {self.start} on attend to frame {missing[0]}, of which "
                f"nothing is kept (but of {sorted(held)})"
            )

    def start_frame(self, frame: int) -> None:
        """Begin a frame (frame by frame): steps count from 0 again.

        Raises ValueError if it does not follow the frame before, StepMismatchError if that
        one stopped early.
        """
        if frame != self.frame + 1:
            raise ValueError(f"frame {frame} cannot follow frame {self.frame}")
        if frame > self.start and self.step + 1 != len(self._noise_levels):
            raise StepMismatchError(
                f"frame {self.frame} took {self.step + 1} model evaluations where the frames "
                f"before took {len(self._noise_levels)}"
            )
        self.frame, self.step = frame, -1

    def next_step(self, noise_level: float) -> int:
        """Count one model evaluation of the current frame and return its ordinal.

        noise_level: sigma or timestep, only to check that every frame goes the same way.
        Raises StepMismatchError if the frames before had another noise level here.
        """
        self.step += 1
        if self.frame == self.start and self.state is None:
            self._noise_levels.append(noise_level)
            return self.step
        steps = len(self._noise_levels)
        expected = self._noise_levels[self.step] if self.step < steps else None
        if expected is None or not same_level(expected, noise_level):
            raise StepMismatchError(
                f"frame {self.frame} evaluates the model at noise level {noise_level} where "
                f"the frames before had {'none' if expected is None else expected} "
                f"(evaluation {self.step})"
            )
        return self.step

    def forget(self) -> None:
        """Begin a step (all frames per step): nothing is remembered of the step before."""
        self.bank = Bank(self.bank.storage)
        self.step += 1

    def recall(self, key: Key, device: torch.device) -> None:
        """Bring in what the state holds at an address, the first time it is visited."""
        if self.state is not None and key in self.state.kept:
            kept = self.state.kept[key]
            wanted = {frame: kept[frame] for frame in kept if self.last_readers[frame] >= 0}
            self.bank.adopt(key, wanted, device)

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """Of the model evaluations of every frame, in order."""
        return tuple(self._noise_levels)

    def needed(self) -> frozenset[int]:
        """The frames so far that a later one will read."""
        done = range(self.frame + 1)
        return frozenset(frame for frame in done if self.last_readers[frame] > self.frame)

    def leave(self, frames: Collection[int] | None = None) -> State:
        """What the bank holds now, of these frames or of all, for going on after the current one.

        Raises StepMismatchError if that frame stopped early.
        """
        if self.step + 1 != len(self._noise_levels):
            raise StepMismatchError(
                f"frame {self.frame} took {self.step + 1} of {len(self._noise_levels)} steps"
            )
        scene = self.policy.scene(self.frame)
        return State(self.frame + 1, scene, self.noise_levels, frozen(self.bank, frames))

    def evaluate(self, frames: Sequence[int], layers: Collection[Layer]) -> "Evaluation":
        """Describe one evaluation of the model on a batch of frames, in clip order.

        layers: where cross-frame attention acts in this evaluation.
        """
        return Evaluation(self, self.step, tuple(frames), frozenset(layers))

    def warn_missing(self, key: Key, frame: int) -> None:
        """Say once per run that a frame attends to itself because a reference is missing."""
        if not self.missed:
            self.missed = True
            log.warning(
                "Cross-frame attention: frame %d found no stored references at step %d, layer "
                "%s; such places attend to the frame itself.",
                frame,
                key.step,
                tuple(key.layer),
            )


@dataclass(frozen=True)
class Evaluation:
    """One call of the model, or a part of one, on known frames of a run."""

    run: Run
    step: int
    frames: tuple[int, ...]
    layers: frozenset[Layer]
    visits: Counter[Key] = field(default_factory=Counter, kw_only=True)

    def attend(self, layer: Layer, entries: Sequence[Hashable], tokens: Tokens) -> Tokens:
        """Return the key/value tokens of all rows of a batch, and keep what later frames need.

        entries: the cond entries of the batch, in order; each has one row per frame.
        tokens: one or two (len(entries) * n, tokens, channels) tensors, n = len(frames).
        Returns as many tensors, (len(entries) * n, k * tokens, channels).
        Raises ValueError if the batch does not consist of these entries and frames.
        """
        if layer not in self.layers:
            return tokens
        names = self._names(layer, entries, tokens)
        attended = self._of_references(gather, names, tokens)
        self._keep(names, tokens)
        return tuple(attended)

    def collect(
        self, layer: Layer, entries: Sequence[Hashable], tokens: Tokens
    ) -> tuple[Tokens, Rows]:
        """Return the key/value tokens that a batch needs, each once, and keep what `attend` does.

        For callers that let `attend_to_rows` attend after the projection. Takes what `attend`
        takes, for one of `layers`. Returns as many tensors, (m, tokens, channels), and where
        among the m the references of each row lie.
        """
        names = self._names(layer, entries, tokens)
        collected, rows = zip(*self._of_references(collect, names, tokens), strict=True)
        self._keep(names, tokens)
        return collected, rows[0]

    def _names(
        self, layer: Layer, entries: Sequence[Hashable], tokens: Tokens
    ) -> list[tuple[Key, int]]:
        """Name the rows of a batch, all frames of the first cond entry, then of the second, ..."""
        rows, count = tokens[0].shape[:2]
        if rows != len(entries) * len(self.frames):
            raise ValueError(
                f"layer {tuple(layer)} got {rows} rows for {len(entries)} conds of "
                f"{len(self.frames)} frames; another patch of the model regroups its batch"
            )
        keys = [self._visit(Key(self.step, layer, entry, count)) for entry in entries]
        for key in keys:
            self.run.recall(key, tokens[0].device)
        return [(key, frame) for key in keys for frame in self.frames]

    def _visit(self, key: Key) -> Key:
        """Tell a layer's second visit to a cond entry in this evaluation from its first."""
        visit = self.visits[key]
        self.visits[key] += 1
        return key._replace(visit=visit)

    def _of_references(
        self, function: Callable[..., Made], names: Sequence[tuple[Key, int]], tokens: Tokens
    ) -> list[Made]:
        """What `gather` or `collect` makes of each tensor, for rows that go by (key, frame)."""
        references = [self._references(key, frame) for key, frame in names]
        outside = {name for row in references for name in row}.difference(names)
        kept = {name: self.run.bank.load(*name) for name in outside}
        return [
            function(stream, names, references, {name: kept[name][number] for name in outside})
            for number, stream in enumerate(tokens)
        ]

    def _references(self, key: Key, frame: int) -> tuple[tuple[Key, int], ...]:
        """The frame's references, or the frame alone where not all of them are to be had."""
        references = self.run.policy.references(frame)
        kept = self.run.bank.frames(key)
        if not all(reference in self.frames or reference in kept for reference in references):
            self.run.warn_missing(key, frame)
            references = (frame,)
        return tuple((key, reference) for reference in references)

    def _keep(self, names: Sequence[tuple[Key, int]], tokens: Tokens) -> None:
        """Drop what no later frame reads any more, store what one will."""
        bank, readers, newest = self.run.bank, self.run.last_readers, self.frames[-1]
        for key in {key for key, _ in names}:
            for frame in [frame for frame in bank.frames(key) if readers[frame] <= newest]:
                bank.drop(key, frame)
        for row, (key, frame) in enumerate(names):
            if readers[frame] > newest:
                bank.store(key, frame, tuple(stream[row] for stream in tokens))
        self.run.peak_bytes = max(self.run.peak_bytes, bank.nbytes)
