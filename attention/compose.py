"""Tensor math that puts together the key/value tokens of a batch of rows from reference rows.

The functions do not care whether the rows hold hidden states or projected keys or values:
concatenation over tokens commutes with a projection that acts on each token by itself.
Each row has a name. A name can be anything by which the caller tells frames and conds apart.

References may have weights, which are factors on the softmax mass of their keys. A factor is its
logarithm, added to the logits of the keys ("bias"). So weights need a mask in the call of attention
that follows; `bias_mask` makes it.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import gcd, lcm
from typing import TypeVar

import torch
from torch import Tensor

Name = TypeVar("Name", bound=Hashable)
# For every row, what is added to the logits of the keys of each of its references.
Biases = Sequence[tuple[float, ...]]


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


def biases_of(
    references: Sequence[tuple[Name, ...]], added: Sequence[Mapping[Name, float]]
) -> Biases | None:
    """Return the biases of the references of every row, or None if no row needs any.

    references: the references of n rows, in the order of their keys. added: for each row, what is
    added to the logits of the keys of its references; 0 if it does not say.
    """
    biases = [
        tuple(of_row.get(name, 0.0) for name in row)
        for row, of_row in zip(references, added, strict=True)
    ]
    # What is added to all keys of a row changes nothing.
    return biases if any(len(set(row)) > 1 for row in biases) else None


def bias_mask(biases: Biases, tokens: int, like: Tensor) -> Tensor:
    """Return what is added to the logits of rows: (n, 1, k * tokens), or (1, ...) for equal rows.

    biases: for n rows, those of k references each. tokens: the number of keys of a reference. like:
    a tensor with the device and the dtype of the queries.
    """
    rows = biases[:1] if len(set(biases)) == 1 else biases
    mask = like.new_empty(len(rows), 1, len(rows[0]) * tokens)
    for row, of_row in enumerate(rows):
        for place, bias in enumerate(of_row):
            mask[row, :, place * tokens : (place + 1) * tokens] = bias
    return mask


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
