"""Tensor math that puts together the key/value tokens of a batch of rows from reference rows.

The functions do not care whether the rows hold hidden states or projected keys or values:
concatenation over tokens commutes with a projection that acts on each token by itself.
Each row has a name. A name can be anything by which the caller tells frames and conds apart.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import gcd, lcm
from typing import TypeVar

import torch
from torch import Tensor

Name = TypeVar("Name", bound=Hashable)


def simplest(references: tuple[Name, ...]) -> tuple[Name, ...]:
    """Drop repetitions that do not change attention.

    If every reference occurs k times, every key counts k times in the softmax, and the factor k
    cancels. So (0, 0) becomes (0,), while (3, 0, 0) stays as it is.
    """
    counts = Counter(references)
    shared = gcd(*counts.values())
    return tuple(name for name, count in counts.items() for _ in range(count // shared))


def same_length(rows: Sequence[tuple[Name, ...]]) -> list[tuple[Name, ...]]:
    """Repeat each row's references as a whole until all rows have equally many references.

    Rows of a batch need equally many keys, and repeating all of a row's keys leaves its
    attention unchanged (see `simplest`), so no mask is needed.
    """
    simple = [simplest(row) for row in rows]
    length = lcm(*(len(row) for row in simple))
    return [row * (length // len(row)) for row in simple]


def gather(
    own: Tensor,
    names: Sequence[Name],
    references: Sequence[tuple[Name, ...]],
    kept: Mapping[Name, Tensor],
) -> Tensor:
    """Concatenate, for every row of a batch, the tokens of its reference rows.

    own: the batch, (n, tokens, channels). `names[r]` is the name of row r.
    references: n tuples of names, one per row.
    kept: tokens of rows outside the batch, each (tokens, channels).
    Returns (n, k * tokens, channels) with k references per row. If every row attends only to
    itself, it returns `own` itself and not a copy. Raises KeyError for a name that is neither in
    the batch nor kept, ValueError if two rows share a name or kept tokens do not fit the batch.
    """
    channels = own.shape[-1]
    position = positions(own, names, references, kept)
    rows = same_length(references)
    if all(row == (name,) for row, name in zip(rows, names, strict=True)):
        return own
    sources = [
        own[position[name]] if name in position else kept[name] for row in rows for name in row
    ]
    # n * k pieces of (tokens, channels) -> (n, k * tokens, channels)
    return torch.cat(sources).view(len(rows), -1, channels)


def positions(
    own: Tensor,
    names: Sequence[Name],
    references: Sequence[tuple[Name, ...]],
    kept: Mapping[Name, Tensor],
) -> dict[Name, int]:
    """Return where each named row lies in the batch.

    Raises ValueError if names or kept tokens do not fit the batch.
    """
    n, tokens, channels = own.shape
    position = {name: row for row, name in enumerate(names)}
    if len(position) != n or len(references) != n:
        raise ValueError(f"{n} rows need {n} distinct names and {n} references, not {names}")
    for name, tensor in kept.items():
        if tensor.shape != (tokens, channels) or tensor.dtype != own.dtype:
            raise ValueError(
                f"tokens kept of {name} are {tuple(tensor.shape)} {tensor.dtype}, "
                f"the batch needs {(tokens, channels)} {own.dtype}"
            )
    return position
