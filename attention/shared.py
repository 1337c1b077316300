"""Tensor math that lets rows share reference rows, so that each is projected only once.

`collect` is called before keys and values are projected, `attend_to_rows` afterwards. Together they
give the same result as `gather` and plain attention, because concatenation over tokens commutes
with a projection that acts on each token by itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .compose import Biases, Name, bias_mask, positions, simplest

# The positions of the reference rows of every row of a batch.
Rows = list[tuple[int, ...]]
# Plain attention: (b, queries, channels), (b, keys, channels) twice, and None or what is added to
# the logits, (b or 1, 1, keys) -> (b, queries, channels).
Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def collect(
    own: Tensor,
    names: Sequence[Name],
    references: Sequence[tuple[Name, ...]],
    kept: Mapping[Name, Tensor],
) -> tuple[Tensor, Rows]:
    """Collect the reference rows of a batch, each of them once.

    It takes the same arguments as `gather` and raises the same errors. Returns
    (m, tokens, channels) with m <= n + len(kept), and for every row of the batch the positions of
    its references among these m, for `attend_to_rows`.
    """
    position = positions(own, names, references, kept)
    rows = [simplest(row) for row in references]
    wanted = list(dict.fromkeys(name for row in rows for name in row))
    if all(name in position for name in wanted) and 2 * len(wanted) > len(names):
        # Projecting a few rows that no row attends to costs less than copying all the others.
        return own, [tuple(position[name] for name in row) for row in rows]
    place = {name: number for number, name in enumerate(wanted)}
    sources = [own[position[name]] if name in position else kept[name] for name in wanted]
    return torch.stack(sources), [tuple(place[name] for name in row) for row in rows]


def attend_to_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Rows,
    attention: Attention,
    biases: Biases | None = None,
) -> Tensor:
    """Let every row of queries attend to its reference rows, with as little work as possible.

    query: (n, q, channels). key, value: projected reference rows, (m, tokens, channels). rows:
    for each of the n, the positions of its references among the m. attention: a function for plain
    attention on any number of batch elements. biases: for each row, those of its references; None
    adds nothing.
    Returns (n, q, channels). Raises ValueError if `rows` does not fit these tensors.

    Rows with the same references and biases share one set of keys, and their queries are
    concatenated. Groups with equally many queries and keys form one batch, so nothing is repeated.
    """
    n, q, _ = query.shape
    if len(rows) != n:
        raise ValueError(f"{n} rows of queries need {n} rows of references, not {len(rows)}")
    if not max(map(max, rows)) < len(key) == len(value):
        raise ValueError(
            f"rows attend to row {max(map(max, rows))}, but there are {len(key)} rows of keys and "
            f"{len(value)} of values"
        )
    batches = list(_alike(rows, biases))
    if len(batches) == 1 and batches[0].readers == list(range(n)):
        return _attend(query, key, value, batches[0], attention)
    attended = query.new_empty(n, q, value.shape[-1])
    for batch in batches:
        output = _attend(query, key, value, batch, attention)
        for start, stop in _runs(batch.readers):
            attended[batch.readers[start] : batch.readers[stop - 1] + 1] = output[start:stop]
    return attended


class Batch(NamedTuple):
    """Groups of rows that attend together. All have equally many rows and equally many references.

    readers: the rows, group after group. references: the positions of the groups' references.
    biases: for each group, those of its references, or None.
    """

    groups: int
    readers: list[int]
    references: list[int]
    biases: Biases | None


def _alike(rows: Rows, biases: Biases | None) -> Iterator[Batch]:
    """Group rows that have the same references and biases, and batch groups of the same size."""
    groups: dict[tuple[tuple[int, ...], tuple[float, ...]], list[int]] = {}
    for row, references in enumerate(rows):
        groups.setdefault((references, biases[row] if biases else ()), []).append(row)
    sizes: dict[tuple[int, int], list[tuple[tuple[int, ...], tuple[float, ...]]]] = {}
    for (references, of_group), group in groups.items():
        sizes.setdefault((len(group), len(references)), []).append((references, of_group))
    for alike in sizes.values():
        yield Batch(
            len(alike),
            [row for group in alike for row in groups[group]],
            [place for references, _ in alike for place in references],
            [of_group for _, of_group in alike] if biases else None,
        )


def _attend(
    query: Tensor, key: Tensor, value: Tensor, batch: Batch, attention: Attention
) -> Tensor:
    """Return the attention of one batch's rows, in the batch's order: (readers, q, channels)."""
    g = batch.groups
    # with r rows in a group: (g * r, q, channels) -> (g, r * q, channels)
    queries = _take(query, batch.readers).reshape(g, -1, query.shape[-1])
    # with k references per group: (g * k, tokens, channels) -> (g, k * tokens, channels)
    keys = _take(key, batch.references).reshape(g, -1, key.shape[-1])
    values = _take(value, batch.references).reshape(g, -1, value.shape[-1])
    mask = None
    if batch.biases is not None and any(len(set(row)) > 1 for row in batch.biases):
        mask = bias_mask(batch.biases, key.shape[1], query)
    # (g, r * q, channels) -> (g * r, q, channels)
    return attention(queries, keys, values, mask).reshape(len(batch.readers), query.shape[1], -1)


def _take(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Return rows of a tensor in a given order, as a view if they follow one another.

    It slices, because an index would have to be copied to the device first.
    """
    runs = [tensor[rows[start] : rows[stop - 1] + 1] for start, stop in _runs(rows)]
    return runs[0] if len(runs) == 1 else torch.cat(runs)


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the (start, stop) positions of each run of consecutive rows in a list of rows."""
    edges = [0, *(i for i in range(1, len(rows)) if rows[i] != rows[i - 1] + 1), len(rows)]
    return pairwise(edges)
