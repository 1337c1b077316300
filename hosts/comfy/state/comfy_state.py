"""A state in ComfyUI: hidden states of painted frames, and what they were made with."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from ....attention import State
from ....attention.bank import readable_size
from ..errors import BadInputError
from ..model.carried import settings_of
from ..model.settings import Settings
from ..model.unet import sample_weights
from ..rows.conditions import conds_that_run

TOLERANCE = (
    1e-3  # of the largest sampled weight; a checkpoint is stored as fp16 here and fp32 there
)


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
        settings: Settings = settings_of(guider.model_options)
        model = guider.model_patcher.model
        return cls(
            type(model).__name__,
            sample_weights(guider.model_patcher),
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
        stored = {key: held for key, held in state.stored.items() if _has_a_name(key.entry)}
        return cls(state.frames, state.scene, state.noise_levels, stored, origin)

    def __repr__(self) -> str:
        origin = self.origin
        height, width = origin.latent[-2:]
        held = ", ".join(map(str, sorted(self.held))) or "none"
        return (
            f"CrossFrame state: {self.frames} frames painted, keeps frame {held}; "
            f"{origin.model}, {len(origin.layers)} layers, {origin.sampler}, "
            f"{max(len(origin.sigmas) - 1, 0)} steps, latent {width} x {height}; "
            f"{readable_size(self.nbytes)}"
        )


def _has_a_name(entry: Any) -> bool:
    """Return whether a cond entry is called (cond index, position), which holds in later runs."""
    return isinstance(entry[1], int)


@dataclass(frozen=True, repr=False)
class NotKept:
    """Stands on a sampler's output `state` if the sampler has kept none.

    It is not None, which means that nothing is connected: ComfyUI keeps outputs for later runs
    of a graph, and whoever is connected to this one then must not paint as if there were none.
    """

    def __repr__(self) -> str:
        return "CrossFrame state: not kept, since nothing was connected to it"


NOT_KEPT = NotKept()


def checked_state(state: Any) -> ComfyState | None:
    """What arrives at an input `state`: a state, or None if nothing is connected.

    Raises BadInputError if it was not kept, or is no state.
    """
    if state is None or isinstance(state, ComfyState):
        return state
    if isinstance(state, NotKept):
        raise BadInputError(
            "state",
            "the sampler that it comes from has not kept it, since nothing was connected to that "
            "output when it ran.",
            "Switch keep_state on in that sampler, which then runs again and keeps its state.",
        )
    raise BadInputError(
        "state",
        f"it is no state, but a {type(state).__name__}.",
        "Connect the output 'state' of a CrossFrame sampler or of CrossFrameLoadState.",
    )


def sampler_name(sampler) -> str:
    """What to call a SAMPLER."""
    function = getattr(sampler, "sampler_function", sampler)
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return name.removeprefix("sample_").removesuffix("_function")


def digest(values: torch.Tensor) -> str:
    """A short name for the exact values of a tensor."""
    flat = values.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()[:32]
