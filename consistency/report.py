"""A report on an edited video: warp errors by lag, a plot of them, and a map of the errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..motion.optical_flow import follow_motion
from .measures import frames_not_finite, warp_error, warp_error_map

PLOT_SIZE = 512, 320  # width and height in pixels
MARGIN = 56, 32  # around the plot, in pixels
LINE, AXIS, PAPER = (217, 95, 2), (90, 90, 90), (255, 255, 255)
HOTTEST = 0.1  # the difference in RGB that gets the hottest colour
FEW = 0.01  # if a smaller share of pixels is compared, the number is not reliable


@dataclass(frozen=True)
class Report:
    """How steady an edited video is.

    errors: the warp error by lag (squared RGB), nan where no pixel could be compared.
    compared: the share of pixels that could be compared, by lag. heat: the root of the squared
    error between each frame and the next, RGB, (frames, height, width); 0 for the last frame.
    notes: sentences that the caller adds, to be read with the numbers.
    """

    errors: dict[int, float]
    compared: dict[int, float]
    heat: Tensor
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = ["frames apart   warp error x 1000   pixels compared"]
        for lag, error in self.errors.items():
            lines.append(f"{lag:>12}{1000 * error:>20.3f}{self.compared[lag]:>18.0%}")
        remarks = [*self.notes, *self.doubts()]
        return "\n".join([*lines, *([""] if remarks else []), *remarks])

    def doubts(self) -> list[str]:
        """Say which numbers are missing, and which come from hardly any pixels."""
        none = [lag for lag, share in self.compared.items() if share == 0]
        few = [lag for lag, share in self.compared.items() if 0 < share < FEW]
        said = []
        if none:
            said.append(
                f"Between frames {_listed(none)} apart nothing could be compared. nan is no score, "
                "neither good nor bad. Points that move too far, get hidden, lie at an edge or "
                "change their colour in the source are left out, and no other points are left."
            )
        if few:
            said.append(
                f"Between frames {_listed(few)} apart fewer than 1 % of the pixels could be "
                "compared. Do not rely on these numbers."
            )
        return said


def report(
    edited: Tensor,
    source: Tensor,
    lags: Sequence[int],
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Measure an edited video against the motion of its source.

    edited, source: (frames, 3, height, width), RGB in 0..1, of the same shape. lags: how many
    frames apart frames are compared. They must be smaller than the number of frames, and include 1
    for the heat. progress: called once per pair of neighbouring frames. Raises ValueError for too
    few frames, or if a frame has nan or infinite values, which could not be compared and would not
    be counted.
    """
    _check(edited, source, lags)
    errors: dict[int, list[Tensor]] = {lag: [] for lag in lags}
    compared: dict[int, list[Tensor]] = {lag: [] for lag in lags}
    heat = torch.zeros_like(edited[:, 0])  # (frames, h, w)
    for motion in follow_motion(source, max(lags), progress):
        for lag in lags:
            pair = motion.where(motion.later - motion.earlier == lag)
            if len(pair) == 0:  # there are not yet enough frames before this one
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


def _check(edited: Tensor, source: Tensor, lags: Sequence[int]) -> None:
    """Raise ValueError unless two videos can be compared over these numbers of frames."""
    if len(edited) <= max(lags):
        raise ValueError(f"of {len(edited)} frames, no two are {max(lags)} frames apart")
    for name, frames in (("edited", edited), ("source", source)):
        if broken := frames_not_finite(frames):
            raise ValueError(f"frame {broken[0]} of {name} has values that are nan or infinite")


def _listed(lags: Sequence[int]) -> str:
    """Write numbers as in a sentence: 1, 2 and 4."""
    *others, last = map(str, lags)
    return f"{', '.join(others)} and {last}" if others else last


def heat_map(edited: Tensor, heat: Tensor) -> Tensor:
    """Return the edited frames in grey, coloured hot where they differ from the next frame.

    The result has the shape of `edited`.
    """
    grey = edited.mean(dim=1, keepdim=True).expand_as(edited) * 0.5
    hot = (heat / HOTTEST).clamp(0, 1)[:, None]  # (frames, 1, h, w)
    glow = torch.cat((hot.sqrt(), hot * hot, torch.zeros_like(hot)), dim=1)  # dark red to yellow
    return torch.maximum(grey * (1 - hot), glow)


def plot(errors: dict[int, float]) -> Tensor:
    """Draw warp error over lag, without points for nan: (3, height, width), RGB in 0..1."""
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
    if not points:
        draw.text((left + 16, top + 16), "nothing could be compared", fill=AXIS)
    if len(points) > 1:
        draw.line(points, fill=LINE, width=2)
    for x, y in points:
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=LINE)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
