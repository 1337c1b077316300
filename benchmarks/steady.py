"""Measure weights, keyframes and fusion: how steady clips get, and what that costs.

It edits clips of the small world with the demo model in a real ComfyUI, through the nodes
themselves, and compares them with their exact motion, as `benchmarks.consistency` does. The row
*floor* is a clip with one perfect look that has gone through the autoencoder: no method can be
steadier. Finished rows are kept in the output folder, so an interrupted run can continue.

    python tools/module.py benchmarks.steady --output build/steady
    python tools/module.py benchmarks.steady --output build/steady-dit --architecture DiT

Clips of more than 48 frames also get a table of how the error grows with the distance, as in
`benchmarks.drift`:

    python tools/module.py benchmarks.steady --output build/steady-64 --frames 64 --far 48 --chosen
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..demo import world
from ..demo.exact_motion import ExactMotion
from ..demo.judge import Truth
from ..demo.looks import MOODS, describe, random_look
from ..hosts.frame_noise import DIFFERENT, SAME
from .consistency import (
    Interval,
    guards,
    interval,
    measure,
    options_parser,
    random_clips,
    table,
    table_cell,
    write_csv,
)
from .drift import DISTANCES, growth, mean_error

EXACT, ESTIMATED = "exact motion", "estimated motion"
FLOOR, PLAIN = "floor: one perfect look through the autoencoder", "plain, different noise"


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    attention, fusion: inputs of the nodes CrossFrameAttention and CrossFrameFusion, or None without
    them. motion: EXACT or ESTIMATED. noise: an option of CrossFrameNoise. rerender: inputs of
    CrossFrameRerender, which then takes the sampler's place. every: every how many frames are
    painted; CrossFramePropagate makes the others. joins: whether the ControlNet's own attention
    takes part, by CrossFrameControlNet.
    """

    attention: dict[str, Any] | None = None
    fusion: dict[str, Any] | None = None
    motion: str = EXACT
    noise: str = SAME
    rerender: dict[str, Any] | None = None
    every: int = 1
    joins: bool = False


KEYFRAMES = {"references": "keyframes"}
FUSED: dict[str, Any] = {"to": "keyframes"}
E2 = 7.4  # e squared, a weight that was tried in a first search
ATTENDING = ", attention to keyframes"
ROWS: dict[str, Row] = {
    PLAIN: Row(noise=DIFFERENT),
    "plain, same noise": Row(),
    "first": Row({"references": "first"}),
    "first, in the ControlNet, too": Row({"references": "first"}, joins=True),
    "first + previous": Row({"references": "first + previous"}),
    "7.4 x first + previous": Row({"references": "first + previous", "first_weight": E2}),
    "keyframes": Row(KEYFRAMES),
    "keyframes + previous": Row({"references": "keyframes + previous"}),
    **{
        f"fused to {name}, {motion}": Row(attention, fusion, motion)
        for name, attention, fusion in (
            ("keyframes", None, FUSED),
            (f"keyframes{ATTENDING}", KEYFRAMES, FUSED),
            ("first + previous", None, {"to": "first + previous"}),
            (f"keyframes{ATTENDING} up to 0.3", {**KEYFRAMES, "end_percent": 0.3}, FUSED),
        )
        for motion in (ESTIMATED, EXACT)
    },
}
FIRST_AND_PREVIOUS = {"references": "first + previous"}
ROWS |= {
    f"{name}, {motion}": Row(attention, fusion, motion, rerender=rerender, every=every)
    for name, attention, fusion, rerender, every in (
        ("rerender", FIRST_AND_PREVIOUS, None, {}, 1),
        ("rerender, one pass", FIRST_AND_PREVIOUS, None, {"pixel_fusion_strength": 0.0}, 1),
        ("every 4th frame, fused to keyframes", None, FUSED, None, 4),
        ("every 8th frame, fused to keyframes", None, FUSED, None, 8),
    )
    for motion in (ESTIMATED, EXACT)
}
USUAL = {"start_percent": 0.0, "end_percent": 1.0}


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    from comfyui_location import need_comfyui

    need_comfyui(cpu=not torch.cuda.is_available())
    clips = random_clips(options.clips, options.frames)
    truths = [Truth.of(clip, options.far) for clip in tqdm(clips, desc="truth")]
    with torch.inference_mode():
        painter = Painter(options, clips)
        rows = {FLOOR: measure(painter.kept(FLOOR, painter.floor), truths)}
        for name, row in ROWS.items():
            if options.only is None or any(word in name for word in options.only):
                rows[name] = measure(painter.kept(name, lambda r=row: painter.paint(r)), truths)
                print("\n".join(lines(name, rows)))
    write_csv(options.output / "steady.csv", rows)
    tables = f"{steadiness(rows)}\n{guards(rows, PLAIN)}"
    if options.frames > max(DISTANCES):
        tables += f"\n{drift(options, clips, rows)}"
    (options.output / "steady.md").write_text(tables)
    print(tables)


