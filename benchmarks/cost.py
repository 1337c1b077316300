"""Measure how the cost of cross-frame attention grows with frames, steps, size and references.

    python tools/module.py benchmarks.cost --output docs/cost

It samples clips of many sizes with the SD1.5 proxy of `benchmarks.speed`, with and without
cross-frame attention in batches of the same size. It writes the ratios of times and of FLOP beside
those of the formula, as a table (CSV) and a plot (PNG).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from .speed import SUBJECTS, Clip, Row, load, measure, sampling, start_comfyui, stock, write_csv

TOGETHER = 4  # number of frames in a batch, with and without cross-frame attention


@dataclass(frozen=True)
class Point:
    """One clip to measure: what is varied, its value in words, and the sizes.

    side: the side of a latent. chosen: inputs of the CrossFrameAttention node.
    """

    varied: str
    value: str
    frames: int = 8
    steps: int = 1
    side: int = 32
    chosen: dict = field(default_factory=dict)


REFERENCES = {
    "first": {"references": "first"},
    "previous": {"references": "previous"},
    "first + previous": {},
    "first + previous + self": {"include_self": True},
    "first, all layers": {"references": "first", "layers": "all"},
    "first + previous, all layers": {"layers": "all"},
}
POINTS = [
    *(Point("frames", str(n), frames=n) for n in (2, 4, 8, 16, 32, 64)),
    *(Point("steps", str(n), steps=n) for n in (1, 2, 4, 8)),
    *(Point("latent side", str(n), side=n, frames=4) for n in (16, 24, 32, 48, 64)),
    *(Point("references", name, chosen=chosen) for name, chosen in REFERENCES.items()),
]


def main() -> None:
    options = parse_options()
    start_comfyui("pytorch", options.threads)
    subject = SUBJECTS["sd15"]
    with torch.inference_mode():
        loaded = load(subject)
        table = [measured(point, loaded, options.rounds) for point in tqdm(POINTS, unit="clip")]
    write_csv(options.output.with_suffix(".csv"), table)
    plot(options.output.with_suffix(".png"), table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="path without an ending")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    return parser.parse_args()


def measured(point: Point, loaded: tuple, rounds: int) -> dict:
    """Measure one point; return ratios to plain img2img in batches of the same size."""
    clip = Clip.random(loaded, point.frames, point.steps, point.side, point.chosen)
    plain = Row("plain", lambda: clip.parts(TOGETHER))
    ours = Row("ours", sampling(clip, stock, clip.patched(TOGETHER)))
    measure([plain, ours], clip.unet, rounds)
    return {
        "varied": point.varied,
        "value": point.value,
        "time": round(min(ours.wall) / min(plain.wall), 3),
        "FLOP": round(ours.flop / plain.flop, 4),
        "formula": round(1 + clip.floor() / plain.flop, 4),
        "peak MiB": round(ours.peak / 2**20, 1),
        "plain peak MiB": round(plain.peak / 2**20, 1),
    }


def plot(path: Path, table: list[dict]) -> None:
    """Draw one panel for each thing that is varied."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels = dict(_panels(table))
    figure, axes = plt.subplots(1, len(panels), figsize=(14, 4), sharey=True, layout="constrained")
    for axis, (varied, rows) in zip(axes, panels.items()):
        values = [row["value"].replace(", ", ",\n").replace(" + self", "\n+ self") for row in rows]
        axis.plot(values, [row["formula"] for row in rows], "k--", label="FLOP, formula")
        axis.plot(values, [row["FLOP"] for row in rows], "o", label="FLOP, counted")
        axis.plot(values, [row["time"] for row in rows], "s-", label="time")
        axis.set_xlabel(varied)
        axis.grid(alpha=0.3)
        if varied == "references":
            axis.tick_params("x", rotation=60)
    axes[0].set_ylabel("times plain img2img, same batches")
    axes[0].legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _panels(table: list[dict]) -> Iterator[tuple[str, list[dict]]]:
    for varied in dict.fromkeys(row["varied"] for row in table):
        yield varied, [row for row in table if row["varied"] == varied]


if __name__ == "__main__":
    main()
