"""Keyframes of a clip: picked out of it before they are painted, and spread over it afterwards."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...consistency import frames_not_finite
from ...motion import Motion
from ...motion.chosen_frames import ChosenFrames
from ...motion.propagate import Neighbour, propagated
from ...motion.variational import shrunk
from .errors import BadInputError
from .images import planes
from .model.motion import checked_motion
from .model.policy import frames_in

FROM_SAME_CLIP = "Connect the same frames to CrossFrameMotion and here."
FROM_MOTION = (
    "Connect the output 'motion' of CrossFrameMotion. That of CrossFrameKeyframes is only for the "
    "nodes that paint the keyframes."
)


def pick_keyframes(
    source: Tensor, motion: Any, every: int, keyframes: str
) -> tuple[Tensor, ChosenFrames, list[int]]:
    """Return the keyframes of a clip as a clip of their own, their motion, and their numbers.

    source: all frames, (frames, height, width, channels). every: every how many frames there is a
    keyframe; the last frame is always one. keyframes: their numbers, as text; if it is not empty,
    it counts instead. Raises BadInputError.
    """
    motion = checked_motion(motion)
    check_motion(motion, source, "source")
    numbers = _named(keyframes, len(source))
    if not numbers:
        numbers = sorted({*range(0, len(source), every), len(source) - 1})
    return source[numbers], ChosenFrames(motion, tuple(numbers)), numbers


def propagate(images: Tensor, source: Tensor, motion: Any, keyframes: str) -> Tensor:
    """Return a whole clip, (frames, height, width, 3), of which keyframes have been painted.

    images: the painted keyframes, in order. source: all frames before they were painted. keyframes:
    the numbers of the keyframes, as text; if it is empty, they are those that the motion comes
    with. Two keyframes are worked with at a time. Raises BadInputError before any work.
    """
    motion = checked_motion(motion)
    check_motion(motion, source, "source")
    numbers = _named(keyframes, len(source)) or list(getattr(motion, "keyframes", ()))
    _check_images(images, source, numbers)
    for name, pictures in (("images", images), ("source", source)):
        check_values(name, pictures)
    place = {number: row for row, number in enumerate(numbers)}
    frames = images.new_empty(len(source), *images.shape[1:3], 3, dtype=torch.float32)
    bar = comfy.utils.ProgressBar(len(source))
    for frame in range(len(source)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if frame in place:
            frames[frame] = images[place[frame], ..., :3]
        else:
            beside = _beside(frame, numbers)
            painted = [images[place[number]] for number in beside]
            frames[frame] = _between(frame, beside, painted, source, motion)
        bar.update(1)
    return frames


def _beside(frame: int, keyframes: Sequence[int]) -> list[int]:
    """Return the keyframes right before and after a frame."""
    before = [number for number in keyframes if number < frame]
    after = [number for number in keyframes if number > frame]
    return [*before[-1:], *after[:1]]


def _between(
    frame: int, beside: list[int], painted: list[Tensor], source: Tensor, motion: Motion
) -> Tensor:
    """Return the picture of a frame, (height, width, 3), made of those of keyframes beside it."""
    height, width = painted[0].shape[:2]
    neighbours = [
        Neighbour(
            _planes(picture, (height, width)),
            _planes(source[number], (height, width)),
            motion.between(frame, number, (height, width)),
            abs(frame - number),
        )
        for number, picture in zip(beside, painted, strict=True)
    ]
    return propagated(_planes(source[frame], (height, width)), neighbours).movedim(0, -1)


def _planes(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a picture, (height, width, channels), as (3, *size)."""
    whole = planes(picture[None])
    return (whole if whole.shape[-2:] == size else shrunk(whole, size))[0]


def _named(text: str, frames: int) -> list[int]:
    """Return the keyframes that a user has named. Raises BadInputError."""
    numbers = frames_in("keyframes", text)
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise BadInputError(
            "keyframes",
            f"'{text}' is not in order, or names a frame twice.",
            "Write each frame once, from the first to the last.",
        )
    if numbers and numbers[-1] >= frames:
        raise BadInputError(
            "keyframes",
            f"frame {numbers[-1]} is beyond the clip, whose last frame is {frames - 1}.",
            "Name frames of the clip; the first one is 0.",
        )
    return numbers


def check_motion(motion: Motion, pictures: Tensor, name: str, fix: str | None = None) -> None:
    """Raise BadInputError unless a motion can be that of a clip, (frames, height, width, c).

    name: the input that the clip came in by. fix: what to do, if not what goes for whole clips.
    """
    _check_batch(name, pictures)
    frames, height, width = pictures.shape[:3]
    if motion.frames != frames:
        raise BadInputError(
            "motion",
            f"it is that of {motion.frames} frames, but {name} has {frames}.",
            fix or (FROM_MOTION if isinstance(motion, ChosenFrames) else FROM_SAME_CLIP),
        )
    if not _same_shape(motion.size, (height, width)):
        rows, columns = motion.size
        raise BadInputError(
            "motion",
            f"it is that of pictures of {columns} x {rows} pixels, but {name} has pictures of "
            f"{width} x {height}, which is another shape.",
            fix or FROM_SAME_CLIP,
        )


def _check_batch(name: str, pictures: Tensor) -> None:
    if pictures.ndim != 4 or min(pictures.shape) == 0 or pictures.shape[-1] == 2:
        raise BadInputError(
            name,
            f"it is not a batch of pictures, but has the shape {tuple(pictures.shape)}.",
            "Connect the frames as an IMAGE.",
        )


def check_values(name: str, pictures: Tensor) -> None:
    """Raise BadInputError if a picture has values that would spread to others."""
    if broken := frames_not_finite(pictures):
        raise BadInputError(
            name,
            f"picture {broken[0]}, counted from 0, has values that are nan or infinite.",
            "Make it again. A common cause is a VAE that decodes in half precision (start ComfyUI "
            "with --fp32-vae).",
        )


def _check_images(images: Tensor, source: Tensor, numbers: Sequence[int]) -> None:
    _check_batch("images", images)
    if not numbers:
        raise BadInputError(
            "keyframes",
            "there are none, neither here nor in the motion.",
            "Connect the output 'keyframes' of CrossFrameKeyframes, or write their numbers.",
        )
    if len(images) != len(numbers):
        raise BadInputError(
            "images",
            f"there are {len(images)}, but {len(numbers)} keyframes "
            f"({', '.join(map(str, numbers))}).",
            "Connect one painted picture for each keyframe, in order.",
        )
    size, wanted = images.shape[1:3], source.shape[1:3]
    if not _same_shape(size, wanted):
        raise BadInputError(
            "images",
            f"they have {size[1]} x {size[0]} pixels, but source has {wanted[1]} x {wanted[0]}, "
            "which is another shape.",
            "Give source the shape in which the keyframes were painted (ImageScale).",
        )


def _same_shape(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether pictures of two sizes show the same, but for the cropping of a latent."""
    (height, width), (rows, columns) = one, other
    return abs(height * columns - width * rows) <= 8 * max(*one, *other)
