"""ControlNet img2img on every frame of a clip, with cross-frame attention."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import StableDiffusionControlNetImg2ImgPipeline
from diffusers.models import MultiControlNetModel
from diffusers.utils import BaseOutput
from torch import Tensor

from ..frame_noise import FRAME_NOISE, SAME
from .attention import Clip, cross_frame_attention
from .choices import chosen
from .sizes import check_sizes
from .unet import uncompiled


@dataclass
class CrossFrameVideoOutput(BaseOutput):
    """What `CrossFrameVideoPipeline` returns.

    frames: a list of PIL images, or an array or tensor with one row per frame, as `output_type`
        says.
    nsfw_content_detected: one flag per frame, or None without a checker.
    """

    frames: list[PIL.Image.Image] | np.ndarray | Tensor
    nsfw_content_detected: list[bool] | None


class CrossFrameVideoPipeline(StableDiffusionControlNetImg2ImgPipeline):
    """ControlNet img2img on every frame of a clip, with cross-frame attention.

    It takes the same components as its parent, e.g. `CrossFrameVideoPipeline.from_pipe(pipeline)`.
    """

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        images: Any = None,
        control_images: Any = None,
        references: str = "first + previous",
        include_self: bool = False,
        layers: str = "up",
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        frame_noise: str = SAME,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        latents: Tensor | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> CrossFrameVideoOutput | tuple:
        """Edit a clip.

        images, control_images: the frames, each as a list of PIL images, or as an array or tensor
            with one row per frame. With several ControlNets, control_images is a list with such
            frames for each of them.
        prompt, negative_prompt: one text for all frames, or a list with one per frame.
        prompt_embeds, negative_prompt_embeds, latents: tensors with one row for all frames, or
            one per frame.
        references, include_self, layers, start_percent, end_percent: see `cross_frame_attention`.
        frame_noise: "same for every frame" draws the same random numbers for every frame,
            which keeps texture in place; the generator ends in the state after one frame.
            "different per frame" lets the generator continue from frame to frame.
        kwargs: everything else that the parent's call takes.
        Returns the frames; fewer than given if a callback interrupted the pipeline.
        Raises ValueError, before any frame is painted, if numbers or sizes of frames differ or
        an argument does not fit a clip.
        """
        chosen("frame_noise", frame_noise, dict.fromkeys(FRAME_NOISE))
        if num_images_per_prompt != 1:
            raise ValueError(
                f"a call edits 1 clip; num_images_per_prompt must be 1, not {num_images_per_prompt}"
            )
        generator = _one_generator(generator)
        frames = _count_frames("images", images)
        shared_or_per_frame = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "latents": latents,
        }
        self._check_lengths(frames, control_images, shared_or_per_frame)
        # Given latents take the place of the images.
        start = {"images": images} if latents is None else {"latents": latents}
        controls = self._frames_by_net(control_images)
        sides = kwargs.get("height"), kwargs.get("width")
        check_sizes({**start, **controls}, self.image_processor, *sides)

        attention = cross_frame_attention(
            self, frames, references, include_self, layers, start_percent, end_percent, 1
        )

        def inputs_of(frame: int) -> dict[str, Any]:
            rows = {name: _shared_or_row(v, frame) for name, v in shared_or_per_frame.items()}
            control_image = self._control_image(control_images, frame)
            return {"image": _row(images, frame), "control_image": control_image, **rows, **kwargs}

        output = self._paint(attention, frames, inputs_of, generator, frame_noise == SAME)
        return output if return_dict else (output.frames, output.nsfw_content_detected)

    def _paint(
        self,
        attention: AbstractContextManager[Clip],
        frames: int,
        inputs_of: Callable[[int], dict[str, Any]],
        generator: torch.Generator,
        one_noise: bool,
    ) -> CrossFrameVideoOutput:
        """Paint one frame after another.

        attention: the context in which the U-Net has cross-frame attention. inputs_of: gives the
        arguments of the parent's call for a frame. one_noise: whether every frame draws the same
        random numbers.
        """
        painted: list[Any] = []
        nsfw: list[Any] = []
        noise_state = generator.get_state()
        with attention as clip, self._one_progress_bar(frames) as progress_bar:
            for frame in range(frames):
                clip.start_frame(frame)
                if one_noise:
                    generator.set_state(noise_state)
                picture, flags = super().__call__(
                    generator=generator, return_dict=False, **inputs_of(frame)
                )
                if self.interrupt:
                    break
                painted.append(picture)
                nsfw.extend(flags or [])
                progress_bar.update()
        return CrossFrameVideoOutput(_joined(painted), nsfw or None)

    def _check_lengths(self, frames: int, control_images: Any, others: Mapping[str, Any]) -> None:
        """Raise ValueError unless everything with one part per frame has as many as `images`."""
        by_net = self._frames_by_net(control_images)
        counts = {name: _count_frames(name, of_net) for name, of_net in by_net.items()}
        counts |= {name: len(value) for name, value in others.items() if not _is_shared(value)}
        for name, count in counts.items():
            if count != frames:
                raise ValueError(f"{name} has {count} frames, images has {frames}")

    def _frames_by_net(self, control_images: Any) -> dict[str, Any]:
        """Return the control frames of each ControlNet, by a name.

        Raises ValueError unless there are frames for each of several ControlNets.
        """
        if not self._has_several_controlnets():
            return {"control_images": control_images}
        nets = len(uncompiled(self.controlnet).nets)
        if not isinstance(control_images, (list, tuple)) or len(control_images) != nets:
            raise ValueError(
                f"control_images must be a list with the frames for each of {nets} ControlNets"
            )
        return {f"control_images[{net}]": of_net for net, of_net in enumerate(control_images)}

    def _control_image(self, control_images: Any, frame: int) -> Any:
        """Return one frame's control image, or a list of them for several ControlNets."""
        if self._has_several_controlnets():
            return [_row(of_net, frame) for of_net in control_images]
        return _row(control_images, frame)

    def _has_several_controlnets(self) -> bool:
        return isinstance(uncompiled(self.controlnet), MultiControlNetModel)

    @contextmanager
    def _one_progress_bar(self, frames: int) -> Iterator[Any]:
        """Show one bar over all frames instead of one bar over the steps of each frame."""
        with self.progress_bar(total=frames) as bar:
            config = self._progress_bar_config
            self.set_progress_bar_config(**{**config, "disable": True})
            try:
                yield bar
            finally:
                self.set_progress_bar_config(**config)


