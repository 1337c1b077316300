"""Sample the frames of a clip one after another: the first STOREs, later ones LOAD.

One guider samples every frame, each time with that frame's latent, noise, mask and conds;
a `Run` carries what frames leave for later frames from one sampling to the next.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.samplers import resolve_areas_and_cond_masks_multidim

from ....attention.bank import readable_size
from ..errors import BadInputError
from ..model.settings import KEY, NODE
from ..neighbours.known import FRAME_BY_FRAME
from ..noise.clip_noise import mask_noise, with_mask_noise
from ..noise.sampler_noise import function_name
from ..page.progress import FrameProgress
from ..rows.conditions import ControlCopies, check_rows, conds_of_frames
from ..rows.default_prompts import with_clip_masks
from ..rows.hook_keyframes import HookKeyframes
from ..run.bank_size import expected_size, true_size
from ..run.comfy_run import ComfyRun, new_run, options_with_run
from ..run.failures import explained
from ..state.comfy_state import ComfyState, Origin
from ..state.continuation import NOTHING, Continuation
from ..state.record import Record
from .per_step import check_sampling

log = logging.getLogger("crossframe")


@dataclass(frozen=True)
class Painted:
    """Finished frames, like the latent they come from, and what they leave.

    x0: the last denoised estimates, None if the sampler shows none. state: None unless wanted.
    report: what was done and what it took, in words.
    """

    samples: torch.Tensor
    x0: torch.Tensor | None
    state: ComfyState | None
    report: str


def sample_frames(
    guider,
    noise,
    latent,
    sampler,
    sigmas,
    noise_mask,
    seed: int,
    node: str,
    going: Continuation = NOTHING,
    record: Record | None = None,
    numbers: Sequence[int] | None = None,
    one_noise: bool = False,
) -> Painted:
    """Sample the frames of a latent one by one.

    guider: a GUIDER whose MODEL carries cross-frame attention; it is left as it is.
    noise, latent: (frames, channels, height, width). noise_mask: None, or (..., height, width)
    with one row for all frames or one per frame. node: id of the node, for errors. record:
    where finished frames are kept until all are, and those of an interrupted run are found.
    numbers: of the frames in the whole clip, if they do not follow those of the state.
    one_noise: whether all frames share their noise, and what the sampler adds to it.
    Raises BadInputError before any sampling.
    """
    if noise_mask is not None:  # rows of masks come in as many shapes as there are nodes
        noise_mask = noise_mask.reshape(-1, 1, *noise_mask.shape[-2:])
    _check(guider, latent, sampler, noise_mask, node)
    frames = latent.shape[0]
    origin = None
    if going.has_origin or record is not None:
        origin = Origin.of(guider, noise, sampler, sigmas)
    done, going = record.found(going, origin) if record is not None else ([], going)
    run = new_run(
        guider,
        noise,
        node=node,
        one_frame=True,
        going=going,
        origin=origin,
        one_noise=one_noise,
        numbers=numbers,
    )
    if going.reference_only:
        run.pictures = latent
    conds = _clip_conds(guider, latent)
    keyframes = HookKeyframes(conds.values())
    own_noise = None
    if noise_mask is not None:
        own_noise = mask_noise(sampler, seed, latent, run.offset)
    bank = expected_size(run, guider, sampler, sigmas, latent)
    run.expect_bank(bank.nbytes)
    log.info(
        "Cross-frame attention: %d frames one after another, bank of %s %s in %d layers.",
        frames,
        "up to" if bank.counted else "about",
        readable_size(bank.nbytes),
        len(run.settings.layers),
    )
    progress = FrameProgress(guider.model_patcher, frames, max(len(sigmas) - 1, 0))
    samples, denoised = [samples for samples, _ in done], [x0 for _, x0 in done]
    try:
        for row in range(len(done), frames):
            with explained(node):
                run.start_frame(run.offset + row)
            keyframes.restore()
            rows = slice(row, row + 1)
            progress.start_frame(row)
            sample = _frame_guider(guider, run, conds).sample(
                noise[rows],
                latent[rows],
                sampler if own_noise is None else with_mask_noise(sampler, own_noise[rows]),
                sigmas.clone(),  # some samplers write into it
                denoise_mask=_mask_rows(noise_mask, rows),
                callback=progress.step,
                disable_pbar=True,
                seed=seed,
            )
            bank = true_size(bank, run)
            samples.append(sample.to(comfy.model_management.intermediate_device()))
            denoised.append(None if progress.x0 is None else progress.x0.cpu())
            if record is not None and row + 1 < frames:
                record.add((samples[-1], denoised[-1]), run)
    finally:
        progress.close()
    held = f"the bank held at most {readable_size(run.peak_bytes)}"
    log.info("Cross-frame attention: %s.", held)
    shown = all(x0 is not None for x0 in denoised)
    return Painted(
        torch.cat(samples),
        torch.cat(denoised) if shown else None,
        run.leave() if going.carry else None,
        _report(run, f"{held} ({readable_size(bank.nbytes)} expected)"),
    )


def _report(run: ComfyRun, held: str) -> str:
    """What was done, in words. held: what the bank held."""
    untried = "".join(
        f"\nIt could not be tried whether {owner} treats the frames of a clip alike."
        for owner in run.untried
    )
    missed = ""
    if run.missed:
        missed = (
            "\nSome prompts found nothing to look at, since they were not run in the same places "
            "at the same steps before; there frames looked at themselves."
        )
    count = "1 frame" if run.rows == 1 else f"{run.rows} frames"
    return f"{count}, {run.settings}; {held}{untried}{missed}"


def _mask_rows(noise_mask, rows: slice):
    """A frame's row of the noise mask, or the one row that all frames share."""
    if noise_mask is None or len(noise_mask) == 1:
        return noise_mask
    return noise_mask[rows]


