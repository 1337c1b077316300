"""A report on an edited video: warp errors by lag, a plot of them, and where the errors are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .measures import warp_error, warp_error_map
from .optical_flow import follow_motion

PLOT_SIZE = 512, 320  # width and height in pixels
MARGIN = 56, 32  # of the plot, in pixels
LINE, AXIS, PAPER = (217, 95, 2), (90, 90, 90), (255, 255, 255)
HOTTEST = 0.1  # difference in RGB that is drawn as the hottest


@dataclass(frozen=True)
class Report:
    """How steady an edited video is.

    errors: warp error by lag (squared RGB), nan where no pixel could be compared.
    compared: share of pixels that could be compared, by lag. heat: root of the squared error
    between each frame and the next, RGB, (frames, height, width); the last frame has none.
    """

    errors: dict[int, float]
    compared: dict[int, float]
    heat: Tensor

    def __str__(self) -> str:
        lines = ["frames apart   warp error x 1000   pixels compared"]
        for lag, error in self.errors.items():
            lines.append(f"{lag:>12}{1000 * error:>20.3f}{self.compared[lag]:>18.0%}")
        return "\n".join(lines)


def report(
    edited: Tensor,
    source: Tensor,
    lags: Sequence[int],
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Measure an edited video against the motion of its source.

    edited, source: (frames, 3, height, width), RGB in 0..1, of one shape. lags: frames apart, 1
    among them for the heat, all smaller than the number of frames. progress: called once per
    pair of neighbouring frames.
    """
    errors: dict[int, list[Tensor]] = {lag: [] for lag in lags}
    compared: dict[int, list[Tensor]] = {lag: [] for lag in lags}
    heat = torch.zeros_like(edited[:, 0])  # (frames, h, w)
    for motion in follow_motion(source, max(lags), progress):
        for lag in lags:
            pair = motion.where(motion.later - motion.earlier == lag)
            if len(pair) == 0:  # not so many frames have come yet
                continue
            errors[lag].append(warp_error(edited, pair))
            compared[lag].append(pair.valid.float().mean(dim=(1, 2)))
            if lag == 1:
                heat[pair.earlier] = warp_error_map(edited, pair).sqrt()
    return Report(
        {lag: float(torch.cat(found).nanmean()) for lag, found in errors.items()},
        {lag: float(torch.cat(shares).mean()) for lag, shares in compared.items()},
        heat,
    )


def heat_map(edited: Tensor, heat: Tensor) -> Tensor:
    """The edited frames in grey, hot where they differ from the next frame: as `edited`."""
    grey = edited.mean(dim=1, keepdim=True).expand_as(edited) * 0.5
    hot = (heat / HOTTEST).clamp(0, 1)[:, None]  # (frames, 1, h, w)
    glow = torch.cat((hot.sqrt(), hot * hot, torch.zeros_like(hot)), dim=1)  # dark red to yellow
    return torch.maximum(grey * (1 - hot), glow)


def plot(errors: dict[int, float]) -> Tensor:
    """Draw warp error over lag: (3, height, width), RGB in 0..1."""
    image = Image.new("RGB", PLOT_SIZE, PAPER)
    draw = ImageDraw.Draw(image)
    (width, height), (left, top) = PLOT_SIZE, MARGIN
    right, bottom = width - left // 2, height - top
    finite = {lag: 1000 * error for lag, error in errors.items() if np.isfinite(error)}
    highest = max([*finite.values(), 1e-6])
    longest = max(errors)
    draw.text((left, 8), "warp error x 1000 over frames apart (lower is steadier)", fill=AXIS)
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=AXIS)
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        draw.text((6, y - 6), f"{share * highest:.3g}", fill=AXIS)
    points = []
    for lag in errors:
        x = left + (right - left) * lag / longest
        draw.text((x - 6, bottom + 8), str(lag), fill=AXIS)
        if lag in finite:
            points.append((x, bottom - (bottom - top) * finite[lag] / highest))
    if len(points) > 1:
        draw.line(points, fill=LINE, width=2)
    for x, y in points:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=LINE)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
