"""Measure how the error grows with the distance in time, with 95 % intervals.

It edits clips of the small world with 64 frames, as `benchmarks.consistency` does, and compares
frames that are from 1 to 48 frames apart. If a setting drifts, its error keeps growing with the
distance. If it holds on to the first frame, the error does not. Finished settings are kept in the
output folder.

    python tools/module.py benchmarks.drift --output build/drift
"""

import argparse
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from tqdm import tqdm

from .. import consistency
from ..demo import world
from ..demo.edit import PLAIN, STEADY, Setting
from ..hosts.frame_noise import SAME
from ..motion import Correspondence
from .consistency import Row, edited, interval, options_parser, random_clips, table, table_cell

DISTANCES = (1, 2, 4, 6, 12, 24, 48)
SETTLED = 12  # beyond this distance even plain img2img with one noise hardly gets worse
ROWS = [
    Row(PLAIN),
    Row(Setting(frame_noise=SAME)),
    Row(Setting("first + previous", layers="up", frame_noise=SAME)),
    Row(STEADY),
    Row(Setting("previous", frame_noise=SAME)),
]


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    clips = random_clips(options.clips, options.frames)
    rows = {row.name: edited(options, clips, row) for row in ROWS}
    errors = {name: np.empty((len(clips), len(DISTANCES))) for name in rows}
    for number, clip in enumerate(tqdm(clips, desc="judge", unit="clip")):
        for column, apart in enumerate(DISTANCES):
            motion = world.correspondence(clip, apart)
            for name, edits in rows.items():
                errors[name][number, column] = mean_error(edits[:, number], motion)
    report = growth(errors, DISTANCES)
    (options.output / "drift.md").write_text(report)
    print(report)


def parse_options() -> argparse.Namespace:
    parser = options_parser(__doc__, output="build/drift", clips=12, frames=64, seeds=2)
    options = parser.parse_args()
    if options.frames <= max(DISTANCES):
        parser.error(f"--frames must be above {max(DISTANCES)}")
    return options


def mean_error(edits: Tensor, motion: Correspondence) -> float:
    """Return the warp error of one clip at one distance, as the mean over its seeds.

    edits: (seeds, frames, 3, h, w).
    """
    return float(
        np.nanmean([float(consistency.warp_error(frames, motion).nanmean()) for frames in edits])
    )


def growth(errors: dict[str, np.ndarray], distances: Sequence[int]) -> str:
    """Return a table of the errors by distance and of how much they grow.

    errors: (clips, distances) by row. Growth is the error at the largest distance divided by that
    at the smallest distance, and divided by that at SETTLED.
    """
    settled = distances.index(SETTLED)
    heads = [
        "warp error x 1000, frames apart",
        *map(str, distances),
        f"{distances[-1]} over {SETTLED}",
        f"{distances[-1]} over {distances[0]}",
    ]
    lines = [
        [
            name,
            *(table_cell(interval(found[:, column]), 1000) for column in range(len(distances))),
            table_cell(interval(found[:, -1], found[:, settled])),
            table_cell(interval(found[:, -1], found[:, 0])),
        ]
        for name, found in errors.items()
    ]
    return table(heads, lines)


if __name__ == "__main__":
    main()
