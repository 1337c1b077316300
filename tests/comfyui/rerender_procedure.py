"""Rerender A Video's procedure, written down plainly in diffusers: what the node is compared with.

Nothing of crossframe is used here. Each frame is painted with DDIM steps, from the first to the
last in both passes; self-attention is the article's (`article.py`). Where the published code has a
fault, this does what the paper says:

- Stages act in parts of the steps that are taken. The published code counts steps that a lower
  strength leaves out, so its shape fusion never acts.
- The target of pixel fusion is not multiplied by its mask; the mask is its weight. The published
  code does both, which pulls soft edges to a latent of zeros.
- Warping is bilinear, and the noise of re-noising comes from the seed alone.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from article import ArticleProcedure
from torch.nn import functional


@dataclass(frozen=True)
class Drift:
    """Everything moves by so many pixels per frame; a band of rows is hidden between two frames.

    It is a motion for the node, and `flow` and `occluded` tell the procedure the same.
    """

    frames: int
    side: int
    step: tuple[float, float] = (2.5, -1.0)

    @property
    def size(self):
        return self.side, self.side

    @property
    def fingerprint(self):
        return repr(self)

    def flow(self, frame, other):
        """How far things of a frame lie away in another one, in pixels: (x, y)."""
        return tuple(s * (other - frame) for s in self.step)

    def occluded(self, frame, other):
        """(side, side): 1 where a pixel of a frame is hidden in the other one, else 0."""
        x, y = self.flow(frame, other)
        centres = torch.arange(self.side) + 0.5
        inside_x = (centres + x > 0) & (centres + x < self.side)
        inside_y = (centres + y > 0) & (centres + y < self.side)
        hidden = ~(inside_y[:, None] & inside_x[None])
        start = 11 * frame % (self.side // 2)
        hidden[start : start + 9] = True
        return hidden.float()

    def between(self, frame, other, grid=None):
        from crossframe.motion import PairMotion

        rows, columns = grid or self.size
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        scale = columns / self.side
        moved = torch.tensor(self.flow(frame, other)) * scale
        positions = torch.stack([x, y], dim=-1) + 0.5 + moved
        shown = 1 - self.occluded(frame, other)
        trust = functional.adaptive_avg_pool2d(shown[None], (rows, columns))[0]
        return PairMotion(positions, trust)


@dataclass(frozen=True)
class Stages:
    """Which stages act, as ranges of step numbers."""

    shape: range = range(0)
    adain: range = range(0)
    pixels: range = range(0)
    strength: float = 0.5


class Procedure:
    """The procedure for one clip.

    pipeline: a diffusers pipeline with a ControlNet. predict: (x, sigma, frame) -> the guided clean
    latent. sigmas: noise levels, the last one 0. noise: of the first step, (1, channels, h, w).
    latents: of the source, scaled as the U-Net sees them. seed: that of the noise of re-noising.
    """

    def __init__(self, pipeline, predict, sigmas, noise, latents, motion, stages, seed):
        self.vae, self.unet = pipeline.vae, pipeline.unet
        self.scale = pipeline.vae.config.scaling_factor
        self.predict, self.sigmas, self.noise, self.latents = predict, sigmas, noise, latents
        self.motion, self.stages, self.seed = motion, stages, seed
        self.article = ArticleProcedure(self.unet)
        self.first_x0 = []

    def paint(self, frames):
        self.article.install()
        latents, pictures = [], []
        for frame in range(frames):
            x = self.one_pass(frame, record=frame == 0)
            if frame and self.stages.pixels:
                target, mask = self.target(frame, self.decode(x), pictures)
                x = self.one_pass(frame, target=target, mask=mask)
            latents.append(x)
            pictures.append(self.decode(x))
        self.article.remove()
        return torch.cat(latents) / self.scale, torch.cat(pictures)

    def one_pass(self, frame, record=False, target=None, mask=None):
        self.article.start_frame(frame)
        generator = torch.Generator().manual_seed(self.seed)
        torch.randn(self.noise.shape[1:], generator=generator)
        x = self.latents[frame] + self.sigmas[0] * self.noise
        clean = None
        for step, (sigma, following) in enumerate(pairwise(self.sigmas)):
            if target is not None and step in self.stages.pixels:
                fresh = torch.randn(self.noise.shape, generator=generator)
                weight = self.stages.strength * mask
                kept = torch.maximum(1 - weight, 0.9 * (1 - weight**2).sqrt())
                if clean is None:  # before the first step, the model has found no noise yet
                    clean = x
                direction = x - clean
                noised = target + sigma * fresh
                x = weight * noised + (1 - weight) * clean + kept * direction
            clean = self.predict(x, sigma, frame)
            eps = (x - clean) / sigma
            if record:
                self.first_x0.append(clean)
            if frame:
                clean = self.held(clean, step, frame)
            x = clean + following * eps
        return x

    def held(self, x0, step, frame):
        if step in self.stages.adain:
            first = self.first_x0[step]
            mean = first.mean(dim=(2, 3), keepdim=True)
            deviation = (first.var(dim=(2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
            x0 = functional.instance_norm(x0) * deviation + mean
        if step in self.stages.shape:
            soft = self.soft(self.motion.occluded(frame, 0))
            mask = 1 - functional.max_pool2d(soft, self.motion.side // x0.shape[-1])
            moved = self.warp(self.first_x0[step], frame, 0)
            x0 = moved * mask + (1 - mask) * x0
        return x0

    def target(self, frame, direct, pictures):
        previous, first = (self.motion.occluded(frame, other) for other in (frame - 1, 0))
        fused = direct
        for other, hidden in ((frame - 1, previous), (0, first)):
            soft = self.soft(hidden)
            fused = (1 - soft) * self.warp(pictures[other], frame, other) + soft * fused
        both = 1 - ((1 - previous) + (1 - first)).clamp(0, 1)
        cells = direct.shape[-1] // self.latents.shape[-1]
        mask = 1 - functional.max_pool2d(self.soft(both), cells)
        z = self.encode(fused)
        error = z - self.encode(self.decode(z * self.scale))
        wrong = (self.decode((z + error) * self.scale) - fused).abs().mean(dim=1, keepdim=True)
        wrong = functional.max_pool2d((wrong > 0.125).float(), cells)
        wrong = functional.max_pool2d(wrong, 3, stride=1, padding=1)
        return (z + (1 - wrong) * error) * self.scale, mask

    def soft(self, hidden):
        """(side, side) -> (1, 1, side, side)"""
        hidden = hidden[None, None]
        wide = functional.max_pool2d(hidden, 9, stride=1, padding=4)
        weights = torch.exp(-0.5 * (torch.arange(-4.0, 5.0) / 18) ** 2)
        kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2
        blurred = functional.conv2d(functional.pad(wide, (4, 4, 4, 4), mode="reflect"), kernel)
        return (blurred + hidden).clamp(0, 1)

    def warp(self, values, frame, other):
        """Values of another frame where this one shows the same; (1, c, h, w)."""
        rows, columns = values.shape[-2:]
        x, y = (s * columns / self.motion.side for s in self.motion.flow(frame, other))
        vertical = (torch.arange(rows) + 0.5 + y) / rows * 2 - 1
        horizontal = (torch.arange(columns) + 0.5 + x) / columns * 2 - 1
        grid_y, grid_x = torch.meshgrid(vertical, horizontal, indexing="ij")
        grid = torch.stack([grid_x, grid_y], dim=-1)[None]
        return functional.grid_sample(values, grid, padding_mode="border", align_corners=False)

    def encode(self, picture):
        """A picture, (1, 3, H, W) in 0..1, as the VAE gives latents."""
        return self.vae.encode(picture * 2 - 1).latent_dist.mean

    def decode(self, x):
        return (self.vae.decode(x / self.scale).sample / 2 + 0.5).clamp(0, 1)
