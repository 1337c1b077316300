"""A context manager that adds cross-frame attention to any U-Net pipeline for one clip.

diffusers paints one frame per pipeline call, so this host works frame by frame. The run lives as
long as the context and keeps hidden states by model evaluation. They enter through an argument
that every attention processor has: if `encoder_hidden_states` is given, keys and values are
projected from it instead of from the frame's own hidden states.

    with cross_frame_attention(pipeline, frames=len(images)) as clip:
        for frame, image in enumerate(images):
            clip.start_frame(frame)
            pipeline(prompt, image=image, ...)
"""

import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from ...attention import (
    LAYER_SETS,
    REFERENCES,
    WITH_KEYFRAMES,
    Evaluation,
    FrameByFrame,
    Layer,
    PaintingOrder,
    Run,
    reference_policy,
)
from ...attention.bank import Key
from ...attention.references import Policy
from .calls import Brought, check_alike, check_pictures, conds_per_picture
from .choices import chosen
from .unet import find_unet, self_attention_layers

# Keyframes would have to be painted together, and here frames come one by one.
LOOKING_BACK = {name: name for name in REFERENCES if name not in WITH_KEYFRAMES}
LAST_TIMESTEP = 999.0  # the timestep with the most noise in Stable Diffusion

log = logging.getLogger("crossframe")