def _check(guider, latent, sampler, noise_mask, node: str) -> None:
    if KEY not in guider.model_options:
        raise BadInputError(
            node,
            "model" if node == "CrossFrameKSampler" else "guider",
            "its MODEL carries no cross-frame attention.",
            f"Put a {NODE} node before it.",
        )
    check_sampling(guider, guider.original_conds, latent, FRAME_BY_FRAME, node)
    if noise_mask is not None:
        check_rows(noise_mask.shape[0], latent.shape[0], "noise masks", node, "latent_image")
    if function_name(getattr(sampler, "sampler_function", None)) == "dpm_adaptive_function":
        raise BadInputError(
            node,
            "sampler_name" if node == "CrossFrameKSampler" else "sampler",
            "dpm_adaptive chooses steps for each frame anew, so frames have no steps in common.",
            "Choose another sampler, or use a stock sampler node with the same MODEL: there "
            "all frames share their steps.",
        )


def _clip_conds(guider, latent) -> dict[str, list[dict]]:
    """The guider's conds with areas and masks worked out over the whole clip.

    A cond area that follows the bounds of its masks must be the same for every frame.
    """
    clip = {}
    for name, conds in guider.original_conds.items():
        clip[name] = [cond.copy() for cond in conds]
        device = guider.model_patcher.load_device
        resolve_areas_and_cond_masks_multidim(clip[name], latent.shape[2:], device)
        for cond in clip[name]:
            cond.pop("set_area_to_bounds", None)
        clip[name] = with_clip_masks(clip[name], latent.shape[0])
    return clip


def _frame_guider(guider, run: ComfyRun, conds: dict[str, list[dict]]):
    """A copy of the guider with the run's current frame's rows of its conds, and the run."""
    single = copy.copy(guider)
    frames = run.rows_of(range(run.frame, run.frame + 1))
    parts = conds_of_frames(list(conds.values()), frames, run.rows, ControlCopies())
    single.original_conds = dict(zip(conds, parts))
    single.model_options = options_with_run(create_model_options_clone(guider.model_options), run)
    return single
