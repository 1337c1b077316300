"""Patches of other nodes that hold one row per frame: some frames get their own rows.

A patch takes the rows of what it holds from the top, whatever frames are run. Where it holds
tensors with as many rows as the clip has frames, the patch is made again with the rows of the
frames that are run; the patch itself stays as it is.
"""

import types
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from .owners import innermost, owner_of
from .rebuild import Rebuilding, tensors_in
from .settings import KEY

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
# What stands between ComfyUI's batching of conds and the model, beside transformer options.
INSIDE = ("model_function_wrapper",)
# Names by which other packs are told which frames are run; they pick their rows by themselves.
_TOLD = frozenset({"ad_params", "sub_idxs"})
# From this width on, rows of numbers are taken for one embedding per frame.
EMBEDDING = 64


class PatchCopies:
    """Copies of the patches in model options, with the rows of some frames.

    They live until other frames are asked for, so that what a patch prepares for its rows is
    there at the next step if the whole clip is one batch.
    """

    def __init__(self) -> None:
        self._frames: Sequence[int] | None = None
        self._copying: Rebuilding | None = None

    def of(self, options: dict, frames: Sequence[int], clip: int, guidance: bool) -> dict:
        """Model options in which patches hold the rows of some frames.

        frames: places in the clip. clip: number of its frames. guidance: whether what stands
        between model and sampler gets its rows too, since it is run on these frames alone.
        """
        if self._copying is None or frames != self._frames:
            self._frames = frames
            self._copying = Rebuilding(lambda tensor: rows(tensor, frames, clip), leave=is_told)
        copied = {**options, "transformer_options": self._transformer_options(options)}
        for name in (*INSIDE, *(GUIDANCE if guidance else ())):
            if name in options:
                copied[name] = self._copying.of(options[name])
        return copied

    def _transformer_options(self, options: dict) -> dict:
        return {
            name: value if name in _OURS else self._copying.of(value)
            for name, value in options.get("transformer_options", {}).items()
        }


def rows(tensor: torch.Tensor, frames: Sequence[int], clip: int) -> torch.Tensor:
    """Rows of a tensor that has one row of tokens or pixels per frame; any other as it is."""
    if tensor.ndim < 3 or tensor.shape[0] != clip or clip == 1:
        return tensor
    if isinstance(frames, range):
        return tensor[frames.start : frames.stop]
    return tensor[list(frames)]


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


def owners_of_uncut_rows(options: dict, clip: int, guidance: bool) -> list[str]:
    """Who holds numbers that may be one row per frame, but need not be, so that none is cut.

    options: model options. Returns names for use in an error.
    """
    places: list[Any] = [options.get(name) for name in INSIDE]
    places += [options.get(name) for name in GUIDANCE] if guidance else []
    inside = options.get("transformer_options", {})
    places += [value for name, value in inside.items() if name not in _OURS]
    return [
        owner_of(function)
        for function in functions_in(places)
        if any(_may_be_rows(tensor, clip) for tensor in tensors_in(function, is_told))
    ]


def _may_be_rows(tensor: torch.Tensor, clip: int) -> bool:
    """Whether a table of numbers could be one embedding per frame."""
    return tensor.ndim == 2 and tensor.shape[0] == clip > 1 and tensor.shape[1] >= EMBEDDING


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
