"""Numbers that say how steady a clip is, and whether it was bought with something else.

Frames are (frames, 3, height, width), RGB in 0..1. Labels say what each pixel shows,
(frames, height, width), long, -1 where it is not to be judged.
"""

import torch
from torch import Tensor

from .correspondence import Correspondence, sample


def warp_error(frames: Tensor, motion: Correspondence) -> Tensor:
    """Mean squared difference between pixels and where they have moved to, per pair, (pairs,).

    Unit: squared RGB, mean over channels and valid pixels; nan for a pair without any.
    As in Lai et al., Learning Blind Video Temporal Consistency (2018), section 4.2, which
    warps to the frame before with an estimated flow and masks occlusions.
    A value that is nan or infinite at a valid pixel makes the pair's error so, too.
    """
    errors = warp_error_map(frames, motion)
    return errors.sum(dim=(1, 2)) / motion.valid.sum(dim=(1, 2))


def warp_error_map(frames: Tensor, motion: Correspondence) -> Tensor:
    """The squared difference at every pixel, (pairs, height, width), 0 where not valid."""
    moved = sample(frames[motion.later], motion.points.to(frames.dtype))  # (pairs, 3, h, w)
    error = (frames[motion.earlier] - moved).square().mean(dim=1)
    # Not a product with `valid`, as nothing times infinity is nan.
    return torch.where(motion.valid, error, 0)


def frames_not_finite(frames: Tensor) -> list[int]:
    """Numbers of the frames that have a value which is nan or infinite. frames: (frames, ...)."""
    return [number for number, frame in enumerate(frames) if not frame.isfinite().all()]


def mean_colours(frames: Tensor, labels: Tensor, count: int) -> Tensor:
    """Mean colour of each label in each frame, (frames, count, 3); nan where it is not seen."""
    pixels = frames.flatten(2).transpose(1, 2)  # (frames, h * w, 3)
    shown = labels.flatten(1)[..., None] == torch.arange(count, device=labels.device)
    shown = shown.to(frames.dtype)  # (frames, h * w, count)
    return (shown.transpose(1, 2) @ pixels) / shown.sum(dim=1)[..., None]


def colour_spread(frames: Tensor, labels: Tensor, count: int) -> Tensor:
    """How much each label's mean colour varies over time, (count,).

    Unit: RGB, the root of the variance over the frames that show it, mean over channels; nan
    for a label that fewer than two frames show.
    """
    colours = mean_colours(frames, labels, count)  # (frames, count, 3)
    seen = (~colours.isnan()).to(colours.dtype)
    times = seen.sum(dim=0)  # (count, 3)
    middle = colours.nansum(dim=0) / times
    variance = (colours - middle).square().nansum(dim=0) / times
    return torch.where(times[:, 0] > 1, variance.mean(dim=-1).sqrt(), torch.nan)


def layout_accuracy(frames: Tensor, labels: Tensor, count: int) -> Tensor:
    """Share of judged pixels whose colour is nearest to the mean of their own label, (frames,)."""
    means = mean_colours(frames, labels, count).nan_to_num(nan=1e3)  # an unseen one is far off
    pixels = frames.flatten(2).transpose(1, 2)  # (frames, h * w, 3)
    nearest = torch.cdist(pixels, means).argmin(dim=-1)  # (frames, h * w)
    wanted = labels.flatten(1)
    share: Tensor = (nearest == wanted).sum(dim=1) / (wanted >= 0).sum(dim=1)
    return share


def fine_detail(frames: Tensor) -> Tensor:
    """Share of the spectrum's power above half the Nyquist frequency, (frames,).

    Falls when texture blurs or edges soften; a constant picture has none, 0.
    """
    spectrum = torch.fft.fft2(frames - frames.mean(dim=(-2, -1), keepdim=True)).abs().square()
    y = torch.fft.fftfreq(frames.shape[-2], device=frames.device).abs()[:, None]
    x = torch.fft.fftfreq(frames.shape[-1], device=frames.device).abs()
    high = torch.maximum(y, x) > 0.25  # cycles per pixel; Nyquist is 0.5
    total = spectrum.sum(dim=(1, 2, 3))
    share: Tensor = (spectrum * high).sum(dim=(1, 2, 3)) / total.clamp(min=1e-12)
    return share


def class_distance(colours: Tensor, one: Tensor, others: Tensor) -> Tensor:
    """Distance from one label's colour to the nearest other label's, (rows,); nan if none.

    colours: (rows, count, 3), nan where not seen. one: label of each row, (rows,).
    others: which labels to compare with, (rows, count), bool.
    """
    mine = colours[torch.arange(len(colours)), one]  # (rows, 3)
    distance = (colours - mine[:, None]).square().sum(dim=-1).sqrt()  # (rows, count)
    distance = distance.masked_fill(~others | distance.isnan(), torch.inf)
    nearest = distance.min(dim=-1).values
    return torch.where(nearest.isinf(), torch.nan, nearest)
