"""Measure frames that are made out of keyframes: how near to the truth, how steady, how fast.

Every n-th frame of clips of the small world gets one perfect look, or is painted by the demo model
in a real ComfyUI, and the node CrossFramePropagate makes the frames between. It is compared with
holding the nearest keyframe, with a cross-fade, and, for the demo model, with painting all frames.

    python tools/module.py benchmarks.propagation --output build/propagation
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..consistency import warp_error
from ..demo import world
from ..demo.judge import Truth
from ..demo.looks import random_look
from ..hosts.frame_noise import DIFFERENT
from ..motion import Correspondence
from .consistency import (
    guards,
    interval,
    measure,
    options_parser,
    random_clips,
    steadiness,
    table,
    table_cell,
)
from .steady import ESTIMATED, EXACT, FUSED, PLAIN, Painter, Row

APART = (4, 8)  # frames from one keyframe to the next
MOTIONS = (ESTIMATED, EXACT)


@dataclass(frozen=True)
class Task:
    """A clip whose frames between keyframes are wanted.

    source: (frames, SIZE, SIZE, 3). motion: what CrossFramePropagate takes. keyframes: their
    numbers, the first and the last frame among them.
    """

    source: Tensor
    motion: Any
    keyframes: tuple[int, ...]


# It takes the keyframes' pictures, (keyframes, SIZE, SIZE, 3), and returns all frames.
Method = Callable[[Tensor, Task], Tensor]


def held(pictures: Tensor, task: Task) -> Tensor:
    """Return the nearest keyframe for every frame."""
    frames = torch.arange(len(task.source))[:, None]
    nearest = (frames - torch.tensor(task.keyframes)).abs().argmin(dim=1)
    return pictures[nearest]


def faded(pictures: Tensor, task: Task) -> Tensor:
    """Return a cross-fade between every two keyframes."""
    numbers = torch.tensor(task.keyframes)
    frames = torch.arange(len(task.source))
    after = torch.searchsorted(numbers, frames).clamp(min=1)
    before = after - 1
    share = (frames - numbers[before]) / (numbers[after] - numbers[before])
    share = share[:, None, None, None]  # (frames, 1, 1, 1)
    return (1 - share) * pictures[before] + share * pictures[after]


def propagated(pictures: Tensor, task: Task) -> Tensor:
    """Return what the node makes."""
    from ..nodes.propagate import CrossFramePropagate

    names = ", ".join(map(str, task.keyframes))
    frames: Tensor = CrossFramePropagate.execute(pictures, task.source, task.motion, names).args[0]
    return frames


METHODS: dict[str, Method] = {
    "nearest keyframe held": held,
    "cross-fade": faded,
    "propagated": propagated,
}


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    from comfyui_location import need_comfyui

    need_comfyui(cpu=not torch.cuda.is_available())
    clips = random_clips(options.clips, options.frames)
    with torch.inference_mode():
        painter = Painter(options, clips)
        tables = perfect(painter)
        print(tables, flush=True)
        tables += f"\n{by_the_model(painter)}"
    (options.output / "propagation.md").write_text(tables)
    print(tables)


def parse_options() -> argparse.Namespace:
    parser = options_parser(__doc__, output="build/propagation", clips=4, frames=33, seeds=1)
    parser.add_argument("--far", type=int, default=6)
    parser.set_defaults(architecture="U-Net", chosen=False)  # what `Painter` needs to know
    return parser.parse_args()


def tasks(painter: Painter, every: int, motion: str) -> Iterator[Task]:
    """Yield the task of each clip."""
    for number, clip in enumerate(painter.clips):
        source = world.render(clip, world.PLAIN).movedim(1, -1)
        keyframes = tuple(sorted({*range(0, len(clip), every), len(clip) - 1}))
        yield Task(source, painter.motion(motion, number, clip, source), keyframes)


def perfect(painter: Painter) -> str:
    """Return the table of keyframes with one perfect look."""
    looks = [_perfect_look(number, clip) for number, clip in enumerate(painter.clips)]
    far = painter.options.far
    moved = [[world.correspondence(clip, lag) for lag in (1, far)] for clip in painter.clips]
    lines = []
    for every in APART:
        for name, method, motion in _ways():
            todo = list(zip(looks, moved, tasks(painter, every, motion)))
            *errors, seconds = np.array([_score(method, *one) for one in tqdm(todo)]).T
            cells = [table_cell(interval(values), 1000) for values in errors]
            lines.append([str(every), name, *cells, f"{np.median(seconds):.3f}"])
    heads = ["keyframes every", "frames between", "squared error x 1000"]
    heads += ["warp error x 1000, 1 apart", f"{far} apart", "CPU seconds per frame"]
    return table(heads, lines)


def _score(method: Method, truth: Tensor, moved: list[Correspondence], task: Task) -> list[float]:
    """Return the squared error between keyframes, the warp errors, and CPU seconds per frame."""
    began = time.process_time()
    frames = method(truth[list(task.keyframes)], task)
    seconds = (time.process_time() - began) / len(frames)
    between = [number for number in range(len(frames)) if number not in task.keyframes]
    error = (frames[between] - truth[between]).square().mean()
    steps = [warp_error(frames.movedim(-1, 1), lag).nanmean() for lag in moved]
    return [float(error), *map(float, steps), seconds]


def _perfect_look(number: int, clip: world.Clip) -> Tensor:
    """Return a clip with one look, (frames, SIZE, SIZE, 3)."""
    return world.render(clip, random_look(Random(number))[0]).movedim(1, -1)


def _ways() -> Iterator[tuple[str, Method, str]]:
    """Yield the name of each way to make frames, its method, and the motion it takes."""
    for name, method in METHODS.items():
        for motion in MOTIONS if method is propagated else (EXACT,):
            yield (f"{name}, {motion}" if method is propagated else name), method, motion


def by_the_model(painter: Painter) -> str:
    """Return the tables of keyframes that the demo model has painted."""
    truths = [Truth.of(clip, painter.options.far) for clip in painter.clips]
    edits = {PLAIN: _painted(painter, PLAIN, Row(noise=DIFFERENT))}
    whole = "all frames painted"
    edits[whole] = _painted(painter, whole, Row(None, FUSED, ESTIMATED))
    for every in APART:
        name = f"every {every}th, propagated"
        some = _painted(painter, name, Row(None, FUSED, ESTIMATED, every=every))
        todo = list(tasks(painter, every, ESTIMATED))
        for method in ("nearest keyframe held", "cross-fade"):
            edits[f"every {every}th, {method}"] = _made_again(some, todo, METHODS[method])
        edits[name] = some
    rows = {name: measure(frames, truths) for name, frames in edits.items()}
    return f"{steadiness(rows, PLAIN)}\n{guards(rows, PLAIN)}"


def _painted(painter: Painter, name: str, row: Row) -> Tensor:
    """Return the edits of a row of `benchmarks.steady`, (seeds, clips, frames, 3, SIZE, SIZE)."""
    return painter.kept(name, lambda: painter.paint(row))


def _made_again(edits: Tensor, todo: list[Task], method: Method) -> Tensor:
    """Return edits whose frames between keyframes are made in another way, in their shape."""
    made = []
    for of_seed in edits.movedim(3, -1):  # (clips, frames, SIZE, SIZE, 3)
        for frames, task in zip(of_seed, todo):
            made.append(method(frames[list(task.keyframes)], task).movedim(-1, 1))
    return torch.stack(made).reshape(edits.shape)


if __name__ == "__main__":
    main()
