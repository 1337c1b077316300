"""A run: the one mutable object of a sampling, and the evaluations it is made of.

Frame i at step t and layer l needs its own hidden states and those of its references at
the same t and l, nothing else. So two orders of work are valid, and both are this file:

- frame by frame: `start_frame` for each frame, `next_step` for each model evaluation; the
  bank lives as long as the run and is addressed by step.
- all frames per step: `forget` for each model evaluation, then one `evaluate` per batch of
  frames, in clip order; the bank holds only what one batch leaves to the next.
"""

import logging
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from .bank import Bank, Key, Tokens
from .compose import gather
from .layers import Layer
from .references import Policy, last_readers
from .storage import Storage

log = logging.getLogger("crossframe")


class StepMismatchError(RuntimeError):
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
    ) -> None:
        """policy: whom each frame attends to. frames: length of the clip. storage: how kept."""
        self.policy = policy
        self.frames = frames
        self.last_readers = last_readers(policy, frames)
        self.bank = Bank(storage)
        self.peak_bytes = 0
        self.frame = -1
        self.step = -1
        self._noise_levels: list[float] = []
        self._warned = False

    def start_frame(self, frame: int) -> None:
        """Begin a frame (frame by frame): steps count from 0 again.

        Raises ValueError if it does not follow the frame before, StepMismatchError if that
        one stopped early.
        """
        if frame != self.frame + 1:
            raise ValueError(f"frame {frame} cannot follow frame {self.frame}")
        if frame > 0 and self.step + 1 != len(self._noise_levels):
            raise StepMismatchError(
                f"frame {self.frame} took {self.step + 1} model evaluations where frame 0 "
                f"took {len(self._noise_levels)}"
            )
        self.frame, self.step = frame, -1

    def next_step(self, noise_level: float) -> int:
        """Count one model evaluation of the current frame and return its ordinal.

        noise_level: sigma or timestep, only to check that every frame goes the same way.
        Raises StepMismatchError if the first frame had another noise level here.
        """
        self.step += 1
        if self.frame == 0:
            self._noise_levels.append(noise_level)
        elif self._noise_levels[self.step : self.step + 1] != [noise_level]:
            steps = len(self._noise_levels)
            expected = self._noise_levels[self.step] if self.step < steps else "none"
            raise StepMismatchError(
                f"frame {self.frame} evaluates the model at noise level {noise_level} where "
                f"frame 0 had {expected} (evaluation {self.step})"
            )
        return self.step

    def forget(self) -> None:
        """Begin a step (all frames per step): nothing is remembered of the step before."""
        self.bank = Bank(self.bank.storage)
        self.step += 1

    def evaluate(self, frames: Sequence[int], layers: Collection[Layer]) -> "Evaluation":
        """Describe one evaluation of the model on a batch of frames, in clip order.

        layers: where cross-frame attention acts in this evaluation.
        """
        return Evaluation(self, self.step, tuple(frames), frozenset(layers))

    def warn_missing(self, key: Key, frame: int) -> None:
        """Say once per run that a frame attends to itself because a reference is missing."""
        if not self._warned:
            self._warned = True
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

    def attend(self, layer: Layer, entries: Sequence[Hashable], tokens: Tokens) -> Tokens:
        """Return the key/value tokens of all rows of a batch, and keep what later frames need.

        entries: the cond entries of the batch, in order; each has one row per frame.
        tokens: one or two (len(entries) * n, tokens, channels) tensors, n = len(frames).
        Returns as many tensors, (len(entries) * n, k * tokens, channels).
        Raises ValueError if the batch does not consist of these entries and frames.
        """
        if layer not in self.layers:
            return tokens
        rows, count = tokens[0].shape[:2]
        if rows != len(entries) * len(self.frames):
            raise ValueError(
                f"layer {tuple(layer)} got {rows} rows for {len(entries)} conds of "
                f"{len(self.frames)} frames; another patch of the model regroups its batch"
            )
        keys = [Key(self.step, layer, entry, count) for entry in entries]
        # Rows of a batch: all frames of the first cond entry, then of the second, ...
        names = [(key, frame) for key in keys for frame in self.frames]
        attended = self._gather(names, tokens)
        self._keep(names, tokens)
        return attended

    def _gather(self, names: Sequence[tuple[Key, int]], tokens: Tokens) -> Tokens:
        """Put together the key/value tokens of rows that go by (key, frame)."""
        references = [self._references(key, frame) for key, frame in names]
        outside = {name for row in references for name in row}.difference(names)
        kept = {name: self.run.bank.load(*name) for name in outside}
        return tuple(
            gather(stream, names, references, {name: kept[name][number] for name in outside})
            for number, stream in enumerate(tokens)
        )

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
