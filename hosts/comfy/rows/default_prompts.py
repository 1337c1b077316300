"""Default prompts, which ComfyUI runs where masks of other prompts leave a frame uncovered.

ComfyUI decides for a whole batch: if any of its frames is not covered, the default prompt is run
for all of them. But the choice of the batch must not decide which frames have hidden states to
attend to. So the decision is made here for the whole clip: a default prompt that any frame needs
is run for every frame, as a prompt whose mask is the area that the others leave.
"""

from collections.abc import Sequence

import comfy.samplers
from torch import Tensor

from .places import take

# The key in a cond under which the mask of the whole clip is kept beside the frame's own mask.
CLIP_MASK = "crossframe_clip_mask"


class ClipMask:
    """A mask with one row per frame, (frames, height, width).

    It is not a tensor, so that no code cuts rows out of it.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask


def with_clip_masks(conds: list[dict], clip: int) -> list[dict]:
    """Return conds that keep a whole copy of each mask with one row per frame."""
    return [
        {**cond, CLIP_MASK: ClipMask(cond["mask"])}
        if isinstance(cond.get("mask"), Tensor) and cond["mask"].shape[0] == clip
        else cond
        for cond in conds
    ]


def resolve_default_prompts(
    conds: list[list[dict] | None], x: Tensor, timestep: Tensor, clip: int, frames: Sequence[int]
) -> list[list[dict] | None]:
    """Turn default prompts into ordinary prompts, by a decision over the whole clip.

    conds: one list of cond dicts per cond index, as ComfyUI has them while it samples. x: the
    latents of the frames that are sampled, (rows, channels, height, width), either the whole clip
    or a part. clip: the number of frames in the clip. frames: places in the clip of the rows of x.
    """
    return [
        cond
        if cond is None or not any("default" in entry for entry in cond)
        else _resolved(cond, x, timestep, clip, frames)
        for cond in conds
    ]


def _resolved(cond: list[dict], x: Tensor, timestep: Tensor, clip: int, frames: Sequence[int]):
    left = _left_uncovered(cond, x, timestep, clip)
    if not left.any():
        return [entry for entry in cond if "default" not in entry]
    mask = take(left, frames)
    return [_masked(entry, mask) if "default" in entry else entry for entry in cond]


def _masked(entry: dict, mask: Tensor) -> dict:
    """Return a default prompt as an ordinary one with a mask, (rows, height, width)."""
    settings = ("default", "strength", "mask_strength", "area", CLIP_MASK)
    return {**{k: v for k, v in entry.items() if k not in settings}, "mask": mask}


def _left_uncovered(cond: list[dict], x: Tensor, timestep: Tensor, clip: int) -> Tensor:
    """Return how much of each place the other prompts leave, (clip, height, width)."""
    left = x.new_ones(clip, 1, *x.shape[2:])
    like = left.new_empty(()).expand_as(left)  # has the clip's size but takes no memory
    for entry in cond:
        if "default" in entry:
            continue
        found = comfy.samplers.get_area_and_mult(_without_rows(entry), like, timestep)
        if found is not None:
            _narrowed(left, found.area).sub_(found.mult)
    return left.relu()[:, 0]


def _without_rows(entry: dict) -> dict:
    """Return the parts of a cond that say where and when it counts, for the whole clip."""
    where = {k: v for k, v in entry.items() if k not in ("control", "gligen")} | {"model_conds": {}}
    if CLIP_MASK in entry:
        where["mask"] = entry[CLIP_MASK].mask.to(entry["mask"])
    return where


def _narrowed(left: Tensor, area: list[int] | None) -> Tensor:
    """Return the part of a tensor, (..., height, width), that lies in one of ComfyUI's areas."""
    if area is None:
        return left
    dims = len(area) // 2
    for dim in range(dims):
        left = left.narrow(dim + 2, area[dim + dims], area[dim])
    return left
