"""Measure clips from a prompt: whether things move as was asked for, and how steady they are.

The demo model paints clips in a real ComfyUI from prompts alone, without hints, as
Text2Video-Zero does: through Cross-Frame Motion Field and Cross-Frame Dynamics. Without hints it
paints patterns and blots. The motion that comes out is found by the pack's own estimator, so its
errors are in the figures, too.

    python tools/module.py benchmarks.dynamics --output build/dynamics
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..consistency import warp_error
from ..demo import world
from ..demo.looks import MOODS, describe
from ..hosts.frame_noise import DIFFERENT, SAME
from ..motion import Correspondence, EstimatedMotion, Motion, inside, pixel_grid, shrunk_to
from .consistency import interval, table, table_cell

CELL = 2  # pixels of the demo model's latent
NO_SHIFT = (0.0, 0.0)
SHIFTS = ((1.0, 0.0), (-1.5, -1.5))  # pixels per frame; 2 are a cell


@dataclass(frozen=True)
class Row:
    """A row of the table.

    reading, noise: options of CrossFrameDynamics. attends: whether frames look at the first one.
    part: to_step and from_step as shares of the steps. smoothing: the strength of a fusion to the
    first frame, as background smoothing does it, without a foreground.
    """

    reading: str = "nearest"
    noise: str = DIFFERENT
    attends: bool = True
    part: tuple[float, float] = (0.04, 0.1)
    smoothing: float = 0.0


LATE = (0.25, 0.5)
ROWS = {
    "as published (steps 4 to 10 %)": Row(),
    "steps 25 to 50 %": Row(part=LATE),
    "steps 25 to 50 %, without attention": Row(part=LATE, attends=False),
    "steps 25 to 50 %, read smoothly": Row(part=LATE, reading="smooth"),
    "steps 25 to 50 %, one new noise": Row(part=LATE, noise=SAME),
    "as published, smoothing 0.6": Row(smoothing=0.6),
    "steps 25 to 50 %, smoothing 0.6": Row(part=LATE, smoothing=0.6),
    "steps 25 to 50 %, smoothing 0.6, one new noise": Row(part=LATE, noise=SAME, smoothing=0.6),
}


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    from comfyui_location import need_comfyui

    need_comfyui(cpu=not torch.cuda.is_available())
    with torch.inference_mode():
        painter = Painter(options)
        lines = [list(painter.measured(name, row)) for name, row in ROWS.items()]
        still = list(painter.measured("no motion", Row(), (NO_SHIFT,)))
    heads = ["setting", "displacement asked for, pixels per frame", "off by"]
    heads += ["warp error x 1000, 1 apart", f"{options.frames - 2} apart", "differs from frame 0"]
    text = table(heads, [*lines, still])
    text += f"\n{cost(painter)}\n"
    (options.output / "dynamics.md").write_text(text)
    print(text)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/dynamics"))
    parser.add_argument("--seeds", type=int, default=4, help="clips for each mood")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=1.5)
    return parser.parse_args()


class Painter:
    """Paints clips in ComfyUI, and measures them."""

    def __init__(self, options: argparse.Namespace) -> None:
        from ..demo.in_comfyui import load_in_comfyui

        self.options = options
        self.demo = load_in_comfyui()

    def measured(
        self, name: str, row: Row, shifts: tuple[tuple[float, float], ...] = SHIFTS
    ) -> Iterator[str]:
        """Yield the cells of a row."""
        found = [
            measures(self.paint(row, shift, mood, seed), self.field(shift), shift)
            for mood in tqdm([*MOODS], desc=name, unit="mood")
            for seed in range(self.options.seeds)
            for shift in shifts
        ]
        columns = np.array(found).T  # (measures, clips)
        yield name
        yield ", ".join(f"{x:g} / {y:g}" for x, y in shifts)
        for column, scale in zip(columns, (1, 1000, 1000, 1), strict=True):
            yield table_cell(interval(column), scale)

    def field(self, shift: tuple[float, float]) -> Any:
        """Return a CROSS_FRAME_MOTION."""
        from ..nodes.dynamics import CrossFrameMotionField

        side = world.SIZE
        return CrossFrameMotionField.execute(self.options.frames, side, side, *shift, 1, 0).args[0]

    def paint(self, row: Row, shift: tuple[float, float], mood: str, seed: int) -> Tensor:
        """Paint a clip, (frames, 3, SIZE, SIZE)."""
        import nodes

        model, text, vae, _ = self.demo
        words = (describe(mood, {}), "")
        conds = tuple(nodes.CLIPTextEncode().encode(text, prompt)[0] for prompt in words)
        if row.attends:
            model = self._attending(model)
        motion = self.field(shift)
        latent = self.moving(row, model, conds, motion, seed)
        if row.smoothing:
            model = self._smoothed(model, motion, row.smoothing)
        steps = self.options.steps
        start = round(row.part[0] * steps)
        samples = self._sampled(model, conds, latent, seed, start, steps)
        pictures: Tensor = nodes.VAEDecode().decode(vae, samples)[0]
        return pictures.movedim(-1, 1)

    def moving(self, row: Row, model: Any, conds: tuple, motion: Motion, seed: int) -> dict:
        """Return the latents of all frames at the earlier step."""
        start, end = (round(share * self.options.steps) for share in row.part)
        side = world.SIZE // CELL
        empty = {"samples": torch.zeros(1, 4, side, side)}
        earlier = self._sampled(model, conds, empty, seed, 0, start) if start else None
        later = self._sampled(model, conds, earlier or empty, seed, start, end)
        return self.dynamics(row, model, later, motion, (start, end), seed, earlier)

    def dynamics(
        self,
        row: Row,
        model: Any,
        latent: dict,
        motion: Motion,
        part: tuple[int, int],
        seed: int,
        earlier: dict | None = None,
    ) -> dict:
        """Return what CrossFrameDynamics makes of one frame's latent. part: to_step, from_step."""
        from ..nodes.dynamics import CrossFrameDynamics

        made: dict = CrossFrameDynamics.execute(
            model,
            latent,
            motion,
            seed=seed + 1_000_000,
            steps=self.options.steps,
            sampler_name="ddim",
            scheduler="normal",
            to_step=part[0],
            from_step=part[1],
            earlier_latent=earlier,
            frame_noise=row.noise,
            reading=row.reading,
        ).args[0]
        return made

    def _attending(self, model: Any) -> Any:
        from ..nodes.attention import CrossFrameAttention

        return CrossFrameAttention.execute(
            model=model,
            references="first",
            include_self=False,
            layers="all",
            start_percent=0.0,
            end_percent=1.0,
            frames_per_batch=0,
        ).args[0]

    def _smoothed(self, model: Any, motion: Motion, strength: float) -> Any:
        from ..nodes.fusion import CrossFrameFusion

        return CrossFrameFusion.execute(
            model=model,
            motion=motion,
            strength=strength,
            end_strength=strength,
            start_percent=0.0,
            end_percent=1.0,
            to="keyframes",
            keyframes="0",
        ).args[0]

    def _sampled(
        self, model: Any, conds: tuple, latent: dict, seed: int, start: int, end: int
    ) -> dict:
        import nodes

        steps = self.options.steps
        add, leave = (("enable", "disable")[never] for never in (start > 0, end >= steps))
        settings = (add, seed, steps, self.options.guidance, "ddim", "normal")
        sampled: dict = nodes.KSamplerAdvanced().sample(
            model, *settings, *conds, latent, start, end, leave
        )[0]
        return sampled


