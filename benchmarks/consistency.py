"""Measure how steady edited clips are for each setting, with 95 % intervals.

It edits clips of the small world with the demo model and compares them with their exact motion.
Finished settings are kept in the output folder, so an interrupted run can continue.

    python tools/module.py benchmarks.consistency --output build/consistency
"""

import argparse
import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..demo import world
from ..demo.edit import PLAIN, STEADY, Sampling, Setting, edit
from ..demo.judge import Truth, diversity, judge
from ..demo.looks import MOODS, describe
from ..demo.shipped import load_pipeline
from ..hosts.frame_noise import DIFFERENT, SAME

# It edits clips, (clips, frames, 3, h, w), with a prompt and a seed for each of them.
Painter = Callable[[Tensor, list[str], list[int]], Tensor]

DIFFUSERS = "diffusers"
PER_STEP = "ComfyUI, all frames per step"
PER_FRAME = "ComfyUI, frame by frame"


@dataclass(frozen=True)
class Row:
    """A row of the tables: a setting, with the host and the order that it is run in."""

    setting: Setting
    order: str = DIFFUSERS

    @property
    def name(self) -> str:
        """The name of the row in the tables."""
        return self.setting.name + ("" if self.order == DIFFUSERS else f" ({self.order})")


BASELINE = Row(PLAIN)
ROWS = [
    BASELINE,
    Row(Setting(frame_noise=SAME)),
    *(
        Row(Setting(references, layers=layers, frame_noise=noise))
        for noise in (DIFFERENT, SAME)
        for references, layers in (
            ("first + previous", "up"),
            ("first + previous", "all"),
            ("first", "all"),
            ("previous", "all"),
        )
    ),
    *(
        Row(Setting(references, include_self=True, layers="all", frame_noise=SAME))
        for references in ("first + previous", "first", "previous")
    ),
    Row(Setting("first", layers="up", frame_noise=SAME)),
    Row(Setting("first", layers="mid + up", frame_noise=SAME)),
    Row(Setting("first", layers="all", frame_noise=SAME, end_percent=0.5)),
    Row(Setting("first", layers="all", frame_noise=SAME, start_percent=0.5)),
    Row(STEADY, PER_STEP),
    Row(STEADY, PER_FRAME),
]
RESAMPLES = 2000  # how often the clips are resampled for intervals
MEASURES = {
    "near": "warp error x 1000, 1 apart",
    "far": "far apart",
    "spread": "colour spread",
    "newcomer_near": "newcomers' pixels, 1 apart",
    "layout": "layout accuracy",
    "detail": "fine detail",
    "diversity": "diversity over seeds",
    "newcomer_contrast": "newcomers' contrast",
}
STEADINESS = ("near", "far", "spread", "newcomer_near")
THOUSANDTHS = ("near", "far", "newcomer_near")
# Steadiness must not cost these. The numbers are the allowed range, as a share of plain's value.
GUARDS = {
    "layout": (0.99, math.inf),
    "detail": (0.95, 1.05),
    "diversity": (0.95, math.inf),
    "newcomer_contrast": (0.90, math.inf),
}


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    clips = random_clips(options.clips, options.frames)
    truths = [Truth.of(clip, options.far) for clip in tqdm(clips, desc="truth")]
    rows = {}
    for row in [row for row in ROWS if not options.only or row.name in options.only]:
        edits = edited(options, clips, row)  # (seeds, clips, frames, 3, SIZE, SIZE)
        rows[row.name] = measure(edits, truths)
    write_csv(options.output / "consistency.csv", rows)
    tables = f"{steadiness(rows, BASELINE.name)}\n{guards(rows, BASELINE.name)}"
    (options.output / "consistency.md").write_text(tables)
    print(tables)
    plot(options.output / "consistency.png", rows)


def parse_options() -> argparse.Namespace:
    parser = options_parser(__doc__, output="build/consistency", clips=50, frames=8, seeds=3)
    parser.add_argument("--far", type=int, default=6)
    parser.add_argument("--only", nargs="*", help="names of rows")
    return parser.parse_args()


