"""Try a transformer on one frame, before its first evaluation, to find the picture's tokens."""

from collections.abc import Callable
from functools import partial

import comfy.samplers
from torch import Tensor

from ..model.carried import carried_by
from ..rows.conditions import ControlCopies, conds_of_frames
from ..run.comfy_run import ComfyRun
from ..run.joint_attention import tried

Conds = list[list[dict] | None]
# Runs a model on conds, latents, noise levels and model options.
RunModel = Callable[[Conds, Tensor, Tensor, dict], object]
# Parts of a cond that do not decide which tokens there are.
_LEFT_OUT = ("control", "default", "mask")


def measure_layouts(
    run: ComfyRun,
    run_model: RunModel,
    frame: int,
    conds: Conds,
    x: Tensor,
    timestep: Tensor,
    options: dict,
) -> None:
    """Measure the layouts of the conds that have not been tried yet, and plan the bank by them.

    run_model: runs the model without the wrappers of other nodes. frame: the number of a frame.
    conds: those of an evaluation. x: the latent of the frame, (1, channels, ..., height, width).
    timestep: its noise level, (1,). options: model options.
    Raises BadInputError if the model does not show its tokens, or if the bank does not fit.
    """
    layouts, carried = run.layouts, carried_by(options)
    if layouts is None or carried is None:
        return
    new = _untried(conds, layouts.conds, x, timestep)
    for index, place in new:
        alone: Conds = [[] for _ in conds]
        alone[index] = [_plain(conds[index][place])]  # type: ignore[index]
        # One by one, because ComfyUI decides anew at every call which conds it runs together.
        alone = conds_of_frames(alone, run.facts.places([frame]), run.facts.rows, ControlCopies())
        trial = partial(_run, run_model, alone, timestep)
        passes = tried(trial, x, carried, options["transformer_options"])
        layouts.add(passes)
        layouts.passes += passes
    if not new:
        return
    layouts.conds.update(new)
    per_frame = layouts.frame_bytes(run.facts.settings.layer_set, run.facts.settings.storage)
    run.memory.expect_frames(per_frame, x.device, must_fit=run.one_frame)


def _run(
    run_model: RunModel, conds: Conds, timestep: Tensor, latent: Tensor, options: dict
) -> None:
    """Run a model with transformer options."""
    run_model(conds, latent, timestep, {"transformer_options": options})


def _untried(
    conds: Conds, done: set[tuple[int, int]], x: Tensor, timestep: Tensor
) -> list[tuple[int, int]]:
    """Return (cond index, position) of the conds that run at this noise level and are new."""
    return [
        (index, place)
        for index, entries in enumerate(conds)
        for place, entry in enumerate(entries or ())
        if (index, place) not in done
        and comfy.samplers.get_area_and_mult(_plain(entry), x, timestep) is not None
    ]


def _plain(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if name not in _LEFT_OUT}
