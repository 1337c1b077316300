"""The consistency report on ComfyUI's IMAGE batches, (frames, height, width, channels)."""

import importlib.util
from dataclasses import replace

import comfy.model_management
import comfy.utils
from torch import Tensor

from ...consistency import frames_not_finite
from ...consistency.report import Report, heat_map, plot, report
from ...motion.optical_flow import LEAST_SIDE
from .errors import BadInputError

NO_STRUCTURE = 1 / 255  # RGB; a frame that varies by less counts as one colour
BEYOND = 0.05  # RGB; resizing may overshoot 0 and 1 by this much


def consistency_report(edited: Tensor, source: Tensor, far: int) -> tuple[Report, Tensor, Tensor]:
    """Measure an edited video; return the report, a plot (1, h, w, 3) and a heat map of the clip.

    far: the largest lag in frames. The lags are 1, 2, 4, ... and this one; a shorter video is
    measured as far as it goes. Raises BadInputError if the two videos have different shapes, are
    too short or too small, or have values that are nan or infinite.
    """
    check_library()
    check_clips(edited, source)
    frames, moving = _frames(edited), _frames(source)
    check_values(frames, moving)
    bar = comfy.utils.ProgressBar(len(source) - 1)

    def progress() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    found = report(frames, moving, lags_up_to(min(far, len(source) - 1)), progress)
    found = replace(found, notes=_notes(frames, moving, far))
    heat = heat_map(frames, found.heat)
    return found, plot(found.errors)[None].movedim(1, -1), heat.movedim(1, -1)


def _frames(images: Tensor) -> Tensor:
    """Turn (frames, height, width, channels) into (frames, 3 or 1, height, width), no alpha."""
    colours = 3 if images.shape[-1] >= 3 else 1
    return images[..., :colours].movedim(-1, 1).float().cpu()


def check_library() -> None:
    """Raise RuntimeError unless the library that estimates motion is installed."""
    if importlib.util.find_spec("skimage") is None:
        raise RuntimeError(
            "CrossFrameConsistency: the Python package scikit-image, which estimates motion, "
            "is missing. "
            "Install the pack's requirements.txt into ComfyUI's environment."
        )


def check_clips(edited: Tensor, source: Tensor) -> None:
    """Raise BadInputError unless an edited video can be compared with its source by its shape."""
    for name, images in (("edited", edited), ("source", source)):
        if images.ndim != 4 or images.shape[-1] == 0:
            problem = f"it is not a batch of pictures, but has the shape {tuple(images.shape)}."
            raise BadInputError(name, problem, "Connect the frames as an IMAGE.")
    if edited.shape[:3] != source.shape[:3]:
        raise BadInputError(
            "source",
            f"it has {_described(source)}, but edited has {_described(edited)}.",
            "Give both videos the same frames in the same size (ImageScale).",
        )
    if len(edited) < 2:
        raise BadInputError(
            "edited",
            f"it has {_described(edited)}, and steadiness is measured between frames.",
            "Give both videos at least 2 frames.",
        )
    if min(edited.shape[1:3]) < LEAST_SIDE:
        raise BadInputError(
            "edited",
            f"it has {_described(edited)}, too small to see any motion.",
            f"Give pictures of at least {LEAST_SIDE} x {LEAST_SIDE} pixels.",
        )


def check_values(edited: Tensor, source: Tensor) -> None:
    """Raise BadInputError if a frame has values that are nan or infinite."""
    for name, frames in (("edited", edited), ("source", source)):
        if broken := frames_not_finite(frames):
            others = f", and so have {len(broken) - 1} others" if broken[1:] else ""
            raise BadInputError(
                name,
                f"frame {broken[0]}, counted from 0, has values that are nan or infinite{others}.",
                "Find out where they come from, and make these frames again. A common cause is a "
                "VAE that decodes in half precision (start ComfyUI with --fp32-vae).",
            )


def lags_up_to(far: int) -> list[int]:
    """Return the lags 1, 2, 4, ... and `far` itself."""
    lags = [1]
    while lags[-1] * 2 < far:
        lags.append(lags[-1] * 2)
    return lags if lags[-1] == far else [*lags, far]


def _notes(edited: Tensor, source: Tensor, far: int) -> tuple[str, ...]:
    """Return notes about unusual inputs that change the meaning of the numbers."""
    notes = []
    if far >= len(edited):
        notes.append(
            f"The videos have {len(edited)} frames, so the largest distance is {len(edited) - 1} "
            f"and not {far}."
        )
    for name, frames in (("edited", edited), ("source", source)):
        lowest, highest = float(frames.min()), float(frames.max())
        if lowest < -BEYOND or highest > 1 + BEYOND:
            notes.append(
                f"{name} has values from {lowest:.4g} to {highest:.4g}. Pictures normally have "
                "values from 0 to 1, and the numbers assume that range."
            )
    if _of_one_colour(edited):
        notes.append("Every frame of edited is of one colour, so a low number says nothing.")
    if _of_one_colour(source):
        notes.append(
            "Every frame of source is of one colour. No motion can be seen there, so each pixel "
            "was compared with the pixel at the same place."
        )
    return tuple(notes)


def _of_one_colour(frames: Tensor) -> bool:
    """Return whether every frame is of one colour. frames: (frames, channels, height, width)."""
    return bool((frames.amax(dim=(2, 3)) - frames.amin(dim=(2, 3)) < NO_STRUCTURE).all())


def _described(images: Tensor) -> str:
    frames, height, width = images.shape[:3]
    return f"{frames} frame{'' if frames == 1 else 's'} of {width} x {height}"