def options_parser(
    doc: str, output: str, clips: int, frames: int, seeds: int
) -> argparse.ArgumentParser:
    """Return a parser of the options of `edited`, with a benchmark's own defaults."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(output))
    parser.add_argument("--clips", type=int, default=clips)
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--together", type=int, default=10, help="clips in one batch")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--strength", type=float, default=Sampling.strength)
    return parser


def random_clips(count: int, frames: int) -> list[world.Clip]:
    """Return random clips that are not among the training pictures."""
    generator = torch.Generator().manual_seed(20_000_000)
    return [world.random_clip(frames, generator) for _ in range(count)]


def edited(options: argparse.Namespace, clips: list[world.Clip], row: Row) -> Tensor:
    """Return the edits of all clips with all seeds, (seeds, clips, frames, 3, SIZE, SIZE)."""
    return kept_edits(options, clips, row.name, lambda sampling: painter(options, row, sampling))


def kept_edits(
    options: argparse.Namespace,
    clips: list[world.Clip],
    name: str,
    new_painter: Callable[[Sampling], Painter],
) -> Tensor:
    """Return the edits of a row, from its file if there is one. name: the row's.

    The edits have the shape that `edited` says.
    """
    file = options.output / f"{name.replace(' ', '_')}.pt"
    if not file.exists():
        moods = list(MOODS)
        prompts = [describe(moods[number % len(moods)], {}) for number in range(len(clips))]
        sources = torch.stack([world.render(clip, world.PLAIN) for clip in clips])
        paint = new_painter(Sampling(options.steps, options.strength, options.guidance))
        edits = []
        for seed in range(options.seeds):
            seeds = [1000 * seed + number for number in range(len(clips))]
            edits.append((paint(sources, prompts, seeds) * 255).round().byte())
        torch.save(torch.stack(edits), file)
    return torch.load(file).float() / 255


def painter(options: argparse.Namespace, row: Row, sampling: Sampling) -> Painter:
    """Return a function that edits clips as a row does."""
    if row.order == DIFFUSERS:
        pipeline = load_pipeline()

        def paint(sources: Tensor, prompts: list[str], seeds: list[int]) -> Tensor:
            starts = range(0, len(sources), options.together)
            parts = [slice(start, start + options.together) for start in starts]
            return torch.cat(
                [
                    edit(pipeline, sources[p], prompts[p], seeds[p], row.setting, sampling)
                    for p in parts
                ]
            )

        return paint

    return comfyui_painter("U-Net", row.setting, sampling, row.name, row.order == PER_FRAME)


def comfyui_painter(
    architecture: str, setting: Setting, sampling: Sampling, name: str, frame_by_frame: bool = False
) -> Painter:
    """Return a function that edits clips in ComfyUI. name: what its progress bar shows."""
    from comfyui_location import need_comfyui

    need_comfyui(cpu=not torch.cuda.is_available())
    from ..demo.in_comfyui import edit_in_comfyui, load_in_comfyui

    demo = load_in_comfyui(architecture)

    def paint(sources: Tensor, prompts: list[str], seeds: list[int]) -> Tensor:
        clips = tqdm(list(zip(sources, prompts, seeds)), desc=name, unit="clip")
        return torch.stack(
            [edit_in_comfyui(demo, *clip, setting, sampling, frame_by_frame) for clip in clips]
        )

    return paint


def measure(edits: Tensor, truths: list[Truth]) -> dict[str, np.ndarray]:
    """Return each measure as its mean over seeds for each clip, (clips,)."""
    rows = []
    for number, truth in enumerate(tqdm(truths, desc="judge")):
        judged = [judge(frames, truth) for frames in edits[:, number]]
        row = {name: float(np.mean([values[name] for values in judged])) for name in judged[0]}
        row["diversity"] = diversity(edits[:, number], truth)
        rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in MEASURES}


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval over clips."""

    mean: float
    low: float
    high: float


def interval(values: np.ndarray, over: np.ndarray | None = None) -> Interval:
    """Return the mean of a measure, or the ratio of two means, with an interval.

    The interval comes from a percentile bootstrap over clips.
    """
    kept = ~np.isnan(values) if over is None else ~np.isnan(values) & ~np.isnan(over)
    values = values[kept]
    over = np.ones_like(values) if over is None else over[kept]
    if not len(values):
        return Interval(*[float("nan")] * 3)
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    means = values[drawn].mean(axis=1) / over[drawn].mean(axis=1)
    return Interval(values.mean() / over.mean(), *np.percentile(means, (2.5, 97.5)))


def write_csv(file: Path, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Write one line per setting and measure."""
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(["setting", "measure", "mean", "low", "high", "clips"])
        for setting, measures in rows.items():
            for name, values in measures.items():
                found = interval(values)
                count = int((~np.isnan(values)).sum())
                writer.writerow([setting, name, found.mean, found.low, found.high, count])


def steadiness(rows: dict[str, dict[str, np.ndarray]], baseline: str) -> str:
    """Return a table of the errors and of how many times smaller they are than the baseline's."""
    heads = ["setting", *(MEASURES[name] for name in STEADINESS), "gain, 1 apart", "far apart"]
    lines = []
    for setting, measures in rows.items():
        cells = [
            table_cell(interval(measures[name]), 1000 if name in THOUSANDTHS else 1)
            for name in STEADINESS
        ]
        cells += [
            table_cell(interval(rows[baseline][name], measures[name])) if baseline in rows else ""
            for name in ("near", "far")
        ]
        lines.append([setting, *cells])
    return table(heads, lines)


def guards(rows: dict[str, dict[str, np.ndarray]], baseline: str) -> str:
    """Return a table of the guards in percent of the baseline's, bold in the allowed range."""
    if baseline not in rows:
        return ""
    heads = ["percent of plain's", *(MEASURES[name] for name in GUARDS)]
    lines = []
    for setting, measures in rows.items():
        cells = []
        for name, (least, most) in GUARDS.items():
            left = interval(measures[name], rows[baseline][name])
            mark = "**" if least <= left.mean <= most else ""
            cells.append(f"{mark}{table_cell(left, 100)}{mark}")
        lines.append([setting, *cells])
    return table(heads, lines)


def table_cell(found: Interval, scale: float = 1) -> str:
    """Write a mean and its interval as in the tables."""
    mean, low, high = (f"{scale * value:#.3g}" for value in (found.mean, found.low, found.high))
    return f"{mean.rstrip('.')} ({low.rstrip('.')} to {high.rstrip('.')})"


def table(heads: list[str], lines: list[list[str]]) -> str:
    """Write a table in Markdown."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def plot(file: Path, rows: dict[str, dict[str, np.ndarray]]) -> None:
    """Draw the warp errors of all settings, near and far, with their intervals."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.45 * len(rows) + 1.5), layout="constrained")
    for name, offset, colour in (("near", -0.15, "tab:blue"), ("far", 0.15, "tab:orange")):
        found = [interval(measures[name]) for measures in rows.values()]
        middle = np.array([1000 * value.mean for value in found])
        low = middle - [1000 * value.low for value in found]
        high = [1000 * value.high for value in found] - middle
        heights = np.arange(len(rows)) + offset
        axes.errorbar(
            middle, heights, xerr=(low, high), fmt="o", color=colour, label=MEASURES[name]
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("squared RGB x 1000")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
