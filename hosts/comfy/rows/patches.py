"""Give frames their own rows of tensors that patches of other nodes hold.

A patch uses the first rows of the tensors that it holds, no matter which frames are run. So if a
tensor has as many rows as the clip has frames, it is replaced by the rows of the frames that are
run while they are run.
"""

import dis
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from ..model.owners import innermost, owner_of
from ..model.settings import KEY
from .held_tensors import Place, places_in
from .places import take

# Keys in transformer options that ComfyUI and this pack use themselves.
_OURS = frozenset({KEY, "sample_sigmas", "sigmas", "cond_or_uncond", "uuids", "ad_params"})
# Functions between the model and the sampler, which see all frames that are sampled.
GUIDANCE = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "denoise_mask_function",
)
# Names that tell other packs which frames are run. Packs that read them pick their rows themselves.
_TOLD = frozenset({"ad_params", "sub_idxs"})
# A table of numbers that is at least this wide may hold one embedding per frame.
EMBEDDING = 64
# A tensor with four dimensions may be a convolution's kernel if it is not larger than this.
KERNEL = 7


def places_inside(options: dict) -> list[Place]:
    """Return the places where patches between the batching of conds and the model hold tensors.

    options: the model options that the model is then run with.
    """
    inside = options.get("transformer_options", {})
    places = places_in(inside, is_told, lambda name: name not in _OURS)
    return places + places_in(options, is_told, lambda name: name == "model_function_wrapper")


def places_of_guidance(options: dict) -> list[Place]:
    """Return the places where functions between the model and the sampler hold tensors."""
    return places_in(options, is_told, lambda name: name in GUIDANCE)


def rows_of(frames: Sequence[int], clip: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that cuts the rows of some frames out of tensors with one row per frame.

    frames: their places in the clip. clip: the number of its frames. Only tensors of pictures and
    of tokens are taken to have such rows. The function returns all other tensors as they are.
    """

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim < 3 or tensor.shape[0] != clip or clip == 1:
            return tensor
        return take(tensor, frames)

    return cut


def is_told(value: Any) -> bool:
    """Return whether a function, or an object with functions, reads which frames are run."""
    if isinstance(value, types.CodeType):
        named = {*value.co_names, *(c for c in value.co_consts if isinstance(c, str))}
        return bool(_TOLD & named) or any(map(is_told, value.co_consts))
    return any(is_told(code) for code in _codes(value))


def _codes(value: Any) -> Iterator[types.CodeType]:
    """Yield the code of a function, or of the methods and function attributes of an object."""
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
    """Return the owners of tensors that may have one row per frame, or something else.

    These tensors are not cut. options: model options. counts: numbers of other things in the model,
    such as channels. Returns names for use in an error.
    """
    inside = options.get("transformer_options", {})
    held = [value for name, value in inside.items() if name not in _OURS]
    return [
        owner_of(function)
        for function in functions_in([held, options.get("model_function_wrapper")])
        for tensor in _given_tensors(function)
        if _may_be_rows(tensor, clip, counts)
    ]


def _given_tensors(function: Callable) -> Iterator[torch.Tensor]:
    """Yield the tensors that a patch holds, without those that it keeps for itself while it runs.

    An object keeps for itself what its methods set back to None: no patch throws away the rows that
    a node has given it.
    """
    owner = getattr(function, "__self__", function)
    attributes = getattr(owner, "__dict__", {})
    kept = [attributes[name] for name in _set_back(owner) if name in attributes]

    def is_kept(value: Any) -> bool:
        return any(value is held for held in kept)

    for place in places_in([function], lambda value: is_told(value) or is_kept(value)):
        yield from (tensor for tensor in place.tensors if not is_kept(tensor))


def _set_back(owner: Any) -> Iterator[str]:
    """Yield the attributes that methods of an object's class set to None after it is made."""
    for name, method in vars(type(owner)).items():
        if not isinstance(method, types.FunctionType) or name == "__init__":
            continue
        code = list(dis.get_instructions(method))
        for value, target, store in zip(code, code[1:], code[2:], strict=False):
            sets = store.opname == "STORE_ATTR" and target.opname.startswith("LOAD_FAST")
            if sets and value.opname == "LOAD_CONST" and value.argval is None:
                yield store.argval


def _may_be_rows(tensor: torch.Tensor, clip: int, counts: Collection[int]) -> bool:
    """Return whether a tensor could have one row per frame, but could also be something else.

    A table of numbers could hold one embedding per frame. Twice as many rows as frames could
    belong to two conds. As many rows as a latent has channels or a layer has heads could be one
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
    """Yield all functions in the nested dicts, lists and tuples of model options."""
    if isinstance(value, dict):
        for key, held in value.items():
            if key not in skip:
                yield from functions_in(held, skip)
    elif isinstance(value, (list, tuple)):
        for held in value:
            yield from functions_in(held, skip)
    elif callable(value) and not isinstance(value, type):
        yield value