def parse_options() -> argparse.Namespace:
    parser = options_parser(__doc__, output="build/steady", clips=50, frames=8, seeds=3)
    parser.add_argument("--far", type=int, default=6)
    parser.add_argument("--architecture", choices=("U-Net", "DiT"), default="U-Net")
    parser.add_argument(
        "--chosen", action="store_true", help="use the keyframes that Cross-Frame Motion chooses"
    )
    parser.add_argument("--only", nargs="*", help="rows whose names contain one of these words")
    return parser.parse_args()


class Painter:
    """Paints all clips with all seeds in ComfyUI."""

    def __init__(self, options: argparse.Namespace, clips: list[world.Clip]) -> None:
        from ..demo.in_comfyui import load_in_comfyui

        self.options = options
        self.clips = clips
        self.demo = load_in_comfyui(options.architecture)
        self._found: dict[int, tuple[Any, str]] = {}  # by clip: estimated motion and keyframes

    def kept(self, name: str, make) -> Tensor:
        """Return what was made earlier for a row, or make it: (seeds, clips, frames, 3, h, w)."""
        file = kept_file(self.options, name)
        if not file.exists():
            torch.save((make() * 255).round().byte(), file)
        return torch.load(file).float() / 255

    def floor(self) -> Tensor:
        """Return clips with one perfect look, encoded and decoded."""
        import nodes

        _, _, vae, _ = self.demo[:4]
        looks, random = [], Random(0)
        for clip in self._all():
            look = world.render(clip, random_look(random)[0])
            latent = nodes.VAEEncode().encode(vae, look.movedim(1, -1))[0]
            looks.append(nodes.VAEDecode().decode(vae, latent)[0].movedim(-1, 1).clone())
        return torch.stack(looks).unflatten(0, (self.options.seeds, len(self.clips)))

    def paint(self, row: Row) -> Tensor:
        """Return the edits of all clips."""
        edits = []
        for seed in range(self.options.seeds):
            for number, clip in enumerate(tqdm(self.clips, desc=f"seed {seed}", unit="clip")):
                prompt = describe([*MOODS][number % len(MOODS)], {})
                edits.append(self._edit(row, number, clip, prompt, 1000 * seed + number))
        return torch.stack(edits).unflatten(0, (self.options.seeds, len(self.clips)))

    def _all(self) -> Iterator[world.Clip]:
        for _ in range(self.options.seeds):
            yield from self.clips

    def _edit(self, row: Row, number: int, clip: world.Clip, prompt: str, seed: int) -> Tensor:
        """Edit one clip; return (frames, 3, SIZE, SIZE)."""
        from ..nodes.propagate import CrossFrameKeyframes, CrossFramePropagate

        source = world.render(clip, world.PLAIN).movedim(1, -1)
        moves = row.fusion is not None or row.rerender is not None or row.every > 1
        motion = self.motion(row.motion, number, clip, source) if moves else None
        if row.every == 1:
            keyframes = self.keyframes(number, source)
            painted = self._painted(row, source, motion, keyframes, prompt, seed)
        else:
            images, chosen, names = CrossFrameKeyframes.execute(source, motion, row.every).args
            every = ", ".join(map(str, range(len(images))))
            some = self._painted(row, images, chosen, every, prompt, seed)
            (painted,) = CrossFramePropagate.execute(some, source, motion, names).args
        return painted.movedim(-1, 1).clone()

    def _painted(
        self, row: Row, images: Tensor, motion: Any, keyframes: str, prompt: str, seed: int
    ) -> Tensor:
        """Paint frames, (frames, SIZE, SIZE, 3). keyframes: their numbers among these."""
        import nodes

        from ..demo.in_comfyui import conditions
        from ..nodes.control import CrossFrameControlNet

        demo = self.demo
        if row.joins:
            demo = (*demo[:3], *CrossFrameControlNet.execute(demo[3]).args)
        conds = conditions(demo, prompt, images)
        model = self._patched(row, motion, keyframes)
        if row.rerender is not None:
            return self._rerendered(row, model, conds, images, motion, seed)
        samples = self._sampled(row, model, conds, images, seed)
        pictures: Tensor = nodes.VAEDecode().decode(self.demo[2], samples)[0]
        return pictures

    def _rerendered(
        self, row: Row, model: Any, conds: tuple, images: Tensor, motion: Any, seed: int
    ) -> Tensor:
        from ..nodes.rerender import CrossFrameRerender

        options = self.options
        pictures: Tensor = CrossFrameRerender.execute(
            model=model,
            vae=self.demo[2],
            images=images,
            positive=conds[0],
            negative=conds[1],
            seed=seed,
            steps=options.steps,
            cfg=options.guidance,
            sampler_name="ddim",
            scheduler="normal",
            denoise=options.strength,
            frame_noise=row.noise,
            motion=motion,
            **(row.rerender or {}),
        ).args[1]
        return pictures

    def _sampled(self, row: Row, model: Any, conds: tuple, images: Tensor, seed: int) -> dict:
        from comfy_extras import nodes_custom_sampler as custom

        import nodes

        from ..nodes.noise import CrossFrameNoise

        (noise,) = custom.RandomNoise.execute(seed).args
        (noise,) = CrossFrameNoise.execute(noise, row.noise).args
        (guider,) = custom.CFGGuider.execute(model, *conds, self.options.guidance).args
        (sampler,) = custom.KSamplerSelect.execute("ddim").args
        how = ("normal", self.options.steps, self.options.strength)
        (sigmas,) = custom.BasicScheduler.execute(model, *how).args
        (latent,) = nodes.VAEEncode().encode(self.demo[2], images)
        return custom.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]

    def _patched(self, row: Row, motion: Any, keyframes: str):
        """Return the MODEL after the nodes of a row."""
        from ..nodes.attention import CrossFrameAttention
        from ..nodes.fusion import CrossFrameFusion

        model = self.demo[0]
        if row.attention is not None:
            usual = {"include_self": False, "layers": "all", "frames_per_batch": 0, **USUAL}
            inputs = {**usual, **row.attention}
            if "keyframes" in inputs["references"]:
                inputs["keyframes"] = keyframes
            (model,) = CrossFrameAttention.execute(model=model, **inputs).args
        if row.fusion is not None:
            inputs = {"strength": 1.0, "start_percent": 0.0, "end_percent": 0.9, **row.fusion}
            if inputs["to"] == "keyframes":
                inputs["keyframes"] = keyframes
            (model,) = CrossFrameFusion.execute(model=model, motion=motion, **inputs).args
        return model

    def motion(self, kind: str, number: int, clip: world.Clip, images: Tensor):
        """Return the motion of a clip."""
        return ExactMotion(clip) if kind == EXACT else self._estimated(number, images)[0]

    def keyframes(self, number: int, images: Tensor) -> str:
        """Return the keyframes of a clip."""
        if self.options.chosen:
            return self._estimated(number, images)[1]
        last = self.options.frames - 1
        return f"0, {(last + 1) // 2}, {last}"

    def _estimated(self, number: int, images: Tensor) -> tuple[Any, str]:
        """Return what Cross-Frame Motion says of a clip, which it is asked once."""
        from ..nodes.motion import CrossFrameMotion

        if number not in self._found:
            self._found[number] = CrossFrameMotion.execute(images, "built in").args[:2]
        return self._found[number]


