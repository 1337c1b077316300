"""Memory of a sampling: what is asked of ComfyUI, and how many frames are run at once."""

import logging
import math

import comfy.model_management
import torch
from comfy.sampler_helpers import get_additional_models

from ....attention.references import frames_kept
from .batches import batches, fastest, frames_that_fit
from .comfy_run import ComfyRun, run_of

log = logging.getLogger("crossframe")


def budget_memory(executor, model, noise_shape, conds, *args, **kwargs):
    """PREPARE_SAMPLING wrapper: ask for the memory of one batch of frames and of the bank.

    ComfyUI estimates memory from a latent's shape alone, so the bank is asked for as the
    frames that would need as much.
    """
    run = run_of(kwargs.get("model_options") or {})
    if run is not None:
        if not run.one_frame:
            others, inference = get_additional_models(conds, model.model_dtype())
            # What could be free with the models of this sampling loaded, all else moved away.
            free = (
                comfy.model_management.get_total_memory(model.load_device)
                - comfy.model_management.extra_reserved_memory()
                - sum(loaded.model_size() for loaded in (model, *others))
                - inference
            )
            entries = sum(len(cond) for cond in conds.values())
            dtype = model.model.get_dtype_inference()
            run.expect_bank(evaluation_bytes(run, entries, noise_shape, dtype))
            at_most = frames_per_batch(run, model.model, noise_shape, free, model.load_device)
            if at_most == run.rows and run.state is None:
                run.expect_bank(0)  # nothing is left to another batch
            noise_shape = [at_most, *noise_shape[1:]]
        # What the bank holds already is no longer free, and needs no more room.
        to_come = max(run.bank_bytes - run.bank.nbytes, 0)
        per_frame = max(model.model.memory_required([2, *noise_shape[1:]]), 1)
        needed = math.ceil(to_come / per_frame)
        noise_shape = [noise_shape[0] + needed, *noise_shape[1:]]
    return executor(model, noise_shape, conds, *args, **kwargs)


def evaluation_bytes(run: ComfyRun, entries: int, shape, dtype: torch.dtype) -> int:
    """Bytes that hidden states of one model evaluation take at most in the run's bank.

    entries: conds that are run. shape: of a latent, (..., height, width).
    """
    storage = run.settings.storage
    per_frame = sum(
        attn1.tokens(*shape[-2:]) * storage.bytes_per_token(attn1.channels, dtype.itemsize)
        for attn1 in run.settings.layers
    )
    return entries * per_frame * frames_kept(run.last_readers, run.start)


def frames_per_batch(run: ComfyRun, model, shape, free: float, device: torch.device) -> int:
    """Frames to run in one batch: the user's number, or what is fastest of what fits.

    What fits is counted with cond and uncond together. All of them if another node needs that,
    as without cross-frame attention. model: ComfyUI's BaseModel. shape: of the clip's latent.
    free: bytes on the device that computes.
    """
    if run.settings.frames_per_batch > 0:
        return min(run.settings.frames_per_batch, run.rows)
    if run.one_batch:
        return run.rows

    def required(frames: int) -> float:
        return model.memory_required([2 * frames, *shape[1:]])

    at_most = fastest(device.type, run.rows)
    whole = frames_that_fit(required, free, at_most)
    if whole == run.rows and run.state is None:
        return whole  # and no bank is needed
    return frames_that_fit(required, free - run.bank_bytes, at_most)


def plan_batches(run: ComfyRun, model, x) -> list[range]:
    """Split the clip by what is free now that the models are loaded; once for the whole run.

    The split does not change the frames beyond rounding, but a run should not depend on what
    else happens to memory while it goes on.
    """
    free = model.current_patcher.get_free_memory(x.device)
    parts = batches(run.rows, frames_per_batch(run, model, x.shape, free, x.device), run.offset)
    log.info(
        "Cross-frame attention: %d frames per step, in batches of up to %d.",
        run.rows,
        max(map(len, parts)),
    )
    return parts
