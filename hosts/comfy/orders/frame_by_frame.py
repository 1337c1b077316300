"""Sample the frames of a clip one after another: the first STOREs, later ones LOAD.

One guider samples every frame, each time with that frame's latent, noise, mask and conds. A
`ComfyRun` carries what frames leave for later frames from one sampling to the next. Frames that
need one another form a group (see `attention/painting_order.py`) and are sampled together.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import comfy.model_management
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.samplers import resolve_areas_and_cond_masks_multidim
from torch import Tensor

from ....attention import FrameByFrame
from ....attention.bank import readable_size
from ....latents.operations import KeepPictures, StepOperation
from ..model.carried import carrying
from ..noise.clip_noise import mask_noise, with_mask_noise
from ..page.progress import FrameProgress
from ..rows.conditions import ControlCopies, conds_of_frames, with_frame_masks
from ..rows.default_prompts import with_clip_masks
from ..rows.hook_keyframes import HookKeyframes
from ..rows.places import in_order, take
from ..run.bank_size import BankSize, expected_size, true_size
from ..run.comfy_run import ComfyRun, KeepsPredictions, new_run
from ..run.failures import explained
from ..state.comfy_state import ComfyState, Origin
from ..state.continuation import NOTHING, Continuation
from ..state.record import Finished, Record, Taken
from .checks import check_frame_by_frame

log = logging.getLogger("crossframe")


@dataclass(frozen=True)
class Clip:
    """What is sampled.

    noise, latent: (frames, channels, height, width). mask: where the latent is painted; None or
    (rows, 1, height, width) with one row for all frames or one per frame. numbers: the numbers of
    the frames in the whole clip, or None if they follow those of the state. one_noise: whether all
    frames share their noise and what the sampler adds to it.
    """

    noise: Tensor
    latent: Tensor
    mask: Tensor | None = None
    numbers: Sequence[int] | None = None
    one_noise: bool = False

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.latent)

    def mask_of(self, places: Sequence[int]) -> Tensor | None:
        """Return the rows of the mask for some frames, or the one row that all frames share."""
        return self.mask if self.mask is None or len(self.mask) == 1 else take(self.mask, places)


@dataclass(frozen=True)
class Sampling:
    """How a clip is sampled: ComfyUI's GUIDER, SAMPLER and SIGMAS, and a seed.

    The guider's MODEL carries cross-frame attention. The guider itself is never changed.
    """

    guider: Any
    sampler: Any
    sigmas: Tensor
    seed: int

    @property
    def steps(self) -> int:
        """The number of steps."""
        return max(len(self.sigmas) - 1, 0)


@dataclass(frozen=True)
class SampledFrames:
    """Finished frames, in the shape of the latent they come from, and what they leave.

    x0: the last denoised estimates, or None if the sampler shows none. state: a state if one is
    wanted, otherwise None. report: a text about what was done and how much memory it took.
    """

    samples: Tensor
    x0: Tensor | None
    state: ComfyState | None
    report: str


class Passes(Protocol):
    """How each group of frames is painted, if it takes more than one sampling."""

    @property
    def steps(self) -> int:
        """The steps of a group in all of its passes."""

    @property
    def contents(self) -> list[Any]:
        """What the frames depend on beside the inputs of every sampler, as plain data."""

    @property
    def keeps(self) -> KeepsPredictions:
        """What is kept of painted frames for later ones."""

    def begin(self, run: ComfyRun[FrameByFrame], taken: Taken | None, sampling: Sampling) -> None:
        """Take over what an interrupted run has left.

        Raises BadInputError if frames cannot be painted in these passes.
        """

    def paint(self, painter: "Painter") -> Finished:
        """Paint the group that `painter` has begun, with as many calls of `Painter.sample`."""


def sample_frames(
    clip: Clip,
    sampling: Sampling,
    continuation: Continuation = NOTHING,
    record: Record | None = None,
    passes: Passes | None = None,
) -> SampledFrames:
    """Sample the frames of a latent one by one.

    record: keeps finished frames on disk until all are finished, and holds those of an interrupted
    run. passes: how each group is painted; None means by one sampling. Raises BadInputError before
    any sampling.
    """
    check_frame_by_frame(sampling.guider, clip.latent, sampling.sampler, clip.mask)
    run, taken = _begin(clip, sampling, continuation, record, passes)
    finished = [] if taken is None else [*taken.finished]
    bank = expected_size(run, sampling.guider, sampling.sampler, sampling.sigmas, clip.latent)
    run.memory.evaluations = bank.evaluations
    run.memory.expect_bank(bank.nbytes)
    _announce(clip, run, bank)
    painter = Painter(clip, sampling, run, passes)
    try:
        for _ in range(len(finished), len(run.facts.order.groups)):
            finished.append(painter.paint_group())
            bank = true_size(bank, run)
            is_last = len(finished) == len(run.facts.order.groups)
            if record is not None and run.facts.origin is not None and not is_last:
                record.add(finished[-1], run, run.facts.origin)
    finally:
        painter.close()
    return _outcome(run, finished, bank, continuation.carry)


def _announce(clip: Clip, run: ComfyRun, bank: BankSize) -> None:
    """Log what is about to be done, and the size of the bank as far as it is known."""
    layers = run.facts.settings.layers
    if layers is None:
        log.info("Cross-frame attention: %d frames one after another.", clip.frames)
        return
    log.info(
        "Cross-frame attention: %d frames one after another, bank of %s %s in %d layers.",
        clip.frames,
        "up to" if bank.counted else "about",
        readable_size(bank.nbytes),
        len(layers),
    )


def _begin(
    clip: Clip,
    sampling: Sampling,
    continuation: Continuation,
    record: Record | None,
    passes: Passes | None,
) -> tuple[ComfyRun[FrameByFrame], Taken | None]:
    """Begin a run, and find the finished frames of an interrupted run."""
    origin = taken = None
    if continuation.has_origin or record is not None:
        origin = Origin.of(sampling.guider, clip.noise, sampling.sampler, sampling.sigmas)
        if record is not None:
            taken = record.found(continuation.first, origin)
    operations: tuple[StepOperation, ...] = ()
    if continuation.reference_only:
        model = sampling.guider.model_patcher.model
        operations = (KeepPictures(model.process_latent_in(clip.latent)),)
    run = new_run(
        sampling.guider,
        clip.noise,
        FrameByFrame,
        continuation=continuation,
        origin=origin,
        one_noise=clip.one_noise,
        numbers=clip.numbers,
        taken=taken,
        operations=operations,
        keeps=None if passes is None else passes.keeps,
    )
    if passes is not None:
        passes.begin(run, taken, sampling)
    return run, taken


class Painter:
    """Samples one group of frames after another."""

    def __init__(
        self,
        clip: Clip,
        sampling: Sampling,
        run: ComfyRun[FrameByFrame],
        passes: Passes | None,
    ) -> None:
        self.clip, self.sampling, self.run, self.passes = clip, sampling, run, passes
        self._conds = _clip_conds(sampling.guider, clip.latent)
        self._keyframes = HookKeyframes(self._conds.values())
        self._mask_noise = None
        if clip.mask is not None:
            first = run.facts.order.start
            self._mask_noise = mask_noise(sampling.sampler, sampling.seed, clip.latent, first)
        steps = sampling.steps if passes is None else passes.steps
        done = sum(map(len, run.facts.order.groups[: run.core.done]))
        self._progress = FrameProgress(sampling.guider.model_patcher, clip.frames, steps, done)

    @property
    def places(self) -> tuple[int, ...]:
        """Where the frames that are being painted lie in the latent."""
        return self.run.facts.places(self.run.lead.frames)

    def paint_group(self) -> Finished:
        """Paint the next group; return its latents and its last denoised estimates."""
        with explained():
            self.run.lead.next_group()
        self._progress.start_frames(len(self.places))
        if self.passes is not None:
            return self.passes.paint(self)
        return self.sample(self.sampling.sampler)

    def repeat_from(self, step: int, evaluation: int) -> None:
        """Go back to right before a step of the group, whose first evaluation comes after one."""
        self.run.lead.go_back(evaluation)
        self._progress.repeat(self.sampling.steps - step)

    def sample(self, sampler, latent: Tensor | None = None) -> Finished:
        """Sample the group that is being painted. latent: that of its frames, if not the clip's."""
        clip, places = self.clip, self.places
        self._keyframes.restore()
        samples = self._guider().sample(
            take(clip.noise, places),
            take(clip.latent, places) if latent is None else latent,
            self._with_mask_noise(sampler, places),
            self.sampling.sigmas.clone(),  # some samplers write into it
            denoise_mask=clip.mask_of(places),
            callback=self._progress.step,
            disable_pbar=True,
            seed=self.sampling.seed,
        )
        x0 = self._progress.x0
        samples = samples.to(comfy.model_management.intermediate_device())
        return samples, None if x0 is None else x0.cpu()

    def close(self) -> None:
        """Close the progress bar."""
        self._progress.close()

    def _with_mask_noise(self, sampler, places: Sequence[int]):
        """Return a SAMPLER with these frames' noise for the area outside the mask."""
        if self._mask_noise is None:
            return sampler
        return with_mask_noise(sampler, take(self._mask_noise, places))

    def _guider(self):
        """Return a copy of the guider with the run and the current frames' rows of its conds."""
        run, guider = self.run, self.sampling.guider
        single = copy.copy(guider)
        conds = self._conds
        parts = conds_of_frames(list(conds.values()), self.places, run.facts.rows, ControlCopies())
        single.original_conds = dict(zip(conds, parts))
        single.model_options = carrying(create_model_options_clone(guider.model_options), run=run)
        return single


