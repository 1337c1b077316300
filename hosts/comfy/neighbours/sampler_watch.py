"""Find samplers of other packs that look at all frames of a clip together.

A sampler that scales by the mean or the largest value of its whole latent makes frames depend on
one another. Frame by frame it sees only one frame and gives another result, and nothing in the
result shows that. So its calls of torch are watched, without those of the model, and it must not
call a function that combines the rows of a latent. ComfyUI's own samplers are tested instead.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import BadInputError

# Functions of torch that make one number, or fewer rows, of many. Functions that only check
# numbers (is any of them not finite?) are left out.
_MOVES = ("flip", "roll")
_SUMS = ("sum", "nansum", "cumsum", "prod", "logsumexp", "softmax", "log_softmax")
_MEANS = ("mean", "nanmean", "std", "var", "std_mean", "var_mean")
_NORMS = ("norm", "vector_norm", "matrix_norm")
_RANKS = (
    "max",
    "min",
    "amax",
    "amin",
    "aminmax",
    "median",
    "nanmedian",
    "quantile",
    "topk",
    "sort",
)
_REDUCING = frozenset({*_SUMS, *_MEANS, *_NORMS, *_RANKS, *_MOVES, "sort"})
# Functions that make one number of two tensors.
_COMPARING = frozenset({"dist", "dot", "vdot", "mse_loss", "l1_loss", "smooth_l1_loss"})
# The position of the argument that names the dimensions, where it is not at position 1.
_POSITION = {"norm": 2, "vector_norm": 2, "matrix_norm": 2, "quantile": 2, "topk": 2, "roll": 2}


class RowsTogether:
    """Gets every call of a torch function by a sampler, and refuses functions that mix rows."""

    def __init__(self, sampler: str, shape: Sequence[int]) -> None:
        """sampler: the sampler's name. shape: the shape of the latent, (rows, ...)."""
        self.sampler, self.shape = sampler, tuple(shape)

    def __call__(self, function: Callable, args: tuple, kwargs: dict) -> None:
        """Raise BadInputError if the function combines the rows of a latent."""
        name = getattr(function, "__name__", "").removeprefix("linalg_")
        if not args or not isinstance(args[0], Tensor):
            return
        if self._takes_rows_together(name, args, kwargs):
            raise BadInputError(
                "sampler",
                f"{self.sampler} takes the {name} of all frames of the clip together, but frame "
                "by frame it sees only one frame at a time.",
                "Use a stock sampler node with the same MODEL, which samples all frames at every "
                "step, or choose another sampler.",
            )

    def _takes_rows_together(self, name: str, args: tuple, kwargs: dict) -> bool:
        tensor = args[0]
        whole = tensor.numel() == math.prod(self.shape) and tensor.ndim in (1, len(self.shape))
        if name in _COMPARING:
            return whole and kwargs.get("reduction") != "none"
        like_latent = tensor.ndim == len(self.shape) or (tensor.ndim == 1 and whole)
        return name in _REDUCING and like_latent and _over_rows(name, args, kwargs)


def _over_rows(name: str, args: tuple, kwargs: dict) -> bool:
    """Return whether a reduction is over the first dimension, alone or with others."""
    position = _POSITION.get(name, 1)
    dims = kwargs.get("dim", kwargs.get("dims", kwargs.get("axis")))
    if dims is None and len(args) > position:
        dims = args[position]
    if isinstance(dims, Tensor) or isinstance(kwargs.get("other"), Tensor):
        return False  # it takes the larger of two tensors, number by number
    if dims is None or isinstance(dims, (bool, torch.dtype)):
        return name not in ("sort", "topk")  # these take the last dimension
    if isinstance(dims, int):
        dims = (dims,)
    return len(dims) == 0 or any(dim in (0, -args[0].ndim) for dim in dims)
