"""Measure how much steadier fusion along the motion makes clips, and what it costs.

It edits clips of the small world with the demo model, all frames per step and without cross-frame
attention, and mixes the predicted clean latents along the exact motion, along the estimated one,
and along that of scikit-image's TV-L1.

    python tools/module.py benchmarks.fusion --output build/fusion
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..demo import world
from ..demo.exact_motion import ExactMotion
from ..demo.judge import Truth
from ..demo.looks import MOODS, describe
from ..demo.shipped import load_pipeline
from ..latents.fuse import fuse_clip
from ..motion import EstimatedMotion, Motion, shrunk_to
from .consistency import guards, measure, options_parser, random_clips, steadiness
from .motion import ScikitTVL1

PLAIN = "plain, different noise"
END = 0.8  # the share of the denoising in which frames are fused

Motions = Callable[[world.Clip, Tensor], Motion]


def estimated(clip: world.Clip, source: Tensor) -> Motion:
    """Return the motion that the pack estimates."""
    return EstimatedMotion(shrunk_to(128, source), (world.SIZE, world.SIZE))


def by_scikit(clip: world.Clip, source: Tensor) -> Motion:
    """Return the motion of TV-L1, chained, with the same checks."""
    return EstimatedMotion(shrunk_to(128, source), (world.SIZE, world.SIZE), ScikitTVL1())


# The motion to fuse along, with the frames that each frame is fused to.
ROWS: dict[str, tuple[Motions | None, Callable[[int], list[int]]]] = {
    PLAIN: (None, lambda frame: []),
    "same noise": (None, lambda frame: []),
}
for _name, _motions in (
    ("exact motion", lambda clip, source: ExactMotion(clip)),
    ("estimated motion", estimated),
    ("TV-L1", by_scikit),
):
    ROWS[f"{_name}, keyframes 0, 4, 7"] = (_motions, lambda frame: [0, 4, 7])
    ROWS[f"{_name}, first + previous"] = (_motions, lambda frame: [0, frame - 1])


def main() -> None:
    options = options_parser(__doc__, output="build/fusion", clips=10, frames=8, seeds=2)
    chosen = options.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    clips = random_clips(chosen.clips, chosen.frames)
    truths = [Truth.of(clip, 6) for clip in clips]
    pipeline, rows = load_pipeline(), {}
    for name, (motions, fused_to) in ROWS.items():
        edits = []
        for seed in range(chosen.seeds):
            painted = []
            for number, clip in enumerate(tqdm(clips, desc=name)):
                source = world.render(clip, world.PLAIN)
                motion = motions(clip, source) if motions else None
                prompt = describe(list(MOODS)[number % len(MOODS)], {})
                noise = noise_of(chosen.frames, 1000 * seed + number, name == PLAIN)
                painted.append(paint(pipeline, source, prompt, noise, motion, fused_to, chosen))
            edits.append(torch.stack(painted))
        rows[name] = measure(torch.stack(edits), truths)
    tables = f"{steadiness(rows, PLAIN)}\n{guards(rows, PLAIN)}"
    (chosen.output / "fusion.md").write_text(tables)
    print(tables)


def noise_of(frames: int, seed: int, different: bool) -> Tensor:
    """Return the noise of all frames, (frames, 4, h, w): one, or different ones."""
    generator = torch.Generator().manual_seed(seed * 100_003)
    side = world.SIZE // 2
    noise = torch.randn(frames, 4, side, side, generator=generator)
    return noise if different else noise[:1].expand(frames, -1, -1, -1)


@torch.inference_mode()
def paint(
    pipeline: Any,
    source: Tensor,
    prompt: str,
    noise: Tensor,
    motion: Motion | None,
    fused_to: Callable[[int], list[int]],
    options: Any,
) -> Tensor:
    """Paint a clip by DDIM from pure noise, (frames, 3, SIZE, SIZE), and fuse it on the way."""
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(options.steps)
    keys = [frame for frame in fused_to(1) if frame < len(source)]
    order = [*keys, *(frame for frame in range(len(source)) if frame not in keys)]
    text = pipeline.encode_prompt(prompt, "cpu", 1, False)[0].expand(len(source), -1, -1)
    latents = noise * scheduler.init_noise_sigma
    for step, time in enumerate(scheduler.timesteps):
        down, middle = pipeline.controlnet(
            latents, time, text, controlnet_cond=source, return_dict=False
        )
        v = pipeline.unet(
            latents,
            time,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        signal = scheduler.alphas_cumprod[time].sqrt()
        rest = (1 - scheduler.alphas_cumprod[time]).sqrt()
        x0 = signal * latents - rest * v
        if motion is not None and step < END * len(scheduler.timesteps):
            x0 = fuse_clip(x0, order, fused_to, motion, 0.5)
        error = (latents - signal * x0) / rest
        earlier = time - scheduler.config.num_train_timesteps // options.steps
        last = scheduler.final_alpha_cumprod
        kept = scheduler.alphas_cumprod[earlier] if earlier >= 0 else last
        latents = kept.sqrt() * x0 + (1 - kept).sqrt() * error
    scaled = latents / pipeline.vae.config.scaling_factor
    return (pipeline.vae.decode(scaled).sample / 2 + 0.5).clamp(0, 1)


if __name__ == "__main__":
    main()
