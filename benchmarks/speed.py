"""Measure the time of cross-frame attention and plain img2img, as ratios within one run.

    python tools/module.py benchmarks.speed                            the SD1.5 proxy, 16 frames
    python tools/module.py benchmarks.speed --model demo --frames 32
    python tools/module.py benchmarks.speed --model sd15-full          on a GPU
    python tools/module.py benchmarks.speed --csv docs/speed.csv --kinds --packs <folder>

Every variant samples the same clip in a real ComfyUI with the same steps. Variants take turns,
round after round, so a machine that gets slower or busier affects all of them. The table shows the
fastest and the median round. The proxies have a quarter of their family's channels and at most half
of its side. For SD1.5 this keeps the ratio of tokens to channels, and with it the ratio of
attention to everything else. torch counts the FLOP in the same calls that are timed.

On a CPU, and only there, ComfyUI stores all attention weights. To measure what users of a GPU run,
the benchmark lets ComfyUI use PyTorch's attention, as it does on a GPU.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from .measures import KINDS, REST, count_flop, counted_rows, peak_bytes, seconds_by_kind
from .random_models import FULL, QUARTER, random_model, random_prompt

PLAIN = "plain, frame by frame"
CHUNKS = (1, 2, 4, 8, 16)
CFG = 2  # number of conds in a model evaluation


@dataclass(frozen=True)
class Subject:
    """A model to measure: its family, the channels of its first level, the side of a latent."""

    family: str
    channels: int
    side: int


SUBJECTS = {
    "sd15": Subject("sd15", QUARTER, 32),
    "sdxl": Subject("sdxl", QUARTER, 32),
    "sd15-full": Subject("sd15", FULL, 64),
    "sdxl-full": Subject("sdxl", FULL, 128),
    "demo": Subject("demo", 0, 32),
}


@dataclass
class Row:
    """One variant: how it samples the clip, and what that took.

    wall, process: the seconds of each round. start: the seconds of each round before the first call
    of the U-Net. flop, peak: the FLOP and the peak memory of one run. rows: the number of rows,
    frames times conds, that went through the U-Net.
    """

    name: str
    sample: Callable[[], torch.Tensor]
    wall: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    flop: int = 0
    rows: int = 0
    peak: int = 0
    seconds_by_kind: dict[str, float] = field(default_factory=dict)
    ours: bool = False  # whether it is cross-frame attention, whose minimum of FLOP is known

    def run(self, unet: torch.nn.Module) -> None:
        """Sample once and note the times. unet: the U-Net that is called."""
        calls: list[float] = []
        watch = unet.register_forward_pre_hook(lambda *_: calls.append(time.perf_counter()))
        wall, process = time.perf_counter(), time.process_time()
        try:
            self.sample()
        finally:
            watch.remove()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter() - wall)
        self.process.append(time.process_time() - process)
        self.start.append(calls[0] - wall)


def main() -> None:
    options = parse_options()
    start_comfyui(options.attention, options.threads)
    with torch.inference_mode():
        subject = SUBJECTS[options.model]
        chosen = {"references": options.references, "layers": options.layers}
        clip = Clip.random(load(subject), options.frames, options.steps, subject.side, chosen)
        rows = variants(clip, options)
        if options.packs:
            rows += peer_rows(clip, options.packs)
        measure(rows, clip.unet, options.rounds, options.kinds)
    table = list(results(rows, clip.floor()))
    print(f"{options.model}, {options.frames} frames, {options.steps} steps, {options.attention}")
    print(as_markdown(table))
    if options.kinds:
        print(as_markdown(list(kinds(rows))))
    if options.csv:
        write_csv(options.csv, table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SUBJECTS, default="sd15")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--references", default="first + previous")
    parser.add_argument("--layers", default="up")
    parser.add_argument("--attention", choices=("pytorch", "comfyui"), default="pytorch")
    parser.add_argument("--only", nargs="*", help="rows whose names contain one of these words")
    parser.add_argument("--kinds", action="store_true", help="also the time by kind of kernel")
    parser.add_argument("--packs", type=Path, help="folder of other packs to run on the same clip")
    parser.add_argument("--csv", type=Path, help="write the table to this file, too")
    return parser.parse_args()


def start_comfyui(attention: str, threads: int) -> None:
    """Make ComfyUI importable. attention: "pytorch", or "comfyui" for its own choice."""
    from comfyui_location import need_comfyui

    need_comfyui(cpu=not torch.cuda.is_available())
    import comfy.cli_args

    comfy.cli_args.args.use_pytorch_cross_attention = attention == "pytorch"
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    if threads:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Clip:
    """A random clip, and the MODEL and the prompts that all variants sample it with.

    latents: (frames, 4, side, side). cross_frame: inputs of the CrossFrameAttention node.
    """

    model: object
    prompts: tuple
    latents: torch.Tensor
    steps: int
    cross_frame: dict

    @classmethod
    def random(cls, loaded: tuple, frames: int, steps: int, side: int, chosen: dict) -> "Clip":
        """Return a clip of random latents, which are always the same. loaded: see `load`."""
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(frames, 4, side, side, generator=generator)
        return cls(*loaded, latents, steps, chosen)

    @property
    def unet(self) -> torch.nn.Module:
        """The U-Net inside the MODEL."""
        return self.model.model.diffusion_model

    def patched(self, frames_per_batch: int = 0, **inputs):
        """Return the MODEL with cross-frame attention. inputs: further inputs of the node."""
        from ..nodes.attention import CrossFrameAttention

        defaults = {
            "references": "first + previous",
            "include_self": False,
            "layers": "up",
            "start_percent": 0.0,
            "end_percent": 1.0,
            "frames_per_batch": frames_per_batch,
        }
        return CrossFrameAttention.execute(
            model=self.model, **{**defaults, **self.cross_frame, **inputs}
        ).args[0]

    def parts(self, frames: int) -> torch.Tensor:
        """Sample without cross-frame attention, in batches of `frames` frames."""
        parts = self.latents.split(frames)
        return torch.cat([stock(self.model, self.prompts, part, self.steps) for part in parts])

    def floor(self) -> int:
        """Return the least FLOP that cross-frame attention takes in addition to plain img2img.

        A frame that attends to k frames takes k times the products of attention: for each layer
        and cond 4 x k x tokens^2 x channels. Keys and values are projected once per frame.
        """
        from ..attention.compose import simplest
        from ..attention.references import attended
        from ..hosts.comfy.model.carried import settings_of

        settings = settings_of(self.patched().model_options)
        frames, _, height, width = self.latents.shape
        counts = [len(simplest(attended(settings.policy, frame))) for frame in range(frames)]
        per_frame = sum(
            4 * attn1.tokens(height, width) ** 2 * attn1.channels for attn1 in settings.layers
        )
        return CFG * self.steps * per_frame * sum(count - 1 for count in counts)


def variants(clip: Clip, options: argparse.Namespace) -> list[Row]:
    """Return all ways to sample the clip, with plain img2img first."""
    frames = len(clip.latents)
    plain = [
        Row(PLAIN, lambda: clip.parts(1)),
        Row("plain, 4 at once", lambda: clip.parts(4)),
        Row("plain, one batch", lambda: clip.parts(frames)),
    ]
    rows = plain + [Row(name, sample, ours=True) for name, sample in cross_frame(clip)]
    if options.only:
        return rows[:1] + [r for r in rows[1:] if any(word in r.name for word in options.only)]
    return rows


def cross_frame(clip: Clip) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """Yield all ways to sample the clip with cross-frame attention."""
    frames = len(clip.latents)
    yield "frame by frame", sampling(clip, ours, clip.patched())
    if torch.cuda.is_available():
        # Compared with "frame by frame", this shows the cost of copies to system memory and back.
        away = clip.patched(bank_device="system memory")
        yield "frame by frame, bank in system memory", sampling(clip, ours, away)
    yield "per step, frames_per_batch 0", sampling(clip, stock, clip.patched())
    for n in (*(n for n in CHUNKS if n < frames), frames):
        yield f"per step, {n} at once", sampling(clip, stock, clip.patched(n))
    for n in sorted({min(4, frames), frames}):
        model = beside_another_patch(clip.patched(n))
        yield f"per step, {n} at once, beside another attn1 patch", sampling(clip, stock, model)


def sampling(clip: Clip, sampler: Callable, model) -> Callable[[], torch.Tensor]:
    """Return a function that samples the clip. sampler: `stock` or `ours`."""
    return lambda: sampler(model, clip.prompts, clip.latents, clip.steps)


def beside_another_patch(model):
    """Return the MODEL with another attn1 patch after ours, which changes nothing."""
    patched = model.clone()
    patched.set_model_attn1_patch(lambda query, context, value, _: (query, context, value))
    return patched


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


def load(subject: Subject) -> tuple:
    """Load a model and return (MODEL, (positive, negative))."""
    if subject.family == "demo":
        import nodes

        from ..demo.in_comfyui import load_in_comfyui

        model, clip, _, _ = load_in_comfyui()
        texts = ("a neon drawing", "")
        return model, tuple(nodes.CLIPTextEncode().encode(clip, text)[0] for text in texts)
    dtype = torch.float16 if torch.cuda.is_available() else torch.float32
    prompts = tuple(random_prompt(subject.family, seed) for seed in (1, 2))
    return random_model(subject.family, subject.channels, dtype), prompts


def measure(rows: list[Row], unet: torch.nn.Module, rounds: int, with_kinds: bool = False) -> None:
    """Measure every row once, then time all of them, round after round."""
    for row in tqdm(rows, desc="measure", leave=False):
        with counted_rows(unet) as counted:
            row.flop = count_flop(row.sample)
        row.rows = sum(counted)
        row.peak = peak_bytes(row.sample)
        if with_kinds:
            row.seconds_by_kind = seconds_by_kind(row.sample)
    for _ in tqdm(range(rounds), desc="rounds", leave=False):
        for row in rows:
            row.run(unet)


def peer_rows(clip: Clip, packs: Path) -> list[Row]:
    """Return rows of other packs on the same clip; print the reason if a pack does not run."""
    from .peers import ways

    rows = []
    for name, way in ways(packs.expanduser(), clip.model, clip.prompts, clip.latents, clip.steps):
        if isinstance(way, str):
            print(f"{name}: not run, {way}")
        else:
            rows.append(Row(name, way))
    return rows


def results(rows: list[Row], floor: int) -> Iterator[dict]:
    """Yield one line per row, as ratios to plain img2img of one frame after another."""
    plain = rows[0]
    least = 1 + floor / plain.flop
    for row in rows:
        ratio = min(row.wall) / min(plain.wall)
        yield {
            "variant": row.name,
            "time": round(ratio, 3),
            "median": round(statistics.median(row.wall) / statistics.median(plain.wall), 3),
            "process time": round(min(row.process) / min(plain.process), 3),
            "FLOP": round(row.flop / plain.flop, 3),
            "efficiency": round(ratio / least, 3) if row.ours else "",
            "rows through the U-Net": round(row.rows / plain.rows, 3),
            "peak MiB": round(row.peak / 2**20, 1),
            "start ms": round(1000 * min(row.start), 1),
            "seconds": round(min(row.wall), 2),
        }


def kinds(rows: list[Row]) -> Iterator[dict]:
    """Yield each row's time by kind of kernel, as shares of the time of plain img2img."""
    whole = sum(rows[0].seconds_by_kind.values())
    for row in rows:
        shares = {kind: round(row.seconds_by_kind[kind] / whole, 3) for kind in (*KINDS, REST)}
        yield {"variant": row.name, **shares}


def write_csv(path: Path, table: list[dict]) -> None:
    """Write the table to a file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0].keys())
        writer.writeheader()
        writer.writerows(table)


def as_markdown(table: list[dict]) -> str:
    """Write the table in Markdown."""
    lines = ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
    lines += ["| " + " | ".join(map(str, line.values())) + " |" for line in table]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
