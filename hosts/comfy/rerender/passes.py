"""Paint each frame in one pass or two, and keep what later frames are held to."""

from typing import Any

import torch
from torch import Tensor

from ....attention import FrameByFrame
from ....latents.colours import with_colours_of
from ....latents.fidelity import fidelity_encoded
from ....latents.fusion import Predictions
from ....motion import Motion, PairMotion
from ....motion.occlusion import on_cells, soft_occlusion
from ....motion.pixel_fusion import laid_over
from ..orders.frame_by_frame import Painter, Sampling
from ..run.comfy_run import ComfyRun
from ..run.fusion import predictions_in
from ..state.record import Finished, Taken
from .between_steps import with_changes
from .changes import FirstPass, HeldToFirst, Recording, Scaling, SecondPass
from .first_frames import FirstFrames
from .pictures import Pictures
from .stages import Stages


class Rerendering:
    """The passes of one sampling. See `Passes` in `orders/frame_by_frame.py`."""

    def __init__(
        self, stages: Stages, motion: Motion | None, pictures: Pictures, source: Tensor
    ) -> None:
        """source: the frames of the clip, (frames, height, width, 3)."""
        self.stages, self.motion, self.pictures, self.source = stages, motion, pictures, source
        self.keeps = FirstFrames()
        self.count = 0  # the steps of one pass
        self._results: dict[int, Tensor] = {}  # finished latents by place, (1, channels, ..., h, w)
        self._shown: dict[int, Tensor] = {}  # their pictures, (height, width, 3)

    @property
    def contents(self) -> list[Any]:
        """See `Passes`."""
        motion = None if self.motion is None else self.motion.fingerprint
        return [str(self.stages), motion, self.source]

    @property
    def renoised(self) -> range:
        """The steps of the second pass before which the latent is mixed with the fused picture."""
        return self.stages.mixed(self.count)

    @property
    def steps(self) -> int:
        """See `Passes`. The second pass begins where it differs from the first one."""
        return self.count + (self.count - self.renoised.start if self.renoised else 0)

    def begin(self, run: ComfyRun[FrameByFrame], taken: Taken | None, sampling: Sampling) -> None:
        """See `Passes`."""
        facts = run.facts
        frames = range(facts.order.start, facts.order.frames)
        self.count, self._first = sampling.steps, frames.start
        self._anchor = lambda frame: max(facts.policy.scene(frame), frames.start)
        finished = () if taken is None else taken.finished
        for group, (samples, _) in zip(facts.order.groups, finished):
            self._results[group[0] - self._first] = samples
        given: Predictions = {}
        if taken is not None:
            given = predictions_in(taken.state.stored, taken.finished[0][0].shape[1:])
        self.keeps.begin(self._anchor, frames, given)

    def paint(self, painter: Painter) -> Finished:
        """See `Passes`."""
        (frame,) = painter.run.lead.frames
        finished = self._paint(painter, frame, self._anchor(frame))
        self._results[frame - self._first] = finished[0].contiguous()
        return finished

    def clip(self) -> Tensor:
        """Return the pictures of all frames that are painted, (frames, height, width, 3)."""
        return torch.stack([self._picture(place) for place in sorted(self._results)])

    def _paint(self, painter: Painter, frame: int, anchor: int) -> Finished:
        sampler, stops = painter.sampling.sampler, self.stages.stops(self.count)
        if frame == anchor:
            return painter.sample(with_changes(sampler, Recording(self.keeps, frame, stops)))
        place, first = frame - self._first, anchor - self._first
        latent = None if self.stages.keeps_colours else self._recoloured(painter, place, first)
        held = self._held(painter, place, first)
        parting = self.renoised.start if self.renoised else None
        one = FirstPass(held, stops, parting, painter.run)
        finished = painter.sample(with_changes(sampler, one), latent)
        if one.left is None:
            return finished
        target, weight = self._target(painter, self._decoded(finished[0]), place, first)
        painter.run.core.rehearses = False
        painter.repeat_from(one.left.place, one.evaluation)
        two = SecondPass(held, stops, self.renoised, one.left, target, weight)
        return painter.sample(with_changes(sampler, two), latent)

    def _held(self, painter: Painter, place: int, first: int) -> HeldToFirst:
        """Return shape fusion and AdaIN for one frame. first: the place of its scene's first."""
        shape_steps = self.stages.shape_fusion.steps(self.count)
        motion = mask = None
        if shape_steps:
            size, grid = _size(self._picture(first)), _grid(painter.clip.latent)
            motion = self._between(place, first, grid)
            mask = 1 - on_cells(soft_occlusion(self._between(place, first, size).trust), grid)
        return HeldToFirst(
            lambda step: self.keeps.of(step, first + self._first),
            self.stages.adain.steps(self.count),
            shape_steps,
            motion,
            mask,
            _scaling(painter),
        )

    def _target(
        self, painter: Painter, direct: Tensor, place: int, first: int
    ) -> tuple[Tensor, Tensor]:
        """Return the latent that the second pass is pulled to, and by how much in each cell.

        direct: the picture of the first pass, (height, width, 3).
        """
        size = _size(direct)
        others = [
            (self._picture(other), self._between(place, other, size))
            for other in (place - 1, first)
        ]
        fused, hidden = laid_over(direct, others)
        latent = fidelity_encoded(fused[None], self.pictures.encode, self.pictures.decode)
        weight = self.stages.strength * (1 - on_cells(hidden, _grid(latent)))
        return painter.sampling.guider.model_patcher.model.process_latent_in(latent), weight

    def _recoloured(self, painter: Painter, place: int, first: int) -> Tensor:
        """Return the latent of a source frame with the colours of the first result."""
        matched = with_colours_of(self.source[place], self._picture(first))
        return self.pictures.encode(matched[None]).to(painter.clip.latent)

    def _between(self, place: int, other: int, grid: tuple[int, int]) -> PairMotion:
        """Return the motion between two frames of the latent."""
        if self.motion is None:
            raise RuntimeError("a stage needs motion, but there is none")
        return self.motion.between(place, other, grid)

    def _picture(self, place: int) -> Tensor:
        """Return the picture of a finished frame, (height, width, 3)."""
        if place not in self._shown:
            self._shown[place] = self._decoded(self._results[place])
        return self._shown[place]

    def _decoded(self, samples: Tensor) -> Tensor:
        return self.pictures.decode(samples)[0].cpu()


def _grid(latent: Tensor) -> tuple[int, int]:
    """Return the rows and columns of latents, (..., h, w)."""
    return latent.shape[-2], latent.shape[-1]


def _size(picture: Tensor) -> tuple[int, int]:
    """Return the height and width of a picture, (height, width, 3)."""
    return picture.shape[0], picture.shape[1]


def _scaling(painter: Painter) -> Scaling:
    """Return how the model adds noise to latents."""
    sampling = painter.sampling.guider.model_patcher.get_model_object("model_sampling")

    def scaled(sigma: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        noisy: Tensor = sampling.noise_scaling(sigma, noise, latent)
        return noisy

    return scaled
