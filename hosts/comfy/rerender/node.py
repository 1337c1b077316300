"""The work of the CrossFrameRerender node."""

from dataclasses import dataclass
from typing import Any

import comfy.samplers
from torch import Tensor

from ....attention import PaintingOrder
from ..encoding import encode_frames
from ..errors import BadInputError
from ..model.carried import settings_of
from ..model.motion import checked_motion
from ..orders.checks import check_carries
from ..orders.sampler_nodes import Sampled, sample_ksampler, schedule
from ..propagate import check_motion, check_values
from ..state.continuation import Continuation
from .passes import Rerendering
from .pictures import Pictures
from .single_steps import takes_single_steps
from .stages import Part, Stages

MOTION_OF_IMAGES = (
    "Connect the motion of these images: that of CrossFrameMotion, or that of CrossFrameKeyframes "
    "if they are its images."
)


@dataclass(frozen=True)
class Rerendered:
    """What a sampling gives: latents with a report, and pictures, (frames, height, width, 3)."""

    sampled: Sampled
    pictures: Tensor


@dataclass(frozen=True)
class ChosenStages:
    """What the user chose about stages, as the node's inputs give it. See `Stages`."""

    shape_fusion_start: float = 0.0
    shape_fusion_end: float = 0.1
    adain_start: float = 0.8
    adain_end: float = 1.0
    pixel_fusion_start: float = 0.5
    pixel_fusion_end: float = 0.8
    pixel_fusion_strength: float = 0.5
    keep_colors: bool = True

    def resolved(self) -> Stages:
        """Return the stages."""
        return Stages(
            Part("shape_fusion", self.shape_fusion_start, self.shape_fusion_end),
            Part("adain", self.adain_start, self.adain_end),
            Part("pixel_fusion", self.pixel_fusion_start, self.pixel_fusion_end),
            self.pixel_fusion_strength,
            self.keep_colors,
        )


def sample_rerender(
    model,
    vae,
    images: Tensor,
    chosen: ChosenStages,
    motion: Any = None,
    latent_image: dict | None = None,
    resuming_node=None,
    **sampling: Any,
) -> Rerendered:
    """Paint a clip frame by frame, in one pass or two.

    images: the source, (frames, height, width, channels). sampling: further arguments of
    `sample_ksampler`. Raises BadInputError before any sampling.
    """
    stages = chosen.resolved()
    pictures = Pictures(vae)
    pictures.check(images)
    check_values("images", images)
    stages.check(motion is not None, len(images))
    if motion is not None:
        motion = checked_motion(motion)
        check_motion(motion, images, "images", MOTION_OF_IMAGES)
    _check_model(model, len(images))
    _check_sampler(model, stages, sampling)
    _check_latent(latent_image, images, vae, stages)
    passes = Rerendering(stages, motion, pictures, images[..., :3])
    latent = latent_image or {"samples": encode_frames(images, vae)}
    sampled = sample_ksampler(
        model=model, latent=latent, resuming_node=resuming_node, passes=passes, **sampling
    )
    return Rerendered(sampled, passes.clip())


def _check_model(model, frames: int) -> None:
    """Raise BadInputError unless a MODEL's frames can be painted one by one, and are not fused."""
    check_carries(model.model_options)
    settings = settings_of(model.model_options)
    if settings.fusion is not None:
        raise BadInputError(
            "model",
            "its frames are fused by CrossFrameFusion, and this node fuses frames itself.",
            "Connect the MODEL from before CrossFrameFusion.",
        )
    continuation = Continuation(settings.state)
    stop = continuation.first + frames
    policy = continuation.policy(settings.policy, stop)
    order = PaintingOrder.of(policy, stop, continuation.first, False)
    if max(map(len, order.groups)) > 1:
        raise BadInputError(
            "model",
            f"its frames look at {policy.name}, which are painted together. Here, frames are "
            "painted one after another.",
            "Choose 'first + previous', 'first' or 'previous' as references of "
            "CrossFrameAttention.",
        )


def _check_sampler(model, stages: Stages, sampling: dict[str, Any]) -> None:
    """Raise BadInputError if something is to happen between steps that cannot be taken singly."""
    name = sampling["sampler_name"]
    sigmas = schedule(model, sampling["steps"], name, sampling["scheduler"], sampling["denoise"])
    count = len(sigmas) - 1
    stops = stages.stops(count)
    if count < 2 or not stops:
        return
    if not takes_single_steps(comfy.samplers.sampler_object(name), model, sigmas, stops):
        raise BadInputError(
            "sampler_name",
            f"{name} plans several steps at once, so nothing can happen between them.",
            "Choose another sampler, such as ddim.",
        )


def _check_latent(latent: dict | None, images: Tensor, vae: Any, stages: Stages) -> None:
    if latent is None:
        return
    if len(latent["samples"]) != len(images):
        raise BadInputError(
            "latent_image",
            f"it holds {len(latent['samples'])} frames, but there are {len(images)} images.",
            "Encode the same frames, or disconnect it: the images are then encoded here.",
        )
    ratio = vae.spacial_compression_encode()
    wanted = tuple(side // ratio for side in images.shape[1:3])
    if tuple(latent["samples"].shape[-2:]) != wanted:
        rows, columns = latent["samples"].shape[-2:]
        raise BadInputError(
            "latent_image",
            f"it has {columns} x {rows} cells, but latents of these images have {wanted[1]} x "
            f"{wanted[0]}.",
            "Encode the same images, or disconnect it: they are then encoded here.",
        )
    if not stages.keeps_colours:
        raise BadInputError(
            "keep_colors",
            "it is off, so the images are encoded with other colours, and latent_image does "
            "nothing.",
            "Switch it on, or disconnect latent_image.",
        )