def kept_file(options: argparse.Namespace, name: str) -> Path:
    """Return where the frames of a row are kept."""
    return options.output / f"{name.replace(' ', '_').replace(':', '')}.pt"


def drift(options: argparse.Namespace, clips: list[world.Clip], rows: Iterable[str]) -> str:
    """Return a table of how the errors of rows grow with the distance in time."""
    errors = {}
    for name in rows:
        edits = torch.load(kept_file(options, name)).float() / 255
        errors[name] = np.array(
            [
                [
                    mean_error(edits[:, number], world.correspondence(clip, apart))
                    for apart in DISTANCES
                ]
                for number, clip in enumerate(tqdm(clips, desc=name, unit="clip"))
            ]
        )
    return growth(errors, DISTANCES)


def steadiness(rows: dict[str, dict[str, np.ndarray]]) -> str:
    """Return a table of the errors, also as multiples of the floor's."""
    heads = ["setting", "warp error x 1000, 1 apart", "far apart", "of the floor, 1 apart", "far"]
    heads += ["gain over plain, 1 apart", "far"]
    written = []
    for name, measures in rows.items():
        cells = [table_cell(interval(measures[key]), 1000) for key in ("near", "far")]
        cells += [table_cell(_ratio(measures, rows[FLOOR], key)) for key in ("near", "far")]
        if PLAIN in rows:
            cells += [table_cell(_ratio(rows[PLAIN], measures, key)) for key in ("near", "far")]
        written.append([name, *cells])
    return table(heads, written)


def _ratio(measures: dict[str, np.ndarray], over: dict[str, np.ndarray], key: str) -> Interval:
    return interval(measures[key], over[key])


def lines(name: str, rows: dict[str, dict[str, np.ndarray]]) -> Iterator[str]:
    """Yield one row of both tables, as soon as it is known."""
    known = {key: rows[key] for key in (FLOOR, PLAIN, name) if key in rows}
    yield steadiness(known).splitlines()[-1]
    yield (guards(known, PLAIN).splitlines() or [""])[-1]


if __name__ == "__main__":
    main()
