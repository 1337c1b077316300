"""Measure how well the demo's models follow prompts and hints, with 95 % intervals, in ComfyUI.

It paints single frames that were not trained on: one prompt per mood, and prompts that name the
colours of two classes. The sampler settings are those of the first example.

    python tools/module.py benchmarks.prompts
"""

import argparse
from random import Random

import numpy as np
import torch
from torch import Tensor

from .. import consistency
from ..demo import follows, world
from ..demo.edit import PLAIN, Sampling
from ..demo.judge import PARTS
from ..demo.looks import COLOURS, MOODS, NAMES, describe
from .consistency import Interval, comfyui_painter, table, table_cell

ARCHITECTURES = ("U-Net", "DiT")
NAMED = 2  # classes whose colours a prompt names
HEADS = ("model", "layout accuracy", "classes in the mood", "named colours")


def main() -> None:
    options = parse_options()
    clip = world.random_stills(options.pictures, torch.Generator().manual_seed(20_000_002))
    _, part = world.labels(clip)
    lines = []
    for architecture in ARCHITECTURES:
        found = measured(architecture, world.render(clip, world.PLAIN), part, options)
        cells = [table_cell(interval(values), 100) for values in found]
        lines.append([architecture, *cells])
    print(table([*HEADS], lines))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--steps", type=int, default=Sampling.steps)
    parser.add_argument("--guidance", type=float, default=Sampling.guidance)
    return parser.parse_args()


def measured(
    architecture: str, sources: Tensor, part: Tensor, options: argparse.Namespace
) -> tuple[list, list, list]:
    """Return layout accuracies, hits of moods and hits of colours, each as a list per picture."""
    sampling = Sampling(options.steps, guidance=options.guidance)
    paint = comfyui_painter(architecture, PLAIN, sampling, architecture)
    random, seeds = Random(0), list(range(len(sources)))
    moods = [list(MOODS)[number % len(MOODS)] for number in seeds]
    named = [some_colours(random) for _ in seeds]
    of_mood = paint(sources[:, None], [describe(mood, {}) for mood in moods], seeds)[:, 0]
    of_names = paint(sources[:, None], [describe(None, names) for names in named], seeds)[:, 0]
    layout = consistency.layout_accuracy(
        torch.cat((of_mood, of_names)), part.repeat(2, 1, 1), PARTS
    )
    rows = [slice(number, number + 1) for number in seeds]
    return (
        [[value] for value in layout[~layout.isnan()].tolist()],
        [follows.in_mood(of_mood[r], part[r], mood) for r, mood in zip(rows, moods)],
        [follows.named_colours(of_names[r], part[r], names) for r, names in zip(rows, named)],
    )


def some_colours(random: Random) -> dict[str, str]:
    """Return the colours of some classes, in the order in which prompts name them."""
    chosen = random.sample(NAMES, NAMED)
    return {name: random.choice(list(COLOURS)) for name in NAMES if name in chosen}


def interval(values: list[list[float]]) -> Interval:
    """Return the mean of all values with an interval over pictures, by a percentile bootstrap."""
    sums = np.array([(sum(found), len(found)) for found in values if found], dtype=float)
    drawn = np.random.default_rng(0).integers(len(sums), size=(2000, len(sums)))
    resampled = sums[drawn].sum(axis=1)
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], (2.5, 97.5))
    return Interval(sums[:, 0].sum() / sums[:, 1].sum(), low, high)


if __name__ == "__main__":
    main()