class CrossFrameProcessor:
    """An attention processor that gives another one the tokens of reference frames.

    wrapped: the other processor.
    context_of: turns hidden states (rows, tokens, channels) into the key/value tokens of the
        same rows, (rows, k * tokens, channels).
    """

    def __init__(self, wrapped: Callable[..., Tensor], context_of: Callable[[Tensor], Tensor]):
        self.wrapped = wrapped
        self.context_of = context_of

    @property
    def __call__(self) -> Callable[..., Tensor]:
        """The call, with the signature of the wrapped processor.

        diffusers passes on only those `cross_attention_kwargs` that the signature names.
        """
        signature: Any = self.wrapped.__call__  # type: ignore[operator]  # objects have one, too
        return functools.update_wrapper(functools.partial(self._process), signature)

    def _process(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        # An attn1 that already attends elsewhere (latent upscaler) is not self-attention.
        if encoder_hidden_states is None:
            encoder_hidden_states = self.context_of(hidden_states)
        return self.wrapped(attn, hidden_states, encoder_hidden_states, *args, **kwargs)

    def __repr__(self) -> str:
        return f"CrossFrameProcessor({type(self.wrapped).__name__})"


class Clip:
    """A clip that is being painted, one frame after another, on a U-Net.

    Call `start_frame` before each pipeline call; `cross_frame_attention` does the rest.
    """

    def __init__(
        self,
        policy: Policy,
        frames: int,
        attentions: Mapping[Layer, Attention],
        timesteps: tuple[float, float] = (math.inf, -math.inf),
        clips: int | None = None,
        pipeline: Any = None,
    ):
        """timesteps: the first and the last timestep in which frames attend to their references.

        clips: how many clips are painted side by side, or None if that was not given. pipeline: the
        pipeline that the U-Net belongs to, or the U-Net itself.
        """
        if frames < 1:
            raise ValueError(f"a clip has at least 1 frame, not {frames}")
        if clips is not None and clips < 1:
            raise ValueError(f"a call paints a frame of at least 1 clip, not of {clips}")
        self.policy = policy
        self.frames = frames
        self.attentions = attentions
        self.timesteps = timesteps
        self.clips = clips
        self.pipeline = pipeline
        self.processors = {
            layer: CrossFrameProcessor(attn1.processor, functools.partial(self._context_of, layer))
            for layer, attn1 in attentions.items()
        }
        self.lead: FrameByFrame | None = None
        self._evaluation: Evaluation | None = None
        self._resting = False
        self._brought: list[Brought] = []  # the batch of every evaluation of frame 0

    def start_frame(self, frame: int) -> None:
        """Announce that the next pipeline call paints this frame (0-based).

        Frames must come in order and without gaps. Frame 0 begins the clip again.
        Raises ValueError for a frame out of order or beyond the clip, RuntimeError if the U-Net
        was not called for the frame before, StepMismatchError if the frame before took another
        number of model evaluations than frame 0.
        """
        expected = 0 if self.lead is None else self.lead.group + 1
        if frame not in (0, expected) or frame >= self.frames:
            more = "frames come in order" if expected < self.frames else "the clip has no more"
            raise ValueError(
                f"frame {frame} cannot start: {expected} of {self.frames} frames have been "
                f"started, and {more}; cross_frame_attention(frames=...) says how many there are"
            )
        if frame == 0 or self.lead is None:
            order = PaintingOrder.of(self.policy, self.frames)
            self.lead, self._brought = FrameByFrame(Run(self.policy, order)), []
        elif self.painted < frame:
            raise RuntimeError(
                f"frame {frame - 1} was started, but the U-Net was not called for it; call a "
                "pipeline with the U-Net that cross_frame_attention was given, once per frame"
            )
        self.lead.next_group()  # it is one frame, because the named policies only look back
        self._evaluation = None

    @property
    def painted(self) -> int:
        """The number of frames that the U-Net was called for, including unfinished ones."""
        return 0 if self.lead is None else self.lead.group + (self.lead.step >= 0)

    def warn_unpainted(self) -> None:
        """Log a warning if the clip is left before all of its frames are painted."""
        if self.painted < self.frames:
            log.warning(
                "Cross-frame attention: the clip was left with %d of its %d frames painted. Call "
                "start_frame(i) and then the pipeline for every frame.",
                self.painted,
                self.frames,
            )

    def close(self) -> None:
        """Drop everything that was kept of the clip."""
        self.lead = self._evaluation = None

    # Steps and kept hidden states change with every call, so a compiler must not fix them.
    @torch.compiler.disable
    def begin_evaluation(self, unet: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """Count one evaluation of the U-Net (a forward pre-hook).

        Evaluations are addressed by their ordinal, because a scheduler may make more evaluations
        than steps (PNDM) or visit a timestep again with another sample (Heun).
        Raises RuntimeError if no frame was started, if a frame is painted a second time or if
        processors were replaced, ValueError if the batch cannot belong to one frame,
        StepMismatchError for other steps than those of frame 0.
        """
        if self.lead is None:
            raise RuntimeError("call start_frame(0) before the first pipeline call of a clip")
        replaced = [
            layer
            for layer, attn1 in self.attentions.items()
            if attn1.processor is not self.processors[layer]
        ]
        if replaced:
            raise RuntimeError(
                f"the attention processors of {len(replaced)} layers were replaced inside "
                "cross_frame_attention; set processors before entering it (perturbed-attention "
                "pipelines replace them at every call and do not work with it)"
            )
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        timestep = float(torch.as_tensor(timestep).flatten()[0])
        self._check_call(self.lead, Brought.of(args, kwargs), timestep)
        first, last = self.timesteps
        self.lead.next_step(timestep)
        self._resting = not last <= timestep <= first
        self._evaluation = self.lead.evaluate(self.attentions)

    def _check_call(self, lead: FrameByFrame, brought: Brought, timestep: float) -> None:
        """Raise an error unless the U-Net's batch fits the current frame's next evaluation."""
        (frame,) = lead.frames
        before = lead.noise_levels[: lead.step + 1]  # this frame's levels so far
        if timestep in before[:1] and set(before) != {timestep}:
            raise RuntimeError(
                f"frame {frame} is being painted a second time: the U-Net is back at its first "
                "timestep. Call start_frame before each pipeline call, once per frame"
            )
        if frame > 0:
            for first in self._brought[len(before) : len(before) + 1]:
                check_alike(first, brought, frame, getattr(self.pipeline, "vae_scale_factor", None))
            return
        if not before:
            conds = conds_per_picture(self.pipeline)
            check_pictures(brought.rows, self.frames, self.clips, conds)
        self._brought.append(brought)

    def _require_references(
        self, evaluation: Evaluation, layer: Layer, rows: int, tokens: int
    ) -> None:
        """Raise ValueError if a row has nothing to attend to in a layer."""
        (frame,), bank = evaluation.frames, evaluation.run.bank
        for reference in set(evaluation.run.order.references[frame]) - {frame}:
            for row in range(rows):
                if reference not in bank.frames(Key(evaluation.step, layer, row, tokens)):
                    raise ValueError(
                        f"frame {frame} has {rows} rows of {tokens} tokens in layer "
                        f"{tuple(layer)}, but frame {reference} has left none of this size; "
                        "something changes the number of tokens of single frames"
                    )

    @torch.compiler.disable
    def _context_of(self, layer: Layer, hidden_states: Tensor) -> Tensor:
        """Return the key/value tokens of one layer: (rows, tokens, c) -> (rows, k * tokens, c).

        Every row of a frame's batch is its own cond entry, which is the same row in every frame.
        """
        if self._evaluation is None:
            raise RuntimeError("the U-Net must be called as a module, not through its forward()")
        if self._resting:  # no frame attends to references at this step, so nothing is kept
            return hidden_states
        self._require_references(self._evaluation, layer, *hidden_states.shape[:2])
        rows = range(len(hidden_states))
        (tokens,), _ = self._evaluation.gathered(layer, rows, (hidden_states,))
        return tokens

    def __repr__(self) -> str:
        lead = self.lead
        where = "not started" if lead is None else f"frame {lead.group}, {lead.run.bank}"
        return f"Clip({self.frames} frames, {len(self.attentions)} layers, {where})"


@contextmanager
def cross_frame_attention(
    pipeline_or_unet: Any,
    frames: int,
    references: str = "first + previous",
    include_self: bool = False,
    layers: str = "up",
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    clips: int | None = None,
) -> Iterator[Clip]:
    """Give a U-Net cross-frame attention for one clip; it is always taken away at the end.

    Yields a `Clip`. Call its `start_frame(i)` before the pipeline call for frame i. All calls must
    agree in everything that decides which model evaluations are made (scheduler, number of steps,
    strength).

    pipeline_or_unet: a U-Net pipeline of diffusers, or its U-Net.
    frames: the length of the clip.
    references, layers: names in LOOKING_BACK and LAYER_SETS. include_self: whether frames also
        attend to their own tokens.
    start_percent, end_percent: the part of the denoising in which frames attend to their
        references, 0 to 1, as ComfyUI counts it: linear in the training timestep.
    clips: how many independent clips every call paints side by side: the number of prompts times
        the number of images per prompt. It is needed only if that number is `frames` or a
        multiple of it. Without it, such a call is refused, because it looks as if all frames were
        in one call.
    Raises ValueError, before anything is changed, for an unknown name, an empty part of the
    denoising, fewer than 1 frame or clip, an object without such a U-Net, or a U-Net that
    cross-frame attention cannot act on. A pipeline call raises it for pictures that cannot be one
    frame. Logs a warning if the clip is left before all frames are painted.

    This is the attention of Tune-A-Video (Wu et al. 2023), section 3.2, without training as in
    Rerender A Video (Yang et al. 2023), section 4.1.1. There, layers project keys and values of
    a video tensor. Here, hidden states of already painted frames are kept and projected again.
    """
    unet = find_unet(pipeline_or_unet)
    policy = chosen_policy(references, include_self)
    attentions = chosen_layers(unet, layers)
    timesteps = _timesteps(start_percent, end_percent)
    clip = Clip(policy, frames, attentions, timesteps, clips, pipeline_or_unet)
    saved = {layer: attn1.processor for layer, attn1 in attentions.items()}
    hook = unet.register_forward_pre_hook(clip.begin_evaluation, with_kwargs=True)
    try:
        for layer, attn1 in attentions.items():
            attn1.set_processor(clip.processors[layer])
        yield clip
        clip.warn_unpainted()
    finally:
        hook.remove()
        for layer, attn1 in attentions.items():
            attn1.set_processor(saved[layer])
        clip.close()


def _timesteps(start_percent: float, end_percent: float) -> tuple[float, float]:
    """Return the first and the last timestep of a part of the denoising. Raises ValueError."""
    if not 0 <= start_percent < end_percent <= 1:
        raise ValueError(
            f"start_percent {start_percent} must be below end_percent {end_percent}, and both must "
            "be from 0 to 1"
        )
    first = (1 - start_percent) * LAST_TIMESTEP if start_percent > 0 else math.inf
    last = (1 - end_percent) * LAST_TIMESTEP if end_percent < 1 else -math.inf
    return first, last


def chosen_layers(unet: UNet2DConditionModel, layers: str) -> dict[Layer, Attention]:
    """Return the attn1 of a named layer set by address.

    Raises ValueError if cross-frame attention cannot act there.
    """
    every = self_attention_layers(unet)
    if any(isinstance(attn1.processor, CrossFrameProcessor) for attn1 in every.values()):
        raise ValueError("this U-Net already has cross-frame attention; leave that context first")
    layer_set = chosen("layers", layers, LAYER_SETS)
    members = layer_set.of_unet({layer: attn1.to_k.in_features for layer, attn1 in every.items()})
    attentions = {layer: every[layer] for layer in members}
    if not attentions:
        raise ValueError(f"the U-Net has no self-attention (attn1) in its {layers!r} layers")
    for attn1 in attentions.values():
        if type(attn1.processor).__name__.startswith("Fused"):
            raise ValueError(
                "the U-Net's query, key and value projections are fused; call "
                "unfuse_qkv_projections() first"
            )
    return attentions


def chosen_policy(references: str, include_self: bool) -> Policy:
    """Return the named reference policy. Raises ValueError for an unknown name."""
    return reference_policy(chosen("references", references, LOOKING_BACK), include_self)
