"""A run in ComfyUI: what is known before it begins, and what changes during it.

It travels to the sampling wrappers in one slot of ComfyUI's options (`model/carried.py`).
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import torch

from ....attention import (
    Evaluation,
    FrameByFrame,
    Layer,
    PaintingOrder,
    PerStep,
    Policy,
    Run,
    State,
)
from ....attention.noise_levels import at_most
from ....latents.fusion import Fusion, FusionPlan, Predictions
from ....latents.operations import StepOperation
from ..errors import BadInputError
from ..model.carried import carrying, settings_of
from ..model.control_layers import attending_layers
from ..model.settings import FusionChoice, Settings
from ..neighbours.guidance_trial import Verdict
from ..neighbours.known import needs_one_batch
from ..noise.frame_numbers import numbers_of
from ..noise.row_noise import RowNoise
from ..rows.conditions import ControlCopies
from ..state.comfy_state import ComfyState, Origin
from ..state.continuation import ANEW, NOTHING, Continuation
from ..state.record import Taken
from ..state.same_sampling import check_origin
from .fusion import (
    check_groups,
    check_predictions,
    in_order,
    plan_fusion,
    predictions_in,
    stored_predictions,
)
from .memory import MemoryPlan
from .self_attention import LayerCalls
from .shared_projections import SharedProjections
from .token_layout import TokenLayouts

Lead = TypeVar("Lead", FrameByFrame, PerStep)
HALVINGS = 30  # of the range from 0 to 1 in a search, which is more than a sigma's precision


@dataclass(frozen=True)
class Facts:
    """What is known of a sampling before it begins.

    settings: the user's choice. policy: which frames each frame attends to, with the scenes of
    this sampling. order: the order in which the frames are painted. origin: what the sampling is
    made with, if it continues from a state or leaves one. sigmas: the noise levels (first, last)
    between which cross-frame attention acts. one_noise: whether all frames start from the same
    noise and share the noise that a sampler adds. numbers: the number of the noise draw that each
    row gets, or None if it must be found from the noise. operations: what happens to the predicted
    frames in every step.
    """

    settings: Settings
    policy: Policy
    order: PaintingOrder
    origin: Origin | None
    sigmas: tuple[float, float]
    one_noise: bool
    numbers: Sequence[int] | None
    operations: tuple[StepOperation, ...] = ()

    @property
    def rows(self) -> int:
        """The number of frames in the latent."""
        return self.order.count

    def is_active(self, sigma: float) -> bool:
        """Return whether cross-frame attention acts at a noise level."""
        first, last = self.sigmas
        return at_most(last, sigma) and at_most(sigma, first)

    def places(self, frames: Sequence[int]) -> tuple[int, ...]:
        """Return where frames lie in the latent, and in whatever has one row per frame."""
        return tuple(frame - self.order.start for frame in frames)


class KeepsPredictions(Protocol):
    """What keeps predictions of painted frames for frames that are painted later."""

    kept: Predictions

    def needed(self, painted: Collection[int]) -> frozenset[int]:
        """Return the frames that are needed once some frames are painted. painted: those."""


@dataclass
class ComfyRun(Generic[Lead]):
    """Everything that changes while a clip is sampled in ComfyUI.

    core: the run of the pack's core. lead: the object that leads it through the clip. memory: the
    memory plan. controls: the current copies of ControlNets. calls: what happened in the layers.
    noise: draws noise for the frames that are being sampled. verdict: the result of the trial of
    guidance, or None before it. sharing: decides where rows share projections in a U-Net, or None
    before the model is called. layouts: where the picture's tokens lie in a transformer, or None
    for a U-Net. keeps: what keeps predictions for later frames, such as the step operation that
    fuses frames, or None.
    """

    facts: Facts
    core: Run
    lead: Lead
    memory: MemoryPlan
    controls: ControlCopies = field(default_factory=ControlCopies)
    calls: LayerCalls = field(default_factory=LayerCalls)
    noise: RowNoise | None = None
    verdict: Verdict | None = None
    sharing: SharedProjections | None = None
    layouts: TokenLayouts | None = None
    keeps: KeepsPredictions | None = None

    @property
    def one_frame(self) -> bool:
        """Whether frames are painted one after another."""
        return isinstance(self.lead, FrameByFrame)

    def evaluate(self, frames: Sequence[int], layers: frozenset[Layer], names: dict):
        """Describe a call of the model on some frames. names: see `name_conds`."""
        return ComfyEvaluation(self.core, self.lead.step, tuple(frames), layers, names)

    def leave(self: "ComfyRun[FrameByFrame]", frames: Collection[int] | None = None) -> State:
        """Return what frames have left. frames: those that count, or None for all.

        Raises StepMismatchError if the current group stopped early.
        """
        left = self.lead.leave(frames)
        if self.keeps is None:
            return left
        stored = {**left.stored, **stored_predictions(self.keeps.kept, frames)}
        return replace(left, stored=stored)

    def needed(self: "ComfyRun[FrameByFrame]") -> frozenset[int]:
        """Return the painted frames that later groups need."""
        needed = self.lead.needed()
        return needed if self.keeps is None else needed | self.keeps.needed(self.lead.frames)

    def draws(self, noise: torch.Tensor, seed: int | None) -> Sequence[int]:
        """Return the number of the noise draw for each frame that is being sampled.

        noise: the noise that these frames start from, (frames, channels, height, width).
        seed: the seed that the noise may come from.
        """
        facts = self.facts
        if facts.one_noise:
            return [0] * len(noise)
        numbers = facts.numbers
        if isinstance(self.lead, FrameByFrame) and numbers is not None:
            return [numbers[place] for place in facts.places(self.lead.frames)]
        if numbers is None and seed is not None and noise.flatten(1).any(dim=1).all():
            numbers = numbers_of(noise, seed, facts.order.start)
        return numbers or range(facts.order.start, facts.order.frames)


@dataclass(frozen=True)
class ComfyEvaluation(Evaluation):
    """An evaluation that can tell ComfyUI's conds apart (see `name_conds`).

    shared: the layers in which rows share projections (see `shared_projections.py`).
    """

    names: dict
    shared: frozenset[Layer] = frozenset()

    def entries(self, transformer_options: dict) -> list[Hashable]:
        """Return the cond entries of a batch of the model, in order.

        A cond that another node's wrapper brings in later has no name, so its label is used.
        """
        labels = zip(transformer_options["cond_or_uncond"], transformer_options["uuids"])
        return [self.names.get(label, label) for label in labels]


def new_run(
    guider,
    noise: torch.Tensor,
    lead: type[Lead],
    *,
    continuation: Continuation = NOTHING,
    origin: Origin | None = None,
    one_noise: bool = False,
    numbers: Sequence[int] | None = None,
    taken: Taken | None = None,
    operations: tuple[StepOperation, ...] = (),
    keeps: KeepsPredictions | None = None,
) -> ComfyRun[Lead]:
    """Begin a run for a guider whose MODEL carries settings.

    noise: the noise of the latent's frames, (frames, channels, height, width). lead: the class of
    the object that leads the run through the clip, which decides the order of work. continuation,
    origin: needed if the run continues from a state or leaves one. one_noise: whether all frames
    share their noise. numbers: the numbers of the frames in the whole clip, if they are known and
    not consecutive. taken: what is taken over from an interrupted run. operations: what happens to
    the predicted frames in every step. keeps: what keeps predictions, unless frames are fused.
    Raises BadInputError if the run cannot continue from its state, if keyframes do not fit, or if a
    ControlNet takes part that has no layer to do so.
    """
    settings, state = settings_of(guider.model_options), continuation.state
    if state is not None and origin is not None:
        check_origin(state.origin, origin)
        origin = replace(origin, noise=state.origin.noise)
    first = continuation.first
    frames = first + noise.shape[0]
    policy = continuation.policy(settings.policy, frames)
    one_frame = lead is FrameByFrame
    order, plan = _orders(settings, policy, range(first, frames), continuation, noise, one_frame)
    if one_frame and numbers is None:
        numbers = range(order.start, order.frames)
    facts = Facts(
        settings,
        policy,
        order,
        origin,
        _sigmas(guider, settings),
        one_noise,
        numbers,
    )
    if plan is not None and settings.fusion is not None:
        before = state if taken is None else taken.state
        keeps = fusion = _fusion(guider, settings.fusion, plan, before, noise)
        operations = (*operations, fusion)
    facts = replace(facts, operations=operations)
    core = _core(facts, state, taken, one_frame)
    one_batch = not one_frame and needs_one_batch(guider, noise.shape[0])
    controls = attending_layers(guider.original_conds.values(), settings)
    memory = MemoryPlan(settings, order, one_batch, state is not None, controls)
    layouts = TokenLayouts() if settings.layers is None else None
    return ComfyRun(facts, core, lead(core), memory, layouts=layouts, keeps=keeps)


def _orders(
    settings: Settings,
    policy: Policy,
    frames: range,
    continuation: Continuation,
    noise: torch.Tensor,
    one_frame: bool,
) -> tuple[PaintingOrder, FusionPlan | None]:
    """Return the order in which frames are painted, and what is fused to what, if anything.

    Frame by frame, a frame is painted after those that it is fused to. Otherwise all frames of a
    step are there before any is fused. Raises BadInputError if the fusion does not fit the clip.
    """
    carry = continuation.carry
    order = PaintingOrder.of(policy, frames.stop, frames.start, carry)
    if settings.fusion is None:
        return order, None
    plan = plan_fusion(settings.fusion, policy, frames, carry, noise.shape)
    if not one_frame:
        return order, plan
    united = PaintingOrder.of(policy, frames.stop, frames.start, carry, plan.targets)
    check_groups(united, order, settings.fusion.to)
    return united, in_order(plan, united)


def _fusion(
    guider,
    choice: FusionChoice,
    plan: FusionPlan,
    state: ComfyState | None,
    noise: torch.Tensor,
) -> Fusion:
    """Return the step operation that fuses frames. state: what earlier frames have left."""
    first, last = _sigmas(guider, choice)
    given = predictions_in({} if state is None else state.stored, noise.shape[1:])
    check_predictions(plan, given)

    sampling = guider.model_patcher.get_model_object("model_sampling")

    def strength(sigma: float) -> float | None:
        if at_most(last, sigma) and at_most(sigma, first):
            return choice.strength_at(percent_of(sigma, sampling))
        return None

    return Fusion(choice.motion, plan, strength, given)


def percent_of(sigma: float, model_sampling) -> float:
    """Return how far the denoising is at a noise level, from 0 to 1, as ComfyUI's nodes count it.

    It is the inverse of ComfyUI's `percent_to_sigma`, which falls but has no inverse of its own.
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if float(model_sampling.percent_to_sigma(middle)) > sigma:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _sigmas(guider, settings: Settings | FusionChoice) -> tuple[float, float]:
    """Return the noise levels at which cross-frame attention, or fusion, begins and ends."""
    sampling = guider.model_patcher.get_model_object("model_sampling")
    return (
        float(sampling.percent_to_sigma(settings.start_percent)),
        float(sampling.percent_to_sigma(settings.end_percent)),
    )


def _core(facts: Facts, state: ComfyState | None, taken: Taken | None, one_frame: bool) -> Run:
    """Begin the run of the pack's core. Raises BadInputError if the state lacks a frame."""
    storage = facts.settings.storage
    try:
        if taken is not None:
            return Run(facts.policy, facts.order, storage, taken.state, taken.groups)
        return Run(facts.policy, facts.order, storage, state)
    except ValueError as error:
        other_way = f", or set anchor to '{ANEW}'" if one_frame else ""
        raise BadInputError(
            "state", f"{error}.", f"Make it with the same references{other_way}."
        ) from error


def options_of_batch(model_options: dict, run: ComfyRun, evaluation: ComfyEvaluation) -> dict:
    """Return model options for an evaluation of some frames of a clip.

    They also say which frames these are, in the same form as AnimateDiff-Evolved. Other packs that
    keep one row per frame (IPAdapter_plus, Advanced-ControlNet) read it.
    """
    options = carrying(model_options, run=run, evaluation=evaluation)
    count = len(evaluation.frames)
    if count < run.facts.rows:
        options["transformer_options"]["ad_params"] = {
            "sub_idxs": list(run.facts.places(evaluation.frames)),
            "full_length": run.facts.rows,
            "context_length": count,
        }
    return options
