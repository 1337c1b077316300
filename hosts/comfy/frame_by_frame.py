"""Sample the frames of a clip one after another: the first STOREs, later ones LOAD.

One guider samples every frame, each time with that frame's latent, noise, mask and conds;
a `Run` carries what frames leave for later frames from one sampling to the next.
"""

import copy
import logging
import math

import comfy.model_management
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.samplers import resolve_areas_and_cond_masks_multidim
from tqdm.auto import tqdm

from ...attention.bank import readable_size
from ...attention.references import frames_kept
from .conditions import ControlCopies, check_conditions, check_rows, conds_of_frames
from .errors import BadInputError
from .evaluations import count_evaluations
from .noise import frame_sampler
from .patch import KEY, NODE, ComfyRun, check_sampling, new_run, options_with_run

log = logging.getLogger("crossframe")


def sample_frames(guider, noise, latent, sampler, sigmas, noise_mask, seed: int, node: str):
    """Sample a clip frame by frame.

    guider: a GUIDER whose MODEL carries cross-frame attention; it is left as it is.
    noise, latent: (frames, channels, height, width). noise_mask: None, or one row or one
    row per frame. node: id of the node, for errors.
    Returns (samples, x0), both like latent; x0, the last denoised estimates, is None if the
    sampler shows none. Raises BadInputError before any sampling.
    """
    _check(guider, latent, sampler, noise_mask, node)
    frames = latent.shape[0]
    run = new_run(guider, frames, one_frame=True)
    conds = _clip_conds(guider, latent)
    _announce(run, guider, sampler, sigmas, latent)
    progress = _Progress(guider.model_patcher, frames, len(sigmas) - 1)
    samples, denoised = [], []
    try:
        for frame in range(frames):
            run.start_frame(frame)
            rows = slice(frame, frame + 1)
            mask = noise_mask[rows] if noise_mask is not None and len(noise_mask) > 1 else noise_mask
            progress.start_frame(frame)
            sample = _frame_guider(guider, run, conds).sample(
                noise[rows],
                latent[rows],
                frame_sampler(sampler, seed, latent, frame),
                sigmas,
                denoise_mask=mask,
                callback=progress.step,
                disable_pbar=True,
                seed=seed,
            )
            samples.append(sample.to(comfy.model_management.intermediate_device()))
            denoised.append(progress.x0)
    finally:
        progress.close()
    log.info("Cross-frame attention: %r held at most %s.", run.bank, readable_size(run.peak_bytes))
    x0 = None if None in [type(d) for d in denoised] or denoised[0] is None else torch.cat(denoised)
    return torch.cat(samples), x0


def _check(guider, latent, sampler, noise_mask, node: str) -> None:
    if KEY not in guider.model_options:
        raise BadInputError(
            node,
            "model" if node == "CrossFrameKSampler" else "guider",
            "its MODEL carries no cross-frame attention.",
            f"Put a {NODE} node before it.",
        )
    check_sampling(guider, latent, node)
    check_conditions(guider.original_conds, latent.shape[0], node)
    if noise_mask is not None:
        check_rows(noise_mask.shape[0], latent.shape[0], "noise masks", node, "latent_image")
    function = getattr(sampler, "sampler_function", None)
    if getattr(function, "__name__", "") == "dpm_adaptive_function":
        raise BadInputError(
            node,
            "sampler_name" if node == "CrossFrameKSampler" else "sampler",
            "dpm_adaptive chooses steps for each frame anew, so frames have no steps in common.",
            "Choose another sampler, or use a stock sampler node with the same MODEL: there "
            "all frames share their steps.",
        )
    if latent.shape[0] == 1:
        log.info("Cross-frame attention: a batch of 1 frame has no other frames to attend to.")


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
    return clip


def _frame_guider(guider, run: ComfyRun, conds: dict[str, list[dict]]):
    """A copy of the guider with the run's current frame's rows of its conds, and the run."""
    single = copy.copy(guider)
    frames = range(run.frame, run.frame + 1)
    parts = conds_of_frames(list(conds.values()), frames, run.frames, ControlCopies())
    single.original_conds = dict(zip(conds, parts))
    single.model_options = options_with_run(create_model_options_clone(guider.model_options), run)
    return single


def _announce(run: ComfyRun, guider, sampler, sigmas, latent) -> None:
    """Say before sampling how large the bank gets."""
    size = bank_bytes(run, guider, sampler, sigmas, latent)
    log.info(
        "Cross-frame attention: %d frames one after another, bank of up to %s in %d layers.",
        run.frames,
        readable_size(size),
        len(run.settings.layers),
    )


def bank_bytes(run: ComfyRun, guider, sampler, sigmas, latent) -> int:
    """Bytes that the bank of a run will hold at most.

    Exact where every cond runs in every evaluation over the whole frame; areas and
    timestep ranges make it smaller, extra passes of other nodes (PAG, SAG) larger.
    """
    height, width = latent.shape[2:]
    evaluations = count_evaluations(guider, sampler, sigmas, run.active)
    size = guider.model_patcher.model.get_dtype_inference().itemsize
    per_entry = sum(a.tokens(height, width) * a.channels * size for a in run.settings.layers)
    kept = frames_kept(run.policy, run.frames)
    return evaluations * _entries(guider) * per_entry * kept


def _entries(guider) -> int:
    """How many conds a model evaluation runs: at cfg 1 ComfyUI leaves the negative out."""
    conds = dict(guider.original_conds)
    plain = type(guider) is comfy.samplers.CFGGuider
    optimized = not guider.model_options.get("disable_cfg1_optimization", False)
    if plain and optimized and math.isclose(guider.cfg, 1.0):
        conds.pop("negative", None)
    return sum(len(cond) for cond in conds.values())


class _Progress:
    """One progress bar over frames x steps, in the page and on the console, with previews."""

    def __init__(self, model_patcher, frames: int, steps: int) -> None:
        self.steps, self.total = steps, frames * steps
        self.frame = 0
        self.x0: torch.Tensor | None = None
        self._previewer = latent_preview.get_previewer(
            model_patcher.load_device, model_patcher.model.latent_format
        )
        self._page = comfy.utils.ProgressBar(self.total)
        self._console = tqdm(total=self.total, disable=not comfy.utils.PROGRESS_BAR_ENABLED)

    def start_frame(self, frame: int) -> None:
        self.frame, self.x0 = frame, None

    def step(self, step: int, x0, x, total_steps: int) -> None:
        """Callback of ComfyUI's samplers, after each step of a frame."""
        self.x0 = x0.cpu()
        done = self.frame * self.steps + min(step + 1, self.steps)
        self._console.update(done - self._console.n)
        preview = None
        if self._previewer is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", x0)
        self._page.update_absolute(done, self.total, preview)

    def close(self) -> None:
        self._console.close()
