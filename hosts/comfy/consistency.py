"""The consistency report on ComfyUI's IMAGE batches, (frames, height, width, 3)."""

import importlib.util

import comfy.model_management
import comfy.utils
from torch import Tensor

from ...consistency.report import Report, heat_map, plot, report
from .errors import BadInputError

NODE = "CrossFrameConsistency"


def consistency_report(edited: Tensor, source: Tensor, far: int) -> tuple[Report, Tensor, Tensor]:
    """Measure an edited video: the report, a plot (1, h, w, 3) and a heat-map clip.

    far: the largest lag, frames; lags are 1, 2, 4, ... and far. Raises BadInputError if the
    two videos are not of one shape or too short.
    """
    check_library()
    check_clips(edited, source, far)
    bar = comfy.utils.ProgressBar(len(source) - 1)

    def progress() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    frames, moving = _frames(edited), _frames(source)
    found = report(frames, moving, lags_up_to(far), progress)
    heat = heat_map(frames, found.heat)
    return found, plot(found.errors)[None].movedim(1, -1), heat.movedim(1, -1)


def _frames(images: Tensor) -> Tensor:
    """(frames, height, width, 3 or 4) -> (frames, 3, height, width)."""
    return images[..., :3].movedim(-1, 1).float().cpu()


def check_library() -> None:
    """Raise RuntimeError unless the library that estimates motion is there."""
    if importlib.util.find_spec("skimage") is None:
        raise RuntimeError(
            f"{NODE}: the Python package scikit-image, which estimates motion, is missing. "
            "Install the pack's requirements.txt into ComfyUI's environment."
        )


def check_clips(edited: Tensor, source: Tensor, far: int) -> None:
    """Raise BadInputError unless an edited video can be compared with its source."""
    if edited.shape[:3] != source.shape[:3]:
        raise BadInputError(
            NODE,
            "source",
            f"has {_described(source)}, edited has {_described(edited)}.",
            "Give both videos the same frames in the same size (ImageScale).",
        )
    if len(edited) <= far:
        raise BadInputError(
            NODE,
            "far",
            f"is {far}, but the video has only {len(edited)} frames.",
            f"Choose at most {max(len(edited) - 1, 1)}, or give a longer video.",
        )


def lags_up_to(far: int) -> list[int]:
    """1, 2, 4, ... and `far` itself."""
    lags = [1]
    while lags[-1] * 2 < far:
        lags.append(lags[-1] * 2)
    return lags if lags[-1] == far else [*lags, far]


def _described(images: Tensor) -> str:
    frames, height, width = images.shape[:3]
    return f"{frames} frames of {width} x {height}"
