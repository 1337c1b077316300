"""A state in ComfyUI: hidden states of painted frames, and the settings that made them."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from ....attention import State
from ....attention.bank import readable_size
from ..errors import BadInputError
from ..model.carried import settings_of
from ..model.control_layers import attending_layers
from ..model.kinds import sample_weights
from ..model.settings import Settings
from ..rows.conditions import conds_that_run

# Relative to the largest of the sampled weights. A checkpoint may be stored as fp16 or as fp32.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Origin:
    """What a state was made with, as far as frames that continue from it need the same.

    model: the model's family. weights: some of the model's weights. dtype: the dtype of hidden
    states. layers: (block, number, transformer, channels, halvings) of each layer of a U-Net, or
    for a transformer the name of the layer set alone, as (name,). part: the part of the denoising
    in which cross-frame attention acts. latent: (channels, ..., height, width).
    guidance: (name, number) of the conds that run. noise: a digest of the first frame's noise.
    fusion: the strengths at its start and end, the part of the denoising in which it acts, and the
    name of what frames are fused to; empty without fusion.
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
    fusion: tuple = ()

    @classmethod
    def of(cls, guider, noise: torch.Tensor, sampler, sigmas: torch.Tensor) -> "Origin":
        """Return the origin of a sampling that begins. noise: (frames, channels, height, width)."""
        settings: Settings = settings_of(guider.model_options)
        model = guider.model_patcher.model
        return cls(
            type(model).__name__,
            sample_weights(guider.model_patcher),
            str(model.get_dtype_inference()).removeprefix("torch."),
            _layers(settings, guider),
            (settings.start_percent, settings.end_percent),
            sampler_name(sampler),
            tuple(sigmas.tolist()),
            tuple(noise.shape[1:]),
            tuple(conds_that_run(guider).items()),
            digest(noise[:1]),
            _fusion(settings),
        )

    def same_weights(self, other: "Origin") -> bool:
        """Return whether both models seem to be the same checkpoint."""
        most = max(map(abs, self.weights), default=0.0)
        pairs = zip(self.weights, other.weights)
        return all(abs(mine - theirs) <= TOLERANCE * most for mine, theirs in pairs)


@dataclass(frozen=True, repr=False, eq=False)
class ComfyState(State):
    """A state with its origin. Its socket type is CROSS_FRAME_STATE."""

    origin: Origin

    @classmethod
    def of(cls, state: State, origin: Origin) -> "ComfyState":
        """Return a state with its origin.

        Conds that another node's wrapper brought in have no name that is valid in a later run
        (see `attn1_patch`), so what they left cannot be used and is dropped.
        """
        stored = {key: held for key, held in state.stored.items() if _has_a_name(key.entry)}
        return cls(state.frames, state.scene, state.noise_levels, stored, origin)

    def __repr__(self) -> str:
        origin = self.origin
        height, width = origin.latent[-2:]
        held = ", ".join(map(str, sorted(self.held))) or "none"
        return (
            f"CrossFrame state: {self.frames} frames painted, keeps frame {held}; "
            f"{origin.model}, {len(self.layers)} layers, {origin.sampler}, "
            f"{max(len(origin.sigmas) - 1, 0)} steps, latent {width} x {height}; "
            f"{readable_size(self.nbytes)}"
        )


def _layers(settings: Settings, guider) -> tuple[tuple, ...]:
    """Return the layers as an origin describes them, with those of ControlNets that take part."""
    if settings.layers is None:
        return ((settings.layer_set,),)
    controls = attending_layers(guider.original_conds.values(), settings)
    layers = (*settings.layers, *controls)
    return tuple((*attn1.layer, attn1.channels, attn1.halvings) for attn1 in layers)


def _fusion(settings: Settings) -> tuple:
    """Return the fusion as an origin describes it."""
    if (chosen := settings.fusion) is None:
        return ()
    strengths = chosen.strength, chosen.end_strength
    return (*strengths, chosen.start_percent, chosen.end_percent, chosen.to)


def _has_a_name(entry: Any) -> bool:
    """Return whether a cond entry is named (cond index, position), which is valid in later runs."""
    return isinstance(entry[1], int)


@dataclass(frozen=True, repr=False)
class NotKept:
    """The value of a sampler's output `state` if the sampler has not kept a state.

    It is not None, because None means that nothing is connected. ComfyUI keeps outputs for later
    runs of a graph, and a node that is connected to this output later must not paint as if there
    were no state.
    """

    def __repr__(self) -> str:
        return "CrossFrame state: not kept, because nothing was connected to it"


NOT_KEPT = NotKept()


def checked_state(state: Any) -> ComfyState | None:
    """Return what arrives at an input `state`: a state, or None if nothing is connected.

    Raises BadInputError if the state was not kept, or if the value is not a state.
    """
    if state is None or isinstance(state, ComfyState):
        return state
    if isinstance(state, NotKept):
        raise BadInputError(
            "state",
            "the sampler that it comes from has not kept it, because nothing was connected to that "
            "output when the sampler ran.",
            "Switch keep_state on in that sampler. It then runs again and keeps its state.",
        )
    raise BadInputError(
        "state",
        f"it is not a state, but a {type(state).__name__}.",
        "Connect the output 'state' of a CrossFrame sampler or of CrossFrameLoadState.",
    )


def sampler_name(sampler) -> str:
    """Return a readable name of a SAMPLER."""
    function = getattr(sampler, "sampler_function", sampler)
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return name.removeprefix("sample_").removesuffix("_function")


def digest(values: torch.Tensor) -> str:
    """Return a short name for the exact values of a tensor."""
    flat = values.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()[:32]
