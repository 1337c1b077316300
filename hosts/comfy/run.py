"""A run in ComfyUI, and how it travels.

The run travels to the sampling wrappers, and the evaluation in progress to the attn1 patch, in
`transformer_options`: ComfyUI copies dicts there at every call, but no other objects.
"""

from dataclasses import dataclass

import torch

from ...attention import Evaluation, Run
from .conditions import ControlCopies
from .neighbours import needs_one_batch
from .settings import KEY, Settings


class ComfyRun(Run):
    """A run and what ComfyUI needs beside it.

    settings: the user's choice. sigmas: (start, end) noise levels between which
    cross-frame attention acts. one_frame: whether frames are painted one after another.
    """

    def __init__(
        self, settings: Settings, frames: int, sigmas: tuple[float, float], one_frame: bool
    ):
        super().__init__(settings.policy, frames, settings.storage)
        self.settings = settings
        self.sigmas = sigmas
        self.one_frame = one_frame
        self.one_noise = False  # whether all frames start from the same noise
        self.one_batch = False  # whether another node must see the clip in one model call
        self.bank_bytes = 0  # what the bank will hold at most, where it takes the model's memory
        self.controls = ControlCopies()
        self.batches: list[range] | None = None

    def active(self, sigma: float) -> bool:
        """Whether cross-frame attention acts at a noise level."""
        start, end = self.sigmas
        return end <= sigma <= start

    def expect_bank(self, nbytes: int) -> None:
        """Say what the bank will hold at most; kept elsewhere, it takes no memory here."""
        self.bank_bytes = nbytes if self.settings.storage.device is None else 0

    def draws(self) -> list[int]:
        """Which draw of a sampler's own noise each frame gets that is now sampled."""
        frames = [self.frame] if self.one_frame else range(self.frames)
        return [0 if self.one_noise else frame for frame in frames]


@dataclass(frozen=True)
class ComfyEvaluation(Evaluation):
    """An evaluation that can tell ComfyUI's conds apart (see `name_conds`)."""

    names: dict


def new_run(guider, noise: torch.Tensor, *, one_frame: bool) -> ComfyRun:
    """Begin a run for a guider whose MODEL carries settings.

    noise: of the clip, (frames, channels, height, width). Where it is the same for every frame,
    so is what a sampler adds.
    """
    settings: Settings = guider.model_options[KEY]
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = (
        float(sampling.percent_to_sigma(settings.start_percent)),
        float(sampling.percent_to_sigma(settings.end_percent)),
    )
    run = ComfyRun(settings, noise.shape[0], sigmas, one_frame)
    run.one_noise = bool((noise == noise[:1]).all())
    run.one_batch = not one_frame and needs_one_batch(guider)
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
    options = options_with_run(model_options, evaluation)
    if len(evaluation.frames) < evaluation.run.frames:
        options["transformer_options"]["ad_params"] = {
            "sub_idxs": [*evaluation.frames],
            "full_length": evaluation.run.frames,
            "context_length": len(evaluation.frames),
        }
    return options


def run_of(model_options: dict) -> ComfyRun | None:
    """The run that travels in model options, if a sampling is in progress."""
    value = model_options.get("transformer_options", {}).get(KEY)
    return value if isinstance(value, ComfyRun) else None
