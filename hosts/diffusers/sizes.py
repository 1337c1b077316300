"""Check that all frames of a clip get the same size."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


def check_sizes(
    clips: Mapping[str, Any],
    processor: VaeImageProcessor,
    height: int | None = None,
    width: int | None = None,
) -> None:
    """Raise ValueError, which names both sizes, unless all frames get the same size.

    clips: sequences of frames, by the name of the argument that they came in. processor: the
    pipeline's image processor. height, width: the size that the pipeline is to give them, or None.
    """
    first: tuple[str, Size, Size] | None = None
    for name, frames in clips.items():
        for number, frame in enumerate(frames):
            where = f"{name}[{number}]"
            given = _given_size(frame, where)
            if not name.startswith("control_images") and _is_latent(frame, processor):
                scale = processor.config.vae_scale_factor
                used = given = Size(given.width * scale, given.height * scale)
            else:
                used = _used_size(given, processor, height, width)
            if first is None:
                first = where, given, used
            elif used != first[2]:
                raise ValueError(
                    f"{where} is {given} pixels, but {first[0]} is {first[1]}. Frames attend to "
                    "each other, so give all images and control images the same size, or pass "
                    "height and width."
                )


def _given_size(frame: Any, where: str) -> Size:
    """Return the size of one given frame. Raises ValueError if it is not one picture."""
    if isinstance(frame, PIL.Image.Image):
        return Size(*frame.size)
    if isinstance(frame, (list, tuple)) or getattr(frame, "ndim", None) == 4:
        if len(frame) != 1:
            raise ValueError(f"{where} holds {len(frame)} pictures, but a frame is one picture")
        return _given_size(frame[0], where)
    if isinstance(frame, Tensor) and frame.ndim in (2, 3):  # channels first
        return Size(frame.shape[-1], frame.shape[-2])
    if isinstance(frame, np.ndarray) and frame.ndim in (2, 3):  # channels last
        return Size(frame.shape[1], frame.shape[0])
    raise ValueError(
        f"{where} must be a PIL image, or an array or tensor of a picture, not "
        f"{type(frame).__name__}"
    )


def _is_latent(frame: Any, processor: VaeImageProcessor) -> bool:
    """Return whether the processor treats a frame as a latent, which it leaves as it is."""
    latent_channels = processor.config.vae_latent_channels
    return isinstance(frame, Tensor) and frame.ndim > 2 and frame.shape[-3] == latent_channels


def _used_size(
    given: Size, processor: VaeImageProcessor, height: int | None, width: int | None
) -> Size:
    """Return the size that a picture gets: the requested size or its own, in whole latents."""
    multiple = processor.config.vae_scale_factor
    wanted = Size(width or given.width, height or given.height)
    return Size(wanted.width // multiple * multiple, wanted.height // multiple * multiple)
