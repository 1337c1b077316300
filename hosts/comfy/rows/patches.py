"""Patches of other nodes that hold one row per frame: some frames get their own rows.

A patch takes the rows of what it holds from the top, whatever frames are run. Where it holds
tensors with as many rows as the clip has frames, it holds those of the frames that are run for as
long as they are.
"""

import types
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from ..model.owners import innermost, owner_of
from ..model.settings import KEY
from .held_tensors import Place, places_in
from .places import take

# What ComfyUI and this pack keep in transformer options for themselves.
_OURS = frozenset({KEY, "sample_sigmas", "sigmas", "cond_or_uncond", "uuids", "ad_params"})
# What stands between the model and the sampler, and sees every frame that is sampled.
GUIDANCE = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "denoise_mask_function",
)
# Names by which other packs are told which frames are run; they pick their rows by themselves.
_TOLD = frozenset({"ad_params", "sub_idxs"})
# From this width on, rows of numbers are taken for one embedding per frame.
EMBEDDING = 64
# Up to this size, what has four dimensions may be a kernel of a convolution.
KERNEL = 7


def places_inside(options: dict) -> list[Place]:
    """Where patches hold tensors that stand between ComfyUI's batching of conds and the model.

    options: those model options that are then used.
    """
    inside = options.get("transformer_options", {})
    places = places_in(inside, is_told, lambda name: name not in _OURS)
    return places + places_in(options, is_told, lambda name: name == "model_function_wrapper")


def places_of_guidance(options: dict) -> list[Place]:
    """Where functions hold tensors that stand between the model and the sampler."""
    return places_in(options, is_told, lambda name: name in GUIDANCE)


def rows_of(frames: Sequence[int], clip: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What cuts the rows of some frames out of tensors with one row per frame.

    frames: places in the clip. clip: number of its frames. Tensors of pictures and of tokens
    have such rows; any other tensor stays as it is.
    """

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim < 3 or tensor.shape[0] != clip or clip == 1:
            return tensor
        return take(tensor, frames)

    return cut


def is_told(value: Any) -> bool:
    """Whether a function, or an object with functions in it, asks which frames are run."""
    if isinstance(value, types.CodeType):
        named = {*value.co_names, *(c for c in value.co_consts if isinstance(c, str))}
        return bool(_TOLD & named) or any(map(is_told, value.co_consts))
    return any(is_told(code) for code in _codes(value))


def _codes(value: Any) -> Iterator[types.CodeType]:
    """The code of a function, of an object's class, and of the functions among its attributes."""
    function = innermost(value)
    if isinstance(function, types.FunctionType):
        yield function.__code__
    elif hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)):
        for held in (*vars(type(value)).values(), *_flat(vars(value).values())):
            if isinstance(held, types.FunctionType):
                yield held.__code__


def _flat(values) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, (list, tuple)) else (value,)


def owners_of_uncut_rows(options: dict, clip: int, counts: Collection[int]) -> list[str]:
    """Who holds tensors that may have one row per frame, but need not, so that none is cut.

    options: model options. counts: how many of other things the model has, such as channels.
    Returns names for use in an error.
    """
    inside = options.get("transformer_options", {})
    held = [value for name, value in inside.items() if name not in _OURS]
    return [
        owner_of(function)
        for function in functions_in([held, options.get("model_function_wrapper")])
        for place in places_in([function], is_told)
        if any(_may_be_rows(tensor, clip, counts) for tensor in place.tensors)
    ]


def _may_be_rows(tensor: torch.Tensor, clip: int, counts: Collection[int]) -> bool:
    """Whether a tensor could have rows per frame, and could as well be something else.

    A table of numbers could be one embedding per frame; twice as many rows as frames could be
    those of two conds; as many rows as a latent has channels or a layer has heads could be one
    number or one kernel for each of these.
    """
    if clip == 1 or tensor.ndim < 2 or tensor.shape[0] not in (clip, 2 * clip):
        return False
    if tensor.ndim == 2:
        return tensor.shape[1] >= EMBEDDING
    if tensor.shape[0] == 2 * clip:
        return True
    small = tensor.ndim == 3 or max(tensor.shape[2:]) <= KERNEL
    return clip in counts and small


def functions_in(value: Any, skip: Collection[Any] = ()) -> Iterator[Callable]:
    """Every function in the nested dicts, lists and tuples of model options."""
    if isinstance(value, dict):
        for key, held in value.items():
            if key not in skip:
                yield from functions_in(held, skip)
    elif isinstance(value, (list, tuple)):
        for held in value:
            yield from functions_in(held, skip)
    elif callable(value) and not isinstance(value, type):
        yield value