def _one_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return the generator, or a new one that follows `torch.manual_seed`."""
    if generator is None:
        return torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be one torch.Generator, not a {type(generator).__name__}; "
            "frame_noise says how the frames share it"
        )
    return generator


def _count_frames(name: str, frames: Any) -> int:
    """Return how many frames there are. Raises ValueError if it is not a sequence of frames."""
    if not isinstance(frames, (list, tuple)) and getattr(frames, "ndim", None) != 4:
        raise ValueError(
            f"{name} must be a list of PIL images, or an array or tensor with one row per "
            f"frame, not {type(frames).__name__}"
        )
    return len(frames)


def _row(frames: Any, frame: int) -> Any:
    """Return one frame: an element of a list, or (1, ...) of an array or tensor (frames, ...)."""
    return frames[frame] if isinstance(frames, (list, tuple)) else frames[frame : frame + 1]


def _is_shared(value: Any) -> bool:
    """Return whether a value is the same for all frames: None, one text, or a tensor of one row."""
    one_row = isinstance(value, Tensor) and len(value) == 1
    return value is None or isinstance(value, str) or one_row


def _shared_or_row(value: Any, frame: int) -> Any:
    """Return a frame's part of a value that may be shared."""
    return value if _is_shared(value) else _row(value, frame)


def _joined(pictures: list) -> Any:
    """Join the pictures of single frames, which are lists of PIL images, or arrays or tensors."""
    if pictures and isinstance(pictures[0], Tensor):
        return torch.cat(pictures)
    if pictures and isinstance(pictures[0], np.ndarray):
        return np.concatenate(pictures)
    return [picture for of_frame in pictures for picture in of_frame]
