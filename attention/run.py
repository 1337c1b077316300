"""The run, which is the one mutable object of a sampling, and the objects that lead it.

Frame i at step t and layer l needs its own hidden states and those of its references at the same
t and l, and nothing else. So there are two valid orders of work, and each has an object that leads
a run through it:

- `FrameByFrame` paints one group of frames after another, each through all steps. The bank lives
  as long as the run and is addressed by step.
- `PerStep` takes one step after another, each for all frames, batch by batch. The bank holds only
  what one batch leaves to the next.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from .bank import Bank, Key, Tokens
from .compose import Biases, biases_of, gather, same_length, simplest
from .errors import PackError
from .layers import Layer
from .noise_levels import same_level
from .painting_order import Group, PaintingOrder
from .references import Policy
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
        order: PaintingOrder,
        storage: Storage = Storage(),  # noqa: B008  (frozen)
        state: State | None = None,
        done: int = 0,
    ) -> None:
        """policy: which frames each frame attends to. order: the order in which they are painted.

        storage: how hidden states are kept. state: what already painted frames have left.
        done: how many groups of the order are already painted.
        Raises ValueError if a frame attends to a frame that the state does not hold.
        """
        self.policy = policy
        self.order = order
        self.state = state
        self.done = done
        if (
            state is None or state.stored
        ):  # a state may also be empty: it was made without attention
            self._check_held(state.held if state is not None else frozenset())
        self.bank = Bank(storage)
        self.peak_bytes = 0
        self.has_missed = False  # whether a frame has not found one of its references
        # Whether nothing is kept or dropped, because what is painted now will be painted again.
        self.rehearses = False
        self._group_of = order.group_of()

    def _check_held(self, held: frozenset[int]) -> None:
        """Raise ValueError if a frame is needed that is neither painted here nor held."""
        if missing := sorted(self.order.wanted(self.done) - held):
            raise ValueError(
                f"the frames from {self.order.start} on attend to frame {missing[0]}, but nothing "
                f"is kept of that frame (kept frames: {sorted(held)})"
            )

    def evaluate(self, step: int, frames: Sequence[int], layers: Collection[Layer]) -> "Evaluation":
        """Describe one call of the model on a batch of frames.

        step: the number of the model evaluation. frames: whole groups, in the order of painting.
        layers: the layers where cross-frame attention acts in this call.
        """
        return Evaluation(self, step, tuple(frames), frozenset(layers))

    def is_read_after(self, frame: int, group: int) -> bool:
        """Return whether a group after this one needs a frame."""
        return self.order.last_readers[frame] > group

    def newest_group(self, frames: Sequence[int]) -> int:
        """Return the number of the last group among frames that are painted here."""
        return max(self._group_of[frame] for frame in frames)

    def recall(self, key: Key, device: torch.device) -> None:
        """Copy what the state holds at an address to the bank when it is first visited."""
        if self.state is not None and key in self.state.stored:
            stored = self.state.stored[key]
            wanted = {
                frame: stored[frame] for frame in stored if self.is_read_after(frame, self.done - 1)
            }
            self.bank.adopt(key, wanted, device)

    def forget(self) -> None:
        """Drop everything in the bank."""
        self.bank = Bank(self.bank.storage)

    def warn_missing(self, key: Key, frame: int) -> None:
        """Log, once per run, that a frame attends to itself because a reference is missing."""
        if not self.has_missed:
            self.has_missed = True
            log.warning(
                "Cross-frame attention: frame %d found no stored references at step %d in layer "
                "%s. Where references are missing, frames attend to themselves.",
                frame,
                key.step,
                tuple(key.layer),
            )


class PerStep:
    """Leads a run through all frames of each step."""

    def __init__(self, run: Run) -> None:
        """run: a run that has just begun."""
        self.run = run
        self.step = -1

    def next_step(self) -> int:
        """Forget the step before, begin the next one and return its number."""
        self.run.forget()
        self.step += 1
        return self.step


class FrameByFrame:
    """Leads a run through one group of frames after another; every group takes the same steps.

    group: the number of the group that is being painted. step: the number of its last model
    evaluation.
    """

    def __init__(self, run: Run) -> None:
        """run: a run that has just begun."""
        self.run = run
        self.group = run.done - 1
        self.step = -1
        self._noise_levels = [*run.state.noise_levels] if run.state is not None else []

    @property
    def frames(self) -> Group:
        """The frames that are being painted; empty before the first group."""
        return self.run.order.groups[self.group] if self.group >= self.run.done else ()

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """The noise levels of the model evaluations of every frame, in order."""
        return tuple(self._noise_levels)

    def next_group(self) -> Group:
        """Begin the next group, whose steps count from 0 again, and return its frames.

        Raises IndexError if all groups are painted, StepMismatchError if the group before stopped
        early.
        """
        if self.frames:
            self._check_finished()
        groups = self.run.order.groups
        if self.group + 1 >= len(groups):
            raise IndexError(f"all {len(groups)} groups of the clip are painted")
        self.group, self.step = self.group + 1, -1
        return self.frames

    def go_back(self, step: int) -> None:
        """Paint the current group again, from right after one of its model evaluations.

        step: the number of that evaluation, or -1 to paint it again from the start. What the group
        has left in the bank up to there stays. See also `Run.rehearses`.
        Raises ValueError for an evaluation that the group has not come to.
        """
        if not -1 <= step <= self.step:
            raise ValueError(f"{self._named()} cannot go back from {self.step} to {step}")
        self.step = step

    def next_step(self, noise_level: float) -> int:
        """Count one model evaluation of the current group and return its number.

        noise_level: a sigma or timestep. It only serves to check that all groups take the same
        steps. Raises StepMismatchError if earlier groups had another noise level here.
        """
        self.step += 1
        if self.group == self.run.done and self.run.state is None:
            self._noise_levels.append(noise_level)
            return self.step
        steps = len(self._noise_levels)
        expected = self._noise_levels[self.step] if self.step < steps else None
        if expected is None or not same_level(expected, noise_level):
            raise StepMismatchError(
                f"{self._named()} evaluates the model at noise level {noise_level}, but "
                f"the frames before had {'none' if expected is None else expected} there "
                f"(evaluation {self.step})"
            )
        return self.step

    def evaluate(self, layers: Collection[Layer]) -> "Evaluation":
        """Describe the call of the model that `next_step` has counted."""
        return self.run.evaluate(self.step, self.frames, layers)

    def needed(self) -> frozenset[int]:
        """Return the frames painted so far that a later group will attend to."""
        painted = {frame for group in self.run.order.groups[: self.group + 1] for frame in group}
        earlier = range(self.run.order.start)
        return frozenset(
            frame for frame in (*earlier, *painted) if self.run.is_read_after(frame, self.group)
        )

    def leave(self, frames: Collection[int] | None = None) -> State:
        """Return what the bank holds now, as a state for later frames.

        frames: the frames whose hidden states are included; None means all.
        Raises StepMismatchError if the current group stopped early.
        """
        self._check_finished()
        last = max(self.frames, default=self.run.order.start - 1)
        if self.group + 1 == len(self.run.order.groups):
            last = self.run.order.frames - 1
        scene = self.run.policy.scene(last)
        return State(last + 1, scene, self.noise_levels, frozen(self.run.bank, frames))

    def _check_finished(self) -> None:
        """Raise StepMismatchError if the current group has not taken all of its steps."""
        if self.step + 1 != len(self._noise_levels):
            raise StepMismatchError(
                f"{self._named()} took {self.step + 1} model evaluations, but the frames "
                f"before took {len(self._noise_levels)}"
            )

    def _named(self) -> str:
        """Return a name of the current group for errors."""
        if len(self.frames) == 1:
            return f"frame {self.frames[0]}"
        return f"the group of the frames {', '.join(map(str, self.frames))}"


@dataclass(frozen=True)
class Evaluation:
    """One call of the model, or a part of a call, on known frames of a run."""

    run: Run
    step: int
    frames: tuple[int, ...]
    layers: frozenset[Layer]
    visits: Counter[Key] = field(default_factory=Counter, kw_only=True)

    def gathered(
        self, layer: Layer, entries: Sequence[Hashable], tokens: Tokens
    ) -> tuple[Tokens, Biases | None]:
        """Return the key/value tokens of all rows of a batch, and store what later frames need.

        entries: the cond entries of the batch, in order; each has one row per frame.
        tokens: one or two (len(entries) * n, tokens, channels) tensors, n = len(frames).
        Returns as many tensors, (len(entries) * n, k * tokens, channels), and the biases of the k
        references of each row, or None.
        Raises ValueError if the batch does not consist of these entries and frames.
        """
        if layer not in self.layers:
            return tokens, None
        names = self._names_of_batch(layer, entries, tokens)
        references = self._references_of(names)
        result = self._of_references(gather, names, references, tokens)
        self._keep(names, lambda row: tuple(stream[row] for stream in tokens))
        return tuple(result), self._biases(names, same_length(references))

    def collected(
        self, layer: Layer, entries: Sequence[Hashable], tokens: Tokens
    ) -> tuple[Tokens, Rows, Biases | None]:
        """Return the key/value tokens that a batch needs, each once; store what later frames need.

        This is for callers that let `attend_to_rows` attend after the projection. It takes the
        same arguments as `gathered`, and `layer` must be one of `layers`. Returns as many tensors,
        (m, tokens, channels), for each row the positions of its references among the m, and the
        biases of these references, or None.
        """
        names = self._names_of_batch(layer, entries, tokens)
        references = self._references_of(names)
        made = self._of_references(collect, names, references, tokens)
        collected, rows = zip(*made, strict=True)
        self._keep(names, lambda row: tuple(stream[row] for stream in tokens))
        return collected, rows[0], self._biases(names, [simplest(row) for row in references])

    def attended(
        self,
        layer: Layer,
        entries: Sequence[Hashable],
        rows: Sequence[Tokens],
        count: int,
    ) -> tuple[list[tuple[Tokens, ...]], Biases | None]:
        """Return for each row the tokens of its references, and store what later frames need.

        This is for callers that put keys together themselves (see `joint.py`); `layer` must be one
        of `layers`. rows: the tokens of each row of the batch, as tensors of any shape. They may be
        views, because what is stored is copied. count: the number of tokens in a row.
        Returns as many tuples, in which the row's own tokens are the given ones, and the biases of
        each row's references, or None.
        Raises ValueError if the batch does not consist of these entries and frames.
        """
        names = self._names(layer, entries, len(rows), count, rows[0][0].device)
        place = {name: row for row, name in enumerate(names)}
        references = [simplest(row) for row in self._references_of(names)]
        kept = self._outside(names, references)
        result = [
            tuple(rows[place[name]] if name in place else kept[name] for name in row)
            for row in references
        ]
        self._keep(names, rows.__getitem__)
        return result, self._biases(names, references)

    def _names_of_batch(
        self, layer: Layer, entries: Sequence[Hashable], tokens: Tokens
    ) -> list[tuple[Key, int]]:
        """Name the rows of tensors, each (rows, tokens, channels)."""
        rows, count = tokens[0].shape[:2]
        return self._names(layer, entries, rows, count, tokens[0].device)

    def _names(
        self,
        layer: Layer,
        entries: Sequence[Hashable],
        rows: int,
        count: int,
        device: torch.device,
    ) -> list[tuple[Key, int]]:
        """Name the rows of a batch: all frames of the first cond entry, then of the second, ..."""
        if rows != len(entries) * len(self.frames):
            raise ValueError(
                f"layer {tuple(layer)} got {rows} rows for {len(entries)} conds of "
                f"{len(self.frames)} frames; another patch of the model regroups its batch"
            )
        keys = [self._visit(Key(self.step, layer, entry, count)) for entry in entries]
        for key in keys:
            self.run.recall(key, device)
        return [(key, frame) for key in keys for frame in self.frames]

    def _visit(self, key: Key) -> Key:
        """Tell a layer's second visit to a cond entry in this evaluation from its first."""
        visit = self.visits[key]
        self.visits[key] += 1
        return key._replace(visit=visit)

    def _of_references(
        self,
        function: Callable[..., Made],
        names: Sequence[tuple[Key, int]],
        references: Sequence[tuple[tuple[Key, int], ...]],
        tokens: Tokens,
    ) -> list[Made]:
        """Apply `gather` or `collect` to each tensor; rows are named (key, frame)."""
        kept = self._outside(names, references)
        return [
            function(stream, names, references, {name: kept[name][number] for name in kept})
            for number, stream in enumerate(tokens)
        ]

    def _outside(
        self,
        names: Sequence[tuple[Key, int]],
        references: Sequence[tuple[tuple[Key, int], ...]],
    ) -> dict[tuple[Key, int], Tokens]:
        """Load the references of a batch that are not among its own rows."""
        outside = {name for row in references for name in row}.difference(names)
        return {name: self.run.bank.load(*name) for name in outside}

    def _references_of(self, names: Sequence[tuple[Key, int]]) -> list[tuple[tuple[Key, int], ...]]:
        """Return the references of rows, as often as they count."""
        return [self._references(key, frame) for key, frame in names]

    def _biases(
        self,
        names: Sequence[tuple[Key, int]],
        references: Sequence[tuple[tuple[Key, int], ...]],
    ) -> Biases | None:
        """Return the biases of the references of rows, or None if there are none."""
        logits = self.run.order.logits
        if not logits:
            return None
        added = [
            {(key, other): bias for other, bias in logits.get(frame, {}).items()}
            for key, frame in names
        ]
        return biases_of(references, added)

    def _references(self, key: Key, frame: int) -> tuple[tuple[Key, int], ...]:
        """Return a frame's references, or only the frame itself if a reference is missing."""
        references = self.run.order.references[frame]
        kept = self.run.bank.frames(key)
        if not all(reference in self.frames or reference in kept for reference in references):
            self.run.warn_missing(key, frame)
            references = (frame,)
        return tuple((key, reference) for reference in references)

    def _keep(self, names: Sequence[tuple[Key, int]], tokens_of: Callable[[int], Tokens]) -> None:
        """Drop what no later group needs any more, and store what a later group will need.

        tokens_of: returns the tokens of a row.
        """
        run, bank = self.run, self.run.bank
        if run.rehearses:
            return
        newest = run.newest_group(self.frames)
        for key in {key for key, _ in names}:
            for frame in [f for f in bank.frames(key) if not run.is_read_after(f, newest)]:
                bank.drop(key, frame)
        for row, (key, frame) in enumerate(names):
            if run.is_read_after(frame, newest):
                bank.store(key, frame, tokens_of(row))
        run.peak_bytes = max(run.peak_bytes, bank.nbytes)