def measures(frames: Tensor, motion: Motion, shift: tuple[float, float]) -> list[float]:
    """Return what is measured of a clip, (frames, 3, h, w).

    The mean distance, in pixels, of the motion that is found from the first to each other frame to
    the motion that was asked for, over trusted pixels, per frame of distance; the warp error one
    frame apart and from the second to the last frame; and how much the last frame differs from the
    first one (root mean square, RGB).
    """
    size = (frames.shape[-2], frames.shape[-1])
    found = EstimatedMotion(shrunk_to(max(size), frames), size)
    wanted = torch.tensor(shift)
    off = []
    for frame in range(1, len(frames)):
        pair = found.between(0, frame)
        flow = pair.positions - pixel_grid(pair.positions)
        distance = (flow / frame - wanted).norm(dim=-1)
        if pair.trust.any():
            off.append(float(distance[pair.trust > 0].mean()))
    apart = [
        float(warp_error(frames, correspondence(motion, distance)).nanmean())
        for distance in (1, len(frames) - 2)
    ]
    differs = float((frames[-1] - frames[0]).square().mean().sqrt())
    return [float(np.mean(off)) if off else float("nan"), *apart, differs]


def correspondence(motion: Motion, apart: int) -> Correspondence:
    """Return the motion between all frames of a clip that are so many frames apart."""
    earlier = range(motion.frames - apart)
    pairs = [motion.between(frame, frame + apart) for frame in earlier]
    points = torch.stack([pair.positions for pair in pairs])
    frames = torch.tensor(earlier)
    return Correspondence(frames, frames + apart, points, inside(points))


def cost(painter: Painter) -> str:
    """Say what moving and new noise cost, beside one step of the frames."""
    import nodes

    model, text, _, _ = painter.demo
    conds = tuple(nodes.CLIPTextEncode().encode(text, words)[0] for words in ("a drawing", ""))
    motion, row, steps = painter.field(SHIFTS[0]), Row(), painter.options.steps
    side = world.SIZE // CELL
    empty = {"samples": torch.zeros(1, 4, side, side)}
    earlier = painter._sampled(model, conds, empty, 0, 0, 2)
    later = painter._sampled(model, conds, earlier, 0, 2, 5)
    start = time.process_time()
    clip = painter.dynamics(row, model, later, motion, (2, 5), 0, earlier)
    moved = time.process_time() - start
    start = time.process_time()
    painter._sampled(model, conds, clip, 0, 2, steps)
    step = (time.process_time() - start) / (steps - 2)
    return f"Cross-Frame Dynamics takes {moved / step:.1%} of the CPU time of one step."


if __name__ == "__main__":
    main()
