"""Checks that refuse a sampling before it begins, in either order."""

import logging

import torch

from ..errors import BadInputError
from ..model.carried import carried_by
from ..model.settings import NODE
from ..neighbours.known import FRAME_BY_FRAME, check_neighbours
from ..noise.sampler_noise import function_name
from ..rows.conditions import check_conditions, check_rows

log = logging.getLogger("crossframe")


def check_sampling(guider, conds: dict[str, list[dict]], latent: torch.Tensor, way: str) -> None:
    """Refuse inputs that would give wrong frames; log if there is nothing to do.

    guider: a guider whose MODEL carries settings. conds: its cond dicts by input name.
    latent: (frames, channels, height, width). way: PER_STEP or FRAME_BY_FRAME.
    Raises BadInputError.
    """
    if latent.ndim not in (4, 5) or (latent.ndim == 5 and latent.shape[2] != 1):
        raise BadInputError(
            "latent_image",
            f"it is a {latent.ndim}-D latent, {tuple(latent.shape)}, as video models use.",
            "Encode the frames one by one with CrossFrameVAEEncode.",
        )
    check_neighbours(guider, way, latent.shape[0])
    check_conditions(conds, latent.shape[0])
    if latent.shape[0] == 1:
        log.info("Cross-frame attention: a batch of 1 frame has no other frames to attend to.")


def check_carries(model_options: dict) -> None:
    """Raise BadInputError unless a MODEL carries settings."""
    if carried_by(model_options) is None:
        raise BadInputError(
            "model",
            "the MODEL carries no cross-frame attention.",
            f"Put a {NODE} node before it.",
        )


def check_frame_by_frame(guider, latent: torch.Tensor, sampler, noise_mask) -> None:
    """Refuse inputs that cannot be sampled frame by frame.

    noise_mask: None, or (rows, 1, height, width). Raises BadInputError.
    """
    check_carries(guider.model_options)
    check_sampling(guider, guider.original_conds, latent, FRAME_BY_FRAME)
    if noise_mask is not None:
        check_rows(noise_mask.shape[0], latent.shape[0], "noise masks", "latent_image")
    if function_name(getattr(sampler, "sampler_function", None)) == "dpm_adaptive_function":
        raise BadInputError(
            "sampler",
            "dpm_adaptive chooses other steps for each frame, so frames have no steps in common.",
            "Choose another sampler, or use a stock sampler node with the same MODEL, where "
            "all frames share their steps.",
        )
