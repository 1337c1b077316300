"""How steady edited clips are, setting by setting, with 95 % intervals.

Edits clips of the small world with the demo model and compares them with its exact motion.
Finished settings are kept in the output folder, so that an interrupted run continues.

    python tools/module.py benchmarks.consistency --output build/consistency
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..demo import world
from ..demo.edit import Sampling, Setting, edit
from ..demo.judge import Truth, diversity, judge
from ..demo.looks import MOODS, describe
from ..demo.shipped import load_pipeline
from ..hosts.frame_noise import DIFFERENT, SAME

BASELINE = Setting(frame_noise=DIFFERENT)
SETTINGS = [
    BASELINE,
    Setting(frame_noise=SAME),
    *(
        Setting(references, include_self, layers, noise)
        for noise in (DIFFERENT, SAME)
        for references, include_self, layers in (
            ("first + previous", False, "up"),
            ("first + previous", False, "all"),
            ("first + previous", True, "all"),
            ("first", False, "up"),
            ("first", False, "all"),
            ("first", True, "all"),
            ("previous", False, "all"),
            ("previous", True, "all"),
        )
    ),
    Setting("first", layers="mid + up", frame_noise=SAME),
    Setting("first", frame_noise=SAME, end_percent=0.5),
    Setting("first", frame_noise=SAME, start_percent=0.5),
]
RESAMPLES = 2000  # of the clips, for intervals
MEASURES = {
    "near": "warp error, 1 apart (x 1000)",
    "far": "warp error, far apart (x 1000)",
    "spread": "colour spread",
    "layout": "layout accuracy",
    "detail": "fine detail",
    "diversity": "diversity over seeds",
    "newcomer_near": "newcomers: 1 apart (x 1000)",
    "newcomer_far": "newcomers: far apart (x 1000)",
    "newcomer_contrast": "newcomers: contrast",
}
THOUSANDTHS = ("near", "far", "newcomer_near", "newcomer_far")


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    clips = random_clips(options.clips, options.frames)
    truths = [Truth.of(clip, options.far) for clip in tqdm(clips, desc="truth")]
    chosen = [setting for setting in SETTINGS if not options.only or setting.name in options.only]
    rows = {}
    for setting in chosen:
        edits = edited(options, clips, setting)  # (seeds, clips, frames, 3, SIZE, SIZE)
        rows[setting.name] = measure(edits, truths)
    write_csv(options.output / "consistency.csv", rows)
    table = markdown(rows, BASELINE.name)
    (options.output / "consistency.md").write_text(table)
    print(table)
    plot(options.output / "consistency.png", rows)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/consistency"))
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--far", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--together", type=int, default=10, help="clips in one batch")
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument("--steps", type=int, default=Sampling.steps)
    parser.add_argument("--guidance", type=float, default=Sampling.guidance)
    parser.add_argument("--strength", type=float, default=Sampling.strength)
    return parser.parse_args()


def random_clips(count: int, frames: int) -> list[world.Clip]:
    """Clips whose objects no training picture showed in these places."""
    generator = torch.Generator().manual_seed(20_000_000)
    return [world.random_clip(frames, generator) for _ in range(count)]


def edited(options: argparse.Namespace, clips: list[world.Clip], setting: Setting) -> Tensor:
    """Edits of all clips with all seeds: (seeds, clips, frames, 3, SIZE, SIZE)."""
    file = options.output / f"{setting.name.replace(' ', '_')}.pt"
    if not file.exists():
        pipeline = load_pipeline()
        sampling = Sampling(options.steps, options.strength, options.guidance)
        moods = list(MOODS)
        prompts = [describe(moods[number % len(moods)], {}) for number in range(len(clips))]
        sources = torch.stack([world.render(clip, world.PLAIN) for clip in clips])
        edits = []
        for seed in range(options.seeds):
            for start in range(0, len(clips), options.together):
                part = slice(start, start + options.together)
                seeds = [1000 * seed + number for number in range(len(clips))[part]]
                done = edit(pipeline, sources[part], prompts[part], seeds, setting, sampling)
                edits.append((done * 255).round().byte())
        whole = torch.cat(edits).unflatten(0, (options.seeds, len(clips)))
        torch.save(whole, file)
    return torch.load(file).float() / 255


def measure(edits: Tensor, truths: list[Truth]) -> dict[str, np.ndarray]:
    """Each measure of each clip, the mean over seeds: (clips,)."""
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
    """The mean of a measure, or the ratio of two means, with a percentile bootstrap over clips."""
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


def markdown(rows: dict[str, dict[str, np.ndarray]], baseline: str) -> str:
    """A table of all settings; below the error, how many times smaller it is than the baseline."""
    lines = [
        "| setting | " + " | ".join(MEASURES.values()) + " | gain near | gain far |",
        "|---" * (len(MEASURES) + 3) + "|",
    ]
    for setting, measures in rows.items():
        cells = []
        for name in MEASURES:
            found, scale = interval(measures[name]), 1000 if name in THOUSANDTHS else 1
            mean, low, high = (f"{scale * v:.3g}" for v in (found.mean, found.low, found.high))
            cells.append(f"{mean} ({low} to {high})")
        for name in ("near", "far"):
            if baseline in rows:
                gain = interval(rows[baseline][name], measures[name])
                cells.append(f"{gain.mean:.1f} ({gain.low:.1f} to {gain.high:.1f})")
            else:
                cells.append("")
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


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
