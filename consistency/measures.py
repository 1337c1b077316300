"""Numbers that say how steady a clip is, and what may have been lost in exchange.

Frames are (frames, 3, height, width), RGB in 0..1. Labels say what each pixel shows. They are
(frames, height, width), long, and -1 at pixels that are not to be judged.
"""

import torch
from torch import Tensor

from ..motion import Correspondence, sample


def warp_error(frames: Tensor, motion: Correspondence) -> Tensor:
    """Return the mean squared difference between pixels and the points they moved to, (pairs,).

    The unit is squared RGB, the mean is over channels and valid pixels, and a pair without valid
    pixels gets nan. This follows Lai et al., Learning Blind Video Temporal Consistency (2018),
    section 4.2, which warps to the frame before with an estimated flow and masks occlusions.
    If a value at a valid pixel is nan or infinite, the pair's error is so too.
    """
    errors = warp_error_map(frames, motion)
    return errors.sum(dim=(1, 2)) / motion.valid.sum(dim=(1, 2))


def warp_error_map(frames: Tensor, motion: Correspondence) -> Tensor:
    """Return the squared difference at every pixel, (pairs, height, width), 0 at invalid pixels."""
    moved = sample(frames[motion.later], motion.points.to(frames.dtype))  # (pairs, 3, h, w)
    error = (frames[motion.earlier] - moved).square().mean(dim=1)
    # It is not multiplied by `valid`, because zero times infinity is nan.
    return torch.where(motion.valid, error, 0)


def frames_not_finite(frames: Tensor) -> list[int]:
    """Return the numbers of the frames with nan or infinite values. frames: (frames, ...)."""
    return [number for number, frame in enumerate(frames) if not frame.isfinite().all()]


def mean_colours(frames: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return each label's mean colour in each frame, (frames, count, 3); nan if it is not seen."""
    pixels = frames.flatten(2).transpose(1, 2)  # (frames, h * w, 3)
    shown = labels.flatten(1)[..., None] == torch.arange(count, device=labels.device)
    shown = shown.to(frames.dtype)  # (frames, h * w, count)
    return (shown.transpose(1, 2) @ pixels) / shown.sum(dim=1)[..., None]


def colour_spread(frames: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return how much each label's mean colour varies over time, (count,).

    The unit is RGB: the root of the variance over the frames that show the label, averaged over
    channels before the root is taken. A label that fewer than two frames show gets nan.
    """
    colours = mean_colours(frames, labels, count)  # (frames, count, 3)
    seen = (~colours.isnan()).to(colours.dtype)
    times = seen.sum(dim=0)  # (count, 3)
    middle = colours.nansum(dim=0) / times
    variance = (colours - middle).square().nansum(dim=0) / times
    return torch.where(times[:, 0] > 1, variance.mean(dim=-1).sqrt(), torch.nan)


def layout_accuracy(frames: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the share of judged pixels that are nearest to their own label's mean, (frames,).

    The distance is that between colours.
    """
    means = mean_colours(frames, labels, count).nan_to_num(nan=1e3)  # unseen labels are far away
    pixels = frames.flatten(2).transpose(1, 2)  # (frames, h * w, 3)
    nearest = torch.cdist(pixels, means).argmin(dim=-1)  # (frames, h * w)
    wanted = labels.flatten(1)
    share: Tensor = (nearest == wanted).sum(dim=1) / (wanted >= 0).sum(dim=1)
    return share


def fine_detail(frames: Tensor) -> Tensor:
    """Return the share of the spectrum's power above half the Nyquist frequency, (frames,).

    It falls when texture blurs or edges soften. A constant picture gets 0.
    """
    spectrum = torch.fft.fft2(frames - frames.mean(dim=(-2, -1), keepdim=True)).abs().square()
    y = torch.fft.fftfreq(frames.shape[-2], device=frames.device).abs()[:, None]
    x = torch.fft.fftfreq(frames.shape[-1], device=frames.device).abs()
    high = torch.maximum(y, x) > 0.25  # cycles per pixel; Nyquist is 0.5
    total = spectrum.sum(dim=(1, 2, 3))
    share: Tensor = (spectrum * high).sum(dim=(1, 2, 3)) / total.clamp(min=1e-12)
    return share


def class_distance(colours: Tensor, one: Tensor, others: Tensor) -> Tensor:
    """Return the distance from one label's colour to the nearest other label's colour, (rows,).

    colours: (rows, count, 3), nan where a label is not seen. one: the label of each row, (rows,).
    others: which labels to compare with, (rows, count), bool. A row with no label to compare gets
    nan.
    """
    mine = colours[torch.arange(len(colours)), one]  # (rows, 3)
    distance = (colours - mine[:, None]).square().sum(dim=-1).sqrt()  # (rows, count)
    distance = distance.masked_fill(~others | distance.isnan(), torch.inf)
    nearest = distance.min(dim=-1).values
    return torch.where(nearest.isinf(), torch.nan, nearest)