def _clip_conds(guider, latent: Tensor) -> dict[str, list[dict]]:
    """Return the guider's conds with areas and masks resolved over the whole clip.

    A cond's area that follows the bounds of its masks must be the same for every frame.
    """
    clip = {}
    for name, conds in guider.original_conds.items():
        clip[name] = with_frame_masks([cond.copy() for cond in conds], latent)
        device = guider.model_patcher.load_device
        resolve_areas_and_cond_masks_multidim(clip[name], latent.shape[2:], device)
        for cond in clip[name]:
            cond.pop("set_area_to_bounds", None)
        clip[name] = with_clip_masks(clip[name], latent.shape[0])
    return clip


def _outcome(
    run: ComfyRun[FrameByFrame], finished: Sequence[Finished], bank: BankSize, carry: bool
) -> SampledFrames:
    """Return the frames in the order of the clip, and what they leave."""
    places = [frame for group in run.facts.order.groups for frame in group]
    samples = in_order(torch.cat([samples for samples, _ in finished]), places)
    shown = [x0 for _, x0 in finished if x0 is not None]
    x0 = in_order(torch.cat(shown), places) if len(shown) == len(finished) else None
    held = f"the bank held at most {readable_size(run.core.peak_bytes)}"
    log.info("Cross-frame attention: %s.", held)
    state = None
    if carry and run.facts.origin is not None:
        state = ComfyState.of(run.leave(), run.facts.origin)
    held = f"{held} ({readable_size(bank.nbytes)} expected)"
    return SampledFrames(samples, x0, state, _report(run, held))


def _report(run: ComfyRun, held: str) -> str:
    """Say what was done. held: a text about what the bank held."""
    untried = "".join(
        f"\nIt could not be tried whether {owner} treats the frames of a clip alike."
        for owner in (run.verdict.untried if run.verdict is not None else ())
    )
    missed = ""
    if run.core.has_missed:
        missed = (
            "\nSome prompts found nothing to look at, because they had not been run in the same "
            "places at the same steps before. There, frames looked at themselves."
        )
    count = "1 frame" if run.facts.rows == 1 else f"{run.facts.rows} frames"
    return f"{count}, {run.facts.settings}; {held}{untried}{missed}"
