"""What a pipeline call brings to the U-Net, and whether one frame of the clip can be like that.

diffusers puts all pictures of a call into one batch, with one row per picture and cond: 1 without
guidance, 2 with it, 3 where a picture guides too. The U-Net cannot tell pictures apart from conds,
nor frames from clips that are painted side by side.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

MOST_CONDS = 3  # rows that one picture takes, at most


class Brought(NamedTuple):
    """The batch of one evaluation of the U-Net; width and height of its latents."""

    rows: int
    width: int
    height: int

    @classmethod
    def of(cls, args: tuple, kwargs: Mapping[str, Any]) -> "Brought":
        """Read it from the arguments of a U-Net's call."""
        sample = args[0] if args else kwargs["sample"]  # (rows, channels, height, width)
        return cls(sample.shape[0], sample.shape[-1], sample.shape[-2])


def conds_per_picture(pipeline: Any) -> int | None:
    """Rows that a picture takes in the call that is going on; None if the pipeline doesn't say."""
    guided = getattr(pipeline, "do_classifier_free_guidance", None)
    if guided is None:
        return None
    return (3 if hasattr(pipeline, "image_guidance_scale") else 2) if guided else 1


def check_pictures(rows: int, frames: int, clips: int | None, conds: int | None) -> None:
    """Raise ValueError if a call seems to paint several frames, or other clips than announced.

    rows: of the first batch of the clip. clips: painted side by side, None if nobody has said.
    conds: see `conds_per_picture`. As many pictures as there are frames, or a multiple, are taken
    for frames unless `clips` says otherwise.
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
        return  # may well be one picture
    pictures = rows // (conds or 1)
    if frames > 1 and pictures % frames == 0:
        meant = "their number" if conds is None else pictures
        raise ValueError(
            f"this pipeline call brings {_pictures(rows, conds)}, and the clip has {frames} "
            f"frames. {ONE_CALL} If these are no frames but clips side by side (a list of prompts, "
            f"or num_images_per_prompt), say so: cross_frame_attention(..., clips={meant})."
        )


ONE_CALL = (
    "One call paints one frame: for every frame i, call start_frame(i), and then the pipeline with "
    "the image of frame i alone."
)


def check_alike(first: Brought, now: Brought, frame: int, scale: int | None) -> None:
    """Raise ValueError unless a frame's batch is like frame 0's in the same evaluation.

    scale: pixels per latent, None if not known.
    """
    if now[1:] != first[1:]:
        raise ValueError(
            f"frame {frame} is {_size(now, scale)}, frame 0 was {_size(first, scale)}. Frames "
            "attend to each other, so give all of them the same size."
        )
    if now.rows != first.rows:
        raise ValueError(
            f"frame {frame} comes in {now.rows} rows, frame 0 came in {first.rows}. Call the "
            "pipeline for every frame with the same guidance, and with as many prompts and "
            "images per prompt."
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
