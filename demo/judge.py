"""Judge edited clips of the small world against its ground truth."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import consistency
from ..motion import Correspondence
from . import world

NEAR = 1  # frames apart
PARTS = 2 * len(world.CLASSES)
SETTLED = 4  # how many frames after it came in a newcomer is judged
ENOUGH = 12  # how many pixels of a part a frame must show for its colour to count


@dataclass(frozen=True)
class Truth:
    """What judging needs to know about a clip; it is computed once.

    near, far: the exact motion between frames that are near and far apart. instance, part: labels
    of pixels, (frames, SIZE, SIZE). newcomers: classes that are first seen after the first frame.
    """

    near: Correspondence
    far: Correspondence
    instance: Tensor
    part: Tensor
    newcomers: tuple[int, ...]

    @classmethod
    def of(cls, clip: world.Clip, far: int) -> "Truth":
        """Return the truth of a clip, with the motion between frames 1 and `far` frames apart."""
        instance, part = world.labels(clip)
        shown = [set(frame[frame >= 0].div(2, rounding_mode="floor").tolist()) for frame in part]
        newcomers = set.union(*shown) - shown[0]
        return cls(
            world.correspondence(clip, NEAR),
            world.correspondence(clip, far),
            instance,
            part,
            tuple(sorted(newcomers)),
        )


def judge(frames: Tensor, truth: Truth) -> dict[str, float]:
    """Return all measures of one edited clip; a measure is nan if there is nothing to measure.

    frames: (frames, 3, SIZE, SIZE).
    The measures are: near, far: warp error, squared RGB. spread: the colour spread of the objects
    over time, RGB. layout, detail: see `layout_accuracy`, `fine_detail`. newcomer_near: the warp
    error `near` on pixels of newcomers only. newcomer_contrast: the distance of newcomers' colours
    to the nearest colour of another class. Raises ValueError if a frame has values that are nan or
    infinite, because means leave out nan and the frame would not be judged.
    """
    if broken := consistency.frames_not_finite(frames):
        raise ValueError(f"frame {broken[0]} has values that are nan or infinite")
    objects = int(truth.instance.max()) + 1
    return {
        "near": _mean(consistency.warp_error(frames, truth.near)),
        "far": _mean(consistency.warp_error(frames, truth.far)),
        "spread": _mean(consistency.colour_spread(frames, truth.instance, objects)),
        "layout": _mean(consistency.layout_accuracy(frames, truth.part, PARTS)),
        "detail": _mean(consistency.fine_detail(frames)),
        "newcomer_near": _mean(consistency.warp_error(frames, _newcomers(truth.near, truth))),
        "newcomer_contrast": _newcomer_contrast(frames, truth),
    }


def diversity(edits: Tensor, truth: Truth) -> float:
    """Return how much the look of one clip varies over seeds.

    edits: (seeds, frames, 3, SIZE, SIZE). The unit is RGB: the standard deviation over seeds of
    each part's mean colour in a frame.
    """
    colours = torch.stack([consistency.mean_colours(frames, truth.part, PARTS) for frames in edits])
    return _mean(colours.var(dim=0).mean(dim=-1).sqrt())  # (seeds, frames, parts, 3)


def _newcomers(motion: Correspondence, truth: Truth) -> Correspondence:
    """Return a motion that is valid only at pixels of newcomers."""
    classes = truth.part[motion.earlier].div(2, rounding_mode="floor")
    wanted = torch.isin(classes, torch.tensor(truth.newcomers, dtype=torch.long))
    return replace(motion, valid=motion.valid & wanted)


def _newcomer_contrast(frames: Tensor, truth: Truth) -> float:
    """Return the mean distance of newcomers' colours to the nearest colour of another class."""
    colours = consistency.mean_colours(frames, truth.part, PARTS)  # (frames, parts, 3)
    counts = torch.stack([(truth.part == part).sum(dim=(1, 2)) for part in range(PARTS)], dim=1)
    colours = colours.masked_fill((counts < ENOUGH)[..., None], torch.nan)
    distances = []
    for kind in truth.newcomers:
        part = torch.full((len(frames),), 2 * kind)
        others = torch.ones(len(frames), PARTS, dtype=torch.bool)
        others[:, 2 * kind : 2 * kind + 2] = False
        distance = consistency.class_distance(colours, part, others)
        seen = (~colours[:, 2 * kind, 0].isnan()).nonzero().flatten()
        if len(seen):
            distance = distance.masked_fill(colours[:, 2 * kind, 0].isnan(), torch.nan)
            distances.append(distance[seen[0] + SETTLED :])
    return _mean(torch.cat(distances)) if distances else float("nan")


def _mean(values: Tensor) -> float:
    return float(values.nanmean())
