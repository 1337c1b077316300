"""Edit clips of the small world with the demo model, through the diffusers host."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..hosts.diffusers import cross_frame_attention
from ..hosts.frame_noise import DIFFERENT, SAME

PLAIN_TOGETHER = 8  # frames in one batch if each is painted on its own


@dataclass(frozen=True)
class Setting:
    """How a clip is edited.

    references: None for plain img2img, where each frame is painted on its own. frame_noise: SAME
    or DIFFERENT. The other fields are those of `cross_frame_attention`.
    """

    references: str | None = None
    include_self: bool = False
    layers: str = "all"
    frame_noise: str = SAME
    start_percent: float = 0.0
    end_percent: float = 1.0

    @property
    def name(self) -> str:
        """The name of the setting's row in tables."""
        noise = "same noise" if self.frame_noise == SAME else "different noise"
        if self.references is None:
            return f"plain, {noise}"
        own = " + self" if self.include_self else ""
        part = "" if self.whole else f", {self.start_percent:g} to {self.end_percent:g}"
        return f"{self.references}{own}, {self.layers}{part}, {noise}"

    @property
    def whole(self) -> bool:
        """Whether the setting acts during all of the denoising."""
        return (self.start_percent, self.end_percent) == (0.0, 1.0)


PLAIN = Setting(frame_noise=DIFFERENT)  # all other settings are compared with this one
STEADY = Setting("first")  # the steadiest setting: all layers, one noise for all frames


@dataclass(frozen=True)
class Sampling:
    """The settings that all rows of a table share."""

    steps: int = 16
    strength: float = 1.0
    guidance: float = 1.5


DEFAULT = Sampling()


def edit(
    pipeline: Any,
    clips: Tensor,
    prompts: list[str],
    seeds: list[int],
    setting: Setting,
    sampling: Sampling = DEFAULT,
    progress: bool = True,
) -> Tensor:
    """Edit several clips of one length side by side.

    clips: the sources, (clips, frames, 3, height, width), RGB in 0..1, which also serve as layout
    hints. prompts, seeds: one per clip. Returns edited clips of the same shape.
    """
    frames = clips.shape[1]

    def paint(first: int, count: int = 1) -> Tensor:
        """Paint some frames of all clips; return (clips, count, 3, height, width)."""
        numbers = [0 if setting.frame_noise == SAME else first + n for n in range(count)]
        sources = clips[:, first : first + count].flatten(0, 1)  # (clips * count, 3, h, w)
        painted = pipeline(
            [prompt for prompt in prompts for _ in numbers],
            image=sources,
            control_image=sources,
            num_inference_steps=sampling.steps,
            strength=sampling.strength,
            guidance_scale=sampling.guidance,
            generator=[_generator(seed, number) for seed in seeds for number in numbers],
            output_type="pt",
        ).images
        return painted.unflatten(0, (len(clips), count))

    with tqdm(total=frames, desc=setting.name, unit="frame", disable=not progress) as bar:
        edited = []
        if setting.references is None:  # the frames do not depend on each other
            for first in range(0, frames, PLAIN_TOGETHER):
                edited.append(paint(first, min(PLAIN_TOGETHER, frames - first)))
                bar.update(edited[-1].shape[1])
            return torch.cat(edited, dim=1)
        with cross_frame_attention(
            pipeline,
            frames,
            setting.references,
            setting.include_self,
            setting.layers,
            setting.start_percent,
            setting.end_percent,
            len(clips),
        ) as clip:
            for frame in range(frames):
                clip.start_frame(frame)
                edited.append(paint(frame))
                bar.update()
    return torch.cat(edited, dim=1)


def _generator(seed: int, number: int) -> torch.Generator:
    """Return the generator of a clip's frame; neighbouring seeds share no random numbers."""
    return torch.Generator().manual_seed(seed * 100_003 + number)
