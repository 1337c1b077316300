"""Measure the time of cross-frame attention in transformers beside their plain img2img.

    python tools/module.py benchmarks.transformers                     proxy of Flux.1, 8 frames
    python tools/module.py benchmarks.transformers --model z-image
    python tools/module.py benchmarks.transformers --model flux-full   on a GPU

As in `benchmarks.speed`, all variants sample the same clip in a real ComfyUI and take turns. Each
is compared with plain img2img in batches of the same size. The column *time / FLOP* says how far
the time exceeds what the added computations explain: the ratio of times over the ratio of FLOP.

Sampling begins with the trial that finds the picture's tokens. It runs the model on two frames for
each prompt, whatever the number of steps, so a sampling of few steps pays most for it. The trial is
part of both ratios; *rows beside plain* counts its rows.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .random_transformers import TRANSFORMERS, Transformer, random_text, random_transformer
from .speed import Row, as_markdown, measure, start_comfyui, write_csv

# What is sampled: inputs of the CrossFrameAttention node.
CHOICES = {
    "first + previous, all layers": {},
    "first + previous, mid + up": {"layers": "mid + up"},
    "first + previous, up": {"layers": "up"},
    "first, all layers": {"references": "first"},
    "first + previous + self, all layers": {"include_self": True},
}


@dataclass(frozen=True)
class Clip:
    """A random clip, and the MODEL and the prompt that all variants sample it with.

    latents: (frames, 16, height, width).
    """

    model: object
    prompt: list
    latents: torch.Tensor
    steps: int

    @classmethod
    def random(cls, family: Transformer, frames: int, steps: int) -> "Clip":
        """Return a clip of random latents, which are always the same."""
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(frames, 16, *family.latent, generator=generator)
        return cls(random_transformer(family, dtype), random_text(family), latents, steps)

    @property
    def network(self) -> torch.nn.Module:
        """The network inside the MODEL."""
        return self.model.model.diffusion_model

    def plain(self, together: int) -> Callable[[], torch.Tensor]:
        """Return a function that samples in batches of so many frames, without the pack."""
        return lambda: torch.cat(
            [self._stock(self.model, part) for part in self.latents.split(together)]
        )

    def ours(self, together: int, inputs: dict) -> Callable[[], torch.Tensor]:
        """Return a function that samples with cross-frame attention. inputs: of the node."""
        model = self._patched(together, inputs)
        return lambda: self._stock(model, self.latents)

    def frame_by_frame(self, inputs: dict) -> Callable[[], torch.Tensor]:
        """Return a function that samples with the pack's KSampler. inputs: of the node."""
        from ..nodes.sampling import CrossFrameKSampler

        model = self._patched(0, inputs)
        sampling = {"seed": 1, "steps": self.steps, "cfg": 1.0, "sampler_name": "euler"}
        prompts = {"positive": self.prompt, "negative": self.prompt}
        return lambda: CrossFrameKSampler.execute(
            model=model,
            **sampling,
            **prompts,
            scheduler="simple",
            latent_image={"samples": self.latents},
            denoise=0.6,
            frame_noise="different per frame",
        ).args[0]["samples"]

    def _stock(self, model, latents: torch.Tensor) -> torch.Tensor:
        """Sample with ComfyUI's own KSampler, without guidance, as these models are used."""
        import nodes

        how = (1, self.steps, 1.0, "euler", "simple", self.prompt, self.prompt)
        return nodes.common_ksampler(model, *how, {"samples": latents}, denoise=0.6)[0]["samples"]

    def _patched(self, together: int, inputs: dict):
        from ..nodes.attention import CrossFrameAttention

        usual = {
            "references": "first + previous",
            "include_self": False,
            "layers": "all",
            "start_percent": 0.0,
            "end_percent": 1.0,
            "frames_per_batch": together,
        }
        return CrossFrameAttention.execute(model=self.model, **{**usual, **inputs}).args[0]


def main() -> None:
    options = parse_options()
    start_comfyui("pytorch", options.threads)
    with torch.inference_mode():
        clip = Clip.random(TRANSFORMERS[options.model], options.frames, options.steps)
        pairs = list(variants(clip, options.together))
        rows = {id(row): row for pair in pairs for row in pair}
        measure(list(rows.values()), clip.network, options.rounds)
    table = list(results(pairs))
    print(f"{options.model}, {options.frames} frames, {options.steps} steps")
    print(as_markdown(table))
    if options.csv:
        write_csv(options.csv, table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=TRANSFORMERS, default="flux")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--together", type=int, default=2, help="frames of a smaller batch")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    parser.add_argument("--csv", help="write the table to this file, too")
    return parser.parse_args()


def variants(clip: Clip, together: int) -> Iterator[tuple[Row, Row]]:
    """Yield ways to sample a clip, each with plain img2img in batches of the same size."""
    frames = len(clip.latents)
    plain = {n: Row(f"plain, {n} at once", clip.plain(n)) for n in (1, together, frames)}
    for row in plain.values():
        yield row, row
    for name, inputs in CHOICES.items():
        row = Row(f"{name}, {frames} at once", clip.ours(frames, inputs), ours=True)
        yield row, plain[frames]
    name, inputs = next(iter(CHOICES.items()))
    for n in (1, together):
        yield Row(f"{name}, {n} at once", clip.ours(n, inputs), ours=True), plain[n]
    yield Row(f"{name}, frame by frame", clip.frame_by_frame(inputs), ours=True), plain[1]


def results(pairs: list[tuple[Row, Row]]) -> Iterator[dict]:
    """Yield one line per variant, as ratios to plain img2img in batches of the same size."""
    for row, plain in pairs:
        time = min(row.wall) / min(plain.wall)
        median = statistics.median(row.wall) / statistics.median(plain.wall)
        flop = row.flop / plain.flop
        yield {
            "variant": row.name,
            "time": round(time, 3),
            "median": round(median, 3),
            "FLOP": round(flop, 3),
            "time / FLOP": round(time / flop, 3),
            "rows beside plain": row.rows - plain.rows,
            "peak MiB": round(row.peak / 2**20, 1),
            "seconds": round(min(row.wall), 2),
        }


if __name__ == "__main__":
    main()
