"""Time of cross-frame attention beside plain img2img, as ratios within one run.

    python tools/module.py benchmarks.speed                        the SD1.5 proxy, 16 frames
    python tools/module.py benchmarks.speed --model demo --frames 32
    python tools/module.py benchmarks.speed --csv docs/speed.csv

Every variant samples the same clip in a real ComfyUI on the same steps. Variants take turns, round
after round, so that a machine that gets slower or busier does so for all of them; of the rounds the
fastest and the median count. The proxy has a quarter of SD1.5's channels at half its side, which
keeps the ratio of tokens to channels, and with it that of attention to everything else. FLOP are
counted by torch on the very calls that are timed.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from .random_models import QUARTER, random_model, random_prompt

PLAIN = "plain, frame by frame"
CHUNKS = (1, 2, 4, 8)
SIDES = {"sd15": 32, "sdxl": 32, "demo": 32}


@dataclass
class Row:
    """One variant: how it samples the clip, and what that took, in seconds and FLOP."""

    name: str
    sample: Callable[[], torch.Tensor]
    wall: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    flop: int = 0

    def run(self) -> None:
        """Sample once more."""
        wall, process = time.perf_counter(), time.process_time()
        self.sample()
        self.wall.append(time.perf_counter() - wall)
        self.process.append(time.process_time() - process)


def main() -> None:
    options = parse_options()
    from comfyui_location import need_comfyui

    need_comfyui(cpu=not torch.cuda.is_available())
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    if options.threads:
        torch.set_num_threads(options.threads)
    with torch.inference_mode():
        rows = variants(options)
        for row in rows:
            with FlopCounterMode(display=False) as counter:
                row.sample()
            row.flop = counter.get_total_flops()
        for _ in range(options.rounds):
            for row in rows:
                row.run()
    table = list(results(rows))
    print(
        f"{options.model}, {options.frames} frames, {options.steps} steps, {options.rounds} rounds"
    )
    print(as_markdown(table))
    if options.csv:
        with Path(options.csv).open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0].keys())
            writer.writeheader()
            writer.writerows(table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SIDES, default="sd15")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--references", default="first + previous")
    parser.add_argument("--layers", default="up")
    parser.add_argument("--csv", help="write the table to this file, too")
    return parser.parse_args()


def variants(options: argparse.Namespace) -> list[Row]:
    """Every way to sample the clip, plain img2img first."""
    from ..nodes.attention import CrossFrameAttention

    model, prompts = load(options.model)
    side = SIDES[options.model]
    clip = torch.randn(options.frames, 4, side, side, generator=torch.Generator().manual_seed(0))

    def patched(frames_per_batch: int):
        return CrossFrameAttention.execute(
            model=model,
            references=options.references,
            include_self=False,
            layers=options.layers,
            start_percent=0.0,
            end_percent=1.0,
            frames_per_batch=frames_per_batch,
        ).args[0]

    def plain_frames() -> torch.Tensor:
        parts = [stock(model, prompts, clip[i : i + 1], options.steps) for i in range(len(clip))]
        return torch.cat(parts)

    rows = [
        Row(PLAIN, plain_frames),
        Row("plain, one batch", lambda: stock(model, prompts, clip, options.steps)),
        Row("frame by frame", lambda: ours(patched(0), prompts, clip, options.steps)),
    ]
    for chunk in (*(n for n in CHUNKS if n < options.frames), options.frames):
        name = f"per step, {chunk} at once"
        rows.append(Row(name, _per_step(patched(chunk), prompts, clip, options.steps)))
    return rows


def _per_step(model, prompts, clip, steps) -> Callable[[], torch.Tensor]:
    return lambda: stock(model, prompts, clip, steps)


def stock(model, prompts, clip, steps) -> torch.Tensor:
    """Sample with ComfyUI's own KSampler."""
    import nodes

    return nodes.common_ksampler(
        model, 1, steps, 7.0, "euler", "normal", *prompts, {"samples": clip}, denoise=0.6
    )[0]["samples"]


def ours(model, prompts, clip, steps) -> torch.Tensor:
    """Sample with the pack's KSampler."""
    from ..nodes.sampling import CrossFrameKSampler

    return CrossFrameKSampler.execute(
        model=model,
        seed=1,
        steps=steps,
        cfg=7.0,
        sampler_name="euler",
        scheduler="normal",
        positive=prompts[0],
        negative=prompts[1],
        latent_image={"samples": clip},
        denoise=0.6,
        frame_noise="different per frame",
    ).args[0]["samples"]


def load(name: str) -> tuple:
    """(MODEL, (positive, negative))."""
    if name == "demo":
        import nodes

        from ..demo.in_comfyui import load_in_comfyui

        model, clip, _, _ = load_in_comfyui()
        texts = ("a neon drawing", "")
        return model, tuple(nodes.CLIPTextEncode().encode(clip, text)[0] for text in texts)
    prompts = random_prompt(name, seed=1), random_prompt(name, seed=2)
    return random_model(name, QUARTER), prompts


def results(rows: list[Row]):
    """One line per row, as ratios to plain img2img of one frame after another."""
    plain = rows[0]
    for row in rows:
        ratio, flop = min(row.wall) / min(plain.wall), row.flop / plain.flop
        yield {
            "variant": row.name,
            "time": round(ratio, 3),
            "median": round(statistics.median(row.wall) / statistics.median(plain.wall), 3),
            "process time": round(min(row.process) / min(plain.process), 3),
            "FLOP": round(flop, 3),
            "efficiency": round(ratio / flop, 3),
            "seconds": round(min(row.wall), 2),
        }


def as_markdown(table: list[dict]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
    lines += ["| " + " | ".join(map(str, line.values())) + " |" for line in table]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
