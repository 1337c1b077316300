"""Measure which settings suit the demo's transformer (DiT), with 95 % intervals, in ComfyUI.

It edits clips as `benchmarks.consistency` does. Two rows of the U-Net stand beside those of the
DiT. Some rows give the attention the frame's own text once, instead of once per reference as the
pack does. Finished settings are kept in the output folder, so an interrupted run can continue.

    python tools/module.py benchmarks.architectures --output build/architectures
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..attention import joint
from ..demo.edit import PLAIN, Sampling, Setting
from ..demo.judge import Truth
from . import consistency
from .consistency import (
    Painter,
    comfyui_painter,
    interval,
    kept_edits,
    measure,
    table,
    table_cell,
)

U_NET, DIT = "U-Net", "DiT"


@dataclass(frozen=True)
class Case:
    """A row of the tables. text_once: whether the own text is there once for all references."""

    setting: Setting
    architecture: str = DIT
    text_once: bool = False

    @property
    def name(self) -> str:
        """The name of the row in the tables."""
        name = self.setting.name.removesuffix(", same noise")
        return f"{self.architecture}: {name}{', text once' if self.text_once else ''}"


BOTH, FIRST = "first + previous", "first"
BASELINE = Case(PLAIN)
CASES = [
    BASELINE,
    Case(Setting()),
    *(
        Case(Setting(references, include_self=own, layers=layers))
        for references in (BOTH, FIRST)
        for own in (False, True)
        for layers in ("up", "mid + up", "all")
    ),
    *(
        Case(Setting(BOTH, include_self=own, start_percent=start, end_percent=end))
        for own, start, end in (
            (False, 0.0, 0.5),
            (False, 0.5, 1.0),
            (True, 0.0, 0.5),
            (True, 0.0, 0.7),
            (True, 0.5, 1.0),
        )
    ),
    Case(Setting(BOTH), text_once=True),
    Case(Setting(BOTH, include_self=True), text_once=True),
    *(Case(setting, U_NET) for setting in (PLAIN, Setting(BOTH, layers="up"))),
]

# Pairs of settings of the DiT whose errors are compared clip by clip: (one, the other).
DEFAULT, WITH_SELF = Case(Setting(BOTH, layers="up")), Case(Setting(BOTH, include_self=True))
EVERYWHERE = Case(Setting(BOTH))
PAIRS = [
    (Case(Setting(BOTH, layers="mid + up")), DEFAULT),
    (EVERYWHERE, DEFAULT),
    (Case(Setting(FIRST)), EVERYWHERE),
    (Case(Setting(BOTH, include_self=True, layers="up")), DEFAULT),
    (WITH_SELF, EVERYWHERE),
    (Case(Setting(BOTH, end_percent=0.5)), EVERYWHERE),
    (Case(Setting(BOTH, start_percent=0.5)), EVERYWHERE),
    (Case(Setting(BOTH, include_self=True, end_percent=0.7)), WITH_SELF),
    (Case(Setting(BOTH), text_once=True), EVERYWHERE),
    (Case(Setting(BOTH, include_self=True), text_once=True), WITH_SELF),
]


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    clips = consistency.random_clips(options.clips, options.frames)
    truths = [Truth.of(clip, options.far) for clip in tqdm(clips, desc="truth")]
    rows = {}
    for case in [case for case in CASES if not options.only or case.name in options.only]:
        edits = kept_edits(options, clips, case.name, partial(painter, case))
        rows[case.name] = measure(edits, truths)
    consistency.write_csv(options.output / "architectures.csv", rows)
    text = "\n".join(tables(rows))
    (options.output / "architectures.md").write_text(text)
    print(text)


def parse_options() -> argparse.Namespace:
    parser = consistency.options_parser(
        __doc__, output="build/architectures", clips=6, frames=8, seeds=2
    )
    parser.add_argument("--far", type=int, default=6)
    parser.add_argument("--only", nargs="*", help="names of rows")
    return parser.parse_args()


def tables(rows: dict[str, dict[str, np.ndarray]]) -> Iterator[str]:
    """Yield the tables: per architecture the errors and what they cost, then pairs of settings."""
    for architecture in (DIT, U_NET):
        own = {name: row for name, row in rows.items() if name.startswith(architecture)}
        baseline = replace(BASELINE, architecture=architecture).name
        if own:
            yield consistency.steadiness(own, baseline)
            yield consistency.guards(own, baseline)
    yield ratios(rows)


def ratios(rows: dict[str, dict[str, np.ndarray]]) -> str:
    """Return a table of the errors of one setting over those of another, clip by clip."""
    names = ("near", "far", "layout", "newcomer_contrast")
    heads = ["DiT, ratio", "1 apart", "far apart", *(consistency.MEASURES[n] for n in names[2:])]
    lines = [
        [
            f"{one.name} / {other.name}".replace(f"{DIT}: ", ""),
            *(table_cell(interval(rows[one.name][n], rows[other.name][n])) for n in names),
        ]
        for one, other in PAIRS
        if one.name in rows and other.name in rows
    ]
    return table(heads, lines)


def painter(case: Case, sampling: Sampling) -> Painter:
    """Return a function that edits clips as a row does."""
    inner = comfyui_painter(case.architecture, case.setting, sampling, case.name)

    def paint(sources: Tensor, prompts: list[str], seeds: list[int]) -> Tensor:
        with own_text_once() if case.text_once else nullcontext():
            return inner(sources, prompts, seeds)

    return paint


@contextmanager
def own_text_once() -> Iterator[None]:
    """Let keys and values hold the own text once, and then the image tokens of all references.

    The text must come before the image, and there must be no mask, as in the demo's DiT.
    """

    def sequences(own: Tensor, references: Sequence[Tensor], layout: joint.Layout) -> Tensor:
        assert layout.keys.stop == layout.k_tokens
        text = own.narrow(layout.axis, 0, layout.keys.start)
        return torch.cat([text, *(tokens.unsqueeze(0) for tokens in references)], layout.axis)

    with mock.patch.object(joint, "_sequences", sequences):
        yield


if __name__ == "__main__":
    main()
