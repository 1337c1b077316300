"""A run in ComfyUI, and how it travels.

The run travels to the sampling wrappers, and the evaluation in progress to the attn1 patch, in
`transformer_options`: ComfyUI copies dicts there at every call, but no other objects.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from ....attention import Evaluation, Layer, Run
from ....attention.noise_levels import at_most
from ..errors import BadInputError
from ..model.settings import KEY, NODE, Settings
from ..neighbours.known import needs_one_batch
from ..noise.frame_numbers import numbers_of
from ..noise.row_noise import RowNoise
from ..rows.conditions import ControlCopies
from ..state.comfy_state import ComfyState, Origin
from ..state.continuation import ANEW, NOTHING, Continuation
from ..state.same_sampling import check_origin


class ComfyRun(Run):
    """A run and what ComfyUI needs beside it.

    settings: the user's choice. origin: what it is made with, if it goes on from a state or
    leaves one. rows: frames of the latent. sigmas: (start, end) noise levels between which
    cross-frame attention acts. one_frame: whether frames are painted one after another. going:
    where it goes on from, and for whom. node: id of the node, for errors.
    """

    def __init__(
        self,
        settings: Settings,
        origin: Origin | None,
        rows: int,
        sigmas: tuple[float, float],
        one_frame: bool,
        going: Continuation,
        node: str,
    ):
        self.offset = going.first  # number of the first row
        super().__init__(
            going.policy(settings.policy),
            self.offset + rows,
            settings.storage,
            going.resumed or going.state,
            going.carry,
        )
        self.settings = settings
        self.origin = origin
        self.rows = rows
        # The latent, if its frames are only looked at and not painted: see `evaluate_clip`.
        self.pictures: torch.Tensor | None = None
        self.sigmas = sigmas
        self.one_frame = one_frame
        self.node = node
        self.one_noise = False  # whether all frames start from the same noise
        # The number of each row's frame in the whole clip, or None if only its noise tells.
        self.numbers: Sequence[int] | None = None
        self.noise: RowNoise | None = None  # draws noise for the frames that are now sampled
        self.cut_guidance = False  # whether guidance holds rows of which a frame needs its own
        self.tried = False  # whether guidance has been found to treat frames alike
        self.untried: list[str] = []  # owners of guidance that could not be tried
        self.one_batch = False  # whether another node must see the clip in one model call
        self.reached = False  # whether the model has come to an attn1 patch
        self.unattended = 0  # layers that have collected references and not attended to them yet
        self.bank_bytes = 0  # what the bank will hold at most, where it takes the model's memory
        self.controls = ControlCopies()
        self.batches: list[range] | None = None

    def active(self, sigma: float) -> bool:
        """Whether cross-frame attention acts at a noise level."""
        start, end = self.sigmas
        return at_most(end, sigma) and at_most(sigma, start)

    def expect_bank(self, nbytes: int) -> None:
        """Say what the bank will hold at most; kept elsewhere, it takes no memory here."""
        self.bank_bytes = nbytes if self.settings.storage.device is None else 0

    def leave(self, frames: Collection[int] | None = None) -> ComfyState:
        """What is there now, of these frames or of all, for going on after the current one.

        Only for a run that has an origin.
        """
        return ComfyState.of(super().leave(frames), self.origin)

    def rows_of(self, frames: range) -> range:
        """Where frames lie in the latent, and in whatever has one row per frame."""
        return range(frames.start - self.offset, frames.stop - self.offset)

    def draws(self, noise: torch.Tensor, seed: int | None) -> Sequence[int]:
        """Which draw of noise on the way each frame gets that is now sampled.

        noise: that they start from, (frames, channels, height, width). seed: it may come from.
        """
        if self.one_noise:
            return [0] * len(noise)
        if self.numbers is None and seed is not None and noise.flatten(1).any(dim=1).all():
            self.numbers = numbers_of(noise, seed, self.offset)
        numbers = self.numbers or range(self.offset, self.frames)
        return [numbers[self.frame - self.offset]] if self.one_frame else numbers


@dataclass(frozen=True)
class ComfyEvaluation(Evaluation):
    """An evaluation that can tell ComfyUI's conds apart (see `name_conds`).

    shared: layers whose projections rows share (see `attn1.py`).
    """

    names: dict
    shared: frozenset[Layer] = frozenset()


def new_run(
    guider,
    noise: torch.Tensor,
    *,
    node: str,
    one_frame: bool,
    going: Continuation = NOTHING,
    origin: Origin | None = None,
    one_noise: bool = False,
    numbers: Sequence[int] | None = None,
) -> ComfyRun:
    """Begin a run for a guider whose MODEL carries settings.

    noise: of the latent's frames, (frames, channels, height, width). node: id of the node, for
    errors. going, origin: if it goes on from a state or leaves one. one_noise: whether all
    frames share their noise, so that they also share what a sampler adds. numbers: of the frames
    in the whole clip, if they are known and do not follow one another.
    Raises BadInputError if the run cannot go on from its state.
    """
    settings: Settings = guider.model_options[KEY]
    if going.state is not None:
        check_origin(going.state.origin, origin, node)
        origin = replace(origin, noise=going.state.origin.noise)
    sampling = guider.model_patcher.get_model_object("model_sampling")
    part = (
        float(sampling.percent_to_sigma(settings.start_percent)),
        float(sampling.percent_to_sigma(settings.end_percent)),
    )
    try:
        run = ComfyRun(settings, origin, noise.shape[0], part, one_frame, going, node)
    except ValueError as error:
        raise BadInputError(
            node,
            "state",
            f"{error}.",
            "Make it with the same references"
            + ("." if node == NODE else f", or set anchor to '{ANEW}'."),
        ) from error
    run.one_noise = one_noise
    run.numbers = numbers
    if one_frame and numbers is None:
        run.numbers = range(run.offset, run.frames)
    run.one_batch = not one_frame and needs_one_batch(guider, noise.shape[0])
    return run


def options_with_run(model_options: dict, value) -> dict:
    """Return model options whose transformer options also carry a run or an evaluation."""
    transformer_options = {**model_options.get("transformer_options", {}), KEY: value}
    return {**model_options, "transformer_options": transformer_options}


def options_of_batch(model_options: dict, evaluation: ComfyEvaluation) -> dict:
    """Return model options for an evaluation of some frames of a clip.

    They also say which frames these are in the way AnimateDiff-Evolved does, which other packs
    read who keep one row per frame of their own (IPAdapter_plus, Advanced-ControlNet).
    """
    run = evaluation.run
    rows = run.rows_of(range(evaluation.frames[0], evaluation.frames[-1] + 1))
    options = options_with_run(model_options, evaluation)
    if len(evaluation.frames) < run.rows:
        options["transformer_options"]["ad_params"] = {
            "sub_idxs": list(rows),
            "full_length": run.rows,
            "context_length": len(evaluation.frames),
        }
    return options


def run_of(model_options: dict) -> ComfyRun | None:
    """The run that travels in model options, if a sampling is in progress."""
    value = model_options.get("transformer_options", {}).get(KEY)
    return value if isinstance(value, ComfyRun) else None
