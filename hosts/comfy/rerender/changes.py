"""What happens between the steps of each pass of Rerender A Video."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ....attention import FrameByFrame
from ....latents.adain import adain
from ....latents.renoise import renoised
from ....motion import PairMotion
from ..run.comfy_run import ComfyRun
from .between_steps import Changes, Left
from .first_frames import FirstFrames

# Adds noise to latents as a model does: (sigma, noise, latent) -> noisy latent.
Scaling = Callable[[Tensor, Tensor, Tensor], Tensor]


class Recording(Changes):
    """The one pass of a first frame: its predictions are kept, and nothing is changed."""

    def __init__(self, first: FirstFrames, frame: int, stops: Collection[int]) -> None:
        self.first, self.frame, self.stops = first, frame, stops

    def saw(self, step: int, x0: Tensor) -> None:
        """Keep the prediction of a step."""
        self.first.keep(step, self.frame, x0[0])

    def change(
        self, place: int, x: Tensor, x0: Tensor | None, sigma: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Change nothing."""
        return x, x0


@dataclass(frozen=True)
class HeldToFirst:
    """Shape fusion and AdaIN: the prediction of a step is held to that of the first frame.

    The noise that the model has found stays, as in the paper's equation of DDIM. So the latent
    changes by as much as its clean part. Source: Rerender A Video (Yang et al. 2023), sections
    4.1.2 and 4.1.4, and its published code.

    first: returns the first frame's prediction at a step, (channels, ..., h, w). motion, share:
    from this frame to the first one, and how much of each cell is taken over, (h, w); None if no
    step has shape fusion.
    """

    first: Callable[[int], Tensor]
    adain_steps: range
    shape_steps: range
    motion: PairMotion | None
    share: Tensor | None
    scaling: Scaling

    def __call__(
        self, place: int, x: Tensor, x0: Tensor | None, sigma: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return a latent and its prediction, both changed. See `Changes.change`."""
        step = place - 1
        if x0 is None or not (step in self.adain_steps or step in self.shape_steps):
            return x, x0
        held = self._held(step, x0[0])[None]
        return x + clean(self.scaling, sigma, held) - clean(self.scaling, sigma, x0), held

    def _held(self, step: int, x0: Tensor) -> Tensor:
        """Return the prediction of a step, (channels, ..., h, w), held to that of the first."""
        first = self.first(step).to(x0)
        if step in self.adain_steps:
            x0 = adain(x0, first)
        if step in self.shape_steps and self.motion is not None and self.share is not None:
            share = self.share.to(x0)
            x0 = share * self.motion.to(x0.device).carry(first) + (1 - share) * x0
        return x0


class FirstPass(Changes):
    """The first pass of a later frame. At one place, it leaves what the second pass begins with.

    Up to there both passes are the same, so the second one need not be painted from the start. What
    the first one paints from there on is painted again, and so the run rehearses.
    """

    def __init__(
        self,
        held: HeldToFirst,
        stops: Collection[int],
        parting: int | None,
        run: ComfyRun[FrameByFrame],
    ) -> None:
        """parting: the place where the second pass begins to differ, or None if there is none."""
        self.held, self.stops, self.parting, self.run = held, stops, parting, run
        self.left: Left | None = None
        self.evaluation = -1  # of the model, the last one before the parting

    def change(
        self, place: int, x: Tensor, x0: Tensor | None, sigma: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Hold the prediction to the first frame's."""
        return self.held(place, x, x0, sigma)

    def leave(self, left: Left) -> None:
        """Keep what there is where the passes part."""
        if left.place == self.parting:
            self.left = left
            self.evaluation, self.run.core.rehearses = self.run.lead.step, True


class SecondPass(Changes):
    """The second pass: before some steps, the latent is mixed with a target ("pixel fusion")."""

    def __init__(
        self,
        held: HeldToFirst,
        stops: Collection[int],
        steps: range,
        left: Left,
        target: Tensor,
        weight: Tensor,
    ) -> None:
        """steps: before which the latent is mixed. left: what the first pass has left there.

        target: the latent of the fused picture, as the model sees latents, (1, channels, ..., h,
        w). weight: how much it counts in each cell, (h, w).
        """
        self.held, self.stops, self.steps, self.left = held, stops, steps, left
        self.target, self.weight = target, weight

    def begin(self) -> Left:
        """Begin where the first pass has left something."""
        return self.left

    def change(
        self, place: int, x: Tensor, x0: Tensor | None, sigma: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Hold the prediction to the first frame's, and mix the latent with the target."""
        if place > self.left.place:  # there, the first pass has done it already
            x, x0 = self.held(place, x, x0, sigma)
        if place not in self.steps:
            return x, x0
        scaling = self.held.scaling
        still = x if x0 is None else clean(scaling, sigma, x0)
        # The noise is drawn for this frame and step, whatever the batch (see `noise/row_noise.py`).
        noisy = scaling(sigma, torch.randn_like(x), self.target.to(x))
        return renoised(still, x - still, noisy, self.weight.to(x)), x0


def clean(scaling: Scaling, sigma: Tensor, x0: Tensor) -> Tensor:
    """Return the part of a noisy latent that is not noise."""
    return scaling(sigma, torch.zeros_like(x0), x0)
