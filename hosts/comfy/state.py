"""A state in ComfyUI: hidden states of painted frames, and what they were made with."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from ...attention import State
from ...attention.bank import readable_size
from .conditions import conds_that_run
from .errors import BadInputError
from .settings import KEY, Settings, count_by_block

SIGNS = 16  # weights by which a checkpoint is recognised
TOLERANCE = 1e-3  # of the largest of them; a checkpoint is stored as fp16 here and fp32 there


@dataclass(frozen=True)
class Origin:
    """What a state was made with, as far as frames that go on from it need the same.

    model: its family. weights: some of them. dtype: of hidden states. layers: (block, number,
    transformer, channels, halvings) of each. part: of the denoising in which it acts. latent:
    (channels, height, width). guidance: (name, number) of conds that run. noise: a digest of
    the first frame's.
    """

    model: str
    weights: tuple[float, ...]
    dtype: str
    layers: tuple[tuple, ...]
    part: tuple[float, float]
    sampler: str
    sigmas: tuple[float, ...]
    latent: tuple[int, ...]
    guidance: tuple[tuple[str, int], ...]
    noise: str

    @classmethod
    def of(cls, guider, noise: torch.Tensor, sampler, sigmas: torch.Tensor) -> "Origin":
        """What a sampling is about to be made with. noise: (frames, channels, height, width)."""
        settings: Settings = guider.model_options[KEY]
        model = guider.model_patcher.model
        signs = model.diffusion_model.time_embed[0].weight.detach().flatten()[:SIGNS]
        return cls(
            type(model).__name__,
            tuple(signs.float().tolist()),
            str(model.get_dtype_inference()).removeprefix("torch."),
            tuple((*attn1.layer, attn1.channels, attn1.halvings) for attn1 in settings.layers),
            (settings.start_percent, settings.end_percent),
            sampler_name(sampler),
            tuple(sigmas.tolist()),
            tuple(noise.shape[1:]),
            tuple(conds_that_run(guider).items()),
            digest(noise[:1]),
        )

    def same_weights(self, other: "Origin") -> bool:
        """Whether both models seem to be one checkpoint."""
        most = max(map(abs, self.weights), default=0.0)
        pairs = zip(self.weights, other.weights)
        return all(abs(mine - theirs) <= TOLERANCE * most for mine, theirs in pairs)


@dataclass(frozen=True, repr=False, eq=False)
class ComfyState(State):
    """A state and what it was made with. Socket type CROSS_FRAME_STATE."""

    origin: Origin

    @classmethod
    def of(cls, state: State, origin: Origin) -> "ComfyState":
        """A state with its origin.

        Conds that another node's wrapper brought in have no name that would hold in a later run
        (see `attend`), so what they left is no use.
        """
        kept = {key: kept for key, kept in state.kept.items() if isinstance(key.entry[1], int)}
        return cls(state.frames, state.scene, state.noise_levels, kept, origin)

    def __repr__(self) -> str:
        origin = self.origin
        height, width = origin.latent[-2:]
        held = ", ".join(map(str, sorted(self.held))) or "none"
        return (
            f"CrossFrame state: {self.frames} frames painted, keeps frame {held}; "
            f"{origin.model}, {len(origin.layers)} layers, {origin.sampler}, "
            f"{len(origin.sigmas) - 1} steps, latent {width} x {height}; "
            f"{readable_size(self.nbytes)}"
        )


def check_origin(made: Origin, now: Origin, node: str) -> None:
    """Raise BadInputError, with both values, unless a state fits what is about to be sampled."""
    for what, before, here, fix in _compared(made, now):
        if before != here:
            raise BadInputError(
                node,
                "state",
                f"it was made with {what} {before}, this run has {here}.",
                fix,
            )


def _compared(made: Origin, now: Origin) -> list[tuple[str, Any, Any, str]]:
    """(what, value of the state, value here, what to do), in words."""
    same = "Make both with the same settings."
    steps = (f"{len(made.sigmas) - 1} steps", f"{len(now.sigmas) - 1} steps")
    levels = (_levels(made.sigmas), _levels(now.sigmas))
    checkpoint = "this checkpoint" if made.same_weights(now) else "another checkpoint"
    return [
        ("model", made.model, now.model, "Use the same checkpoint."),
        ("weights of", checkpoint, "this checkpoint", "Use the same checkpoint."),
        ("precision", made.dtype, now.dtype, "Start ComfyUI with the same precision."),
        ("latents of", _size(made.latent), _size(now.latent), "Use frames of one size."),
        ("sampling of", *steps, "Set the same number of steps."),
        ("noise levels", *levels, "Set the same scheduler and denoise."),
        ("sampler", made.sampler, now.sampler, "Choose the same sampler."),
        ("layers", count_by_block(made.layers), count_by_block(now.layers), same),
        ("layers of", _channels(made.layers), _channels(now.layers), same),
        ("part of the denoising", made.part, now.part, same),
        (
            "conds",
            _guidance(made.guidance),
            _guidance(now.guidance),
            "Use as many prompts, and cfg 1 or above in both.",
        ),
    ]


def _levels(sigmas: tuple[float, ...]) -> str:
    return ", ".join(f"{sigma:.4g}" for sigma in sigmas)


def _size(latent: tuple[int, ...]) -> str:
    channels, height, width = latent
    return f"{width} x {height} with {channels} channels"


def _channels(layers: tuple[tuple, ...]) -> str:
    return "channels " + ", ".join(str(channels) for *_, channels, _ in layers)


def _guidance(guidance: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{count} {name}" for name, count in guidance)


def sampler_name(sampler) -> str:
    """What to call a SAMPLER."""
    function = getattr(sampler, "sampler_function", sampler)
    name = getattr(function, "__name__", type(function).__name__)
    return name.removeprefix("sample_").removesuffix("_function")


def digest(values: torch.Tensor) -> str:
    """A short name for the exact values of a tensor."""
    flat = values.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()[:32]
