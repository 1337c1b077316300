"""Check whether the batch that a pipeline call gives to the U-Net can be one frame of the clip.

diffusers puts all pictures of a call into one batch, with one row per picture and cond. A picture
has 1 cond without guidance, 2 with guidance, and 3 if a picture guides too. The U-Net cannot tell
pictures from conds, nor frames from clips that are painted side by side.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

MOST_CONDS = 3  # the most rows that one picture takes


class Brought(NamedTuple):
    """The batch of one U-Net evaluation: its rows, and the width and height of its latents."""

    rows: int
    width: int
    height: int

    @classmethod
    def of(cls, args: tuple, kwargs: Mapping[str, Any]) -> "Brought":
        """Read it from the arguments of a call of the U-Net."""
        sample = args[0] if args else kwargs["sample"]  # (rows, channels, height, width)
        return cls(sample.shape[0], sample.shape[-1], sample.shape[-2])


def conds_per_picture(pipeline: Any) -> int | None:
    """Return how many rows a picture takes in the present call, or None if that is not known."""
    guided = getattr(pipeline, "do_classifier_free_guidance", None)
    if guided is None:
        return None
    return (3 if hasattr(pipeline, "image_guidance_scale") else 2) if guided else 1


def check_pictures(rows: int, frames: int, clips: int | None, conds: int | None) -> None:
    """Raise ValueError if a call seems to paint several frames, or another number of clips.

    rows: the rows of the clip's first batch. clips: how many clips are painted side by side, or
    None if that was not given. conds: see `conds_per_picture`. If there are as many pictures as
    frames or a multiple, they are taken for frames unless `clips` says otherwise.
    """
    if clips is not None:
        possible = range(1, MOST_CONDS + 1) if conds is None else (conds,)
        if rows not in [clips * each for each in possible]:
            raise ValueError(
                f"this pipeline call brings {_pictures(rows, conds)}, and clips={clips} was "
                f"announced. {ONE_CALL} 'clips' is the number of prompts times the number of "
                "images per prompt."
            )
        return
    if rows <= MOST_CONDS if conds is None else rows % conds:
        return  # this can be one picture
    pictures = rows // (conds or 1)
    if frames > 1 and pictures % frames == 0:
        meant = "their number" if conds is None else pictures
        raise ValueError(
            f"this pipeline call brings {_pictures(rows, conds)}, and the clip has {frames} "
            f"frames. {ONE_CALL} If these are not frames, but clips side by side (a list of "
            "prompts, or num_images_per_prompt), say so: "
            f"cross_frame_attention(..., clips={meant})."
        )


ONE_CALL = (
    "One call paints one frame: for every frame i, call start_frame(i), and then the pipeline with "
    "only the image of frame i."
)


def check_alike(first: Brought, now: Brought, frame: int, scale: int | None) -> None:
    """Raise ValueError unless a frame's batch is like frame 0's in the same evaluation.

    scale: pixels per latent, or None if that is not known.
    """
    if now[1:] != first[1:]:
        raise ValueError(
            f"frame {frame} is {_size(now, scale)}, but frame 0 was {_size(first, scale)}. Frames "
            "attend to each other, so give all of them the same size."
        )
    if now.rows != first.rows:
        raise ValueError(
            f"frame {frame} comes in {now.rows} rows, but frame 0 came in {first.rows}. Call the "
            "pipeline for every frame with the same guidance, the same number of prompts and the "
            "same number of images per prompt."
        )


def _size(brought: Brought, scale: int | None) -> str:
    if scale is None:
        return f"{brought.width} x {brought.height} latents"
    return f"{brought.width * scale} x {brought.height * scale} pixels"


def _pictures(rows: int, conds: int | None) -> str:
    if conds is None or rows % conds:
        return f"{rows} rows at once"
    number = rows // conds
    return f"{number} picture{'' if number == 1 else 's'} at once"
