"""Tensor math for attention whose sequences hold tokens of the image and other tokens together.

The transformers of today's image models (DiTs) let text and image attend to each other in one
sequence ("joint attention"; Esser et al., Scaling Rectified Flow Transformers for High-Resolution
Image Synthesis, section 4). Only the image tokens of a reference take the place of a frame's own.
All other tokens, which are the text and pictures that the frame was given, stay the frame's own.

The keys of a frame are one whole sequence for each of its references: its own other tokens, with
the reference's image tokens in the place of its own. So the other tokens are repeated once per
reference. If they were there only once, more references would mean less weight for the text. With
the repetition every key counts equally often, and references that are identical to the frame
change nothing. A weight is therefore a factor on a whole sequence, text included.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .compose import Biases, bias_mask

# The image tokens of one row: (keys, values), each as a row of a batch has them.
KeysAndValues = tuple[Tensor, Tensor]
# Plain attention of queries, keys, values and a mask or None; see `attend_jointly`.
MaskedAttention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Span(NamedTuple):
    """The tokens from `start` on and before `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """The number of tokens."""
        return self.stop - self.start


class Layout(NamedTuple):
    """Where the image tokens lie among the queries and among the keys of a call of attention.

    queries, keys: their spans. q_tokens, k_tokens: the lengths of the whole sequences. axis: the
    axis of tokens in queries, keys and values, 1 or 2. out_axis: the axis of tokens in the result.
    """

    queries: Span
    keys: Span
    q_tokens: int
    k_tokens: int
    axis: int
    out_axis: int


def attend_jointly(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    layout: Layout,
    references: Sequence[Sequence[KeysAndValues]],
    attention: MaskedAttention,
    biases: Biases | None = None,
) -> Tensor:
    """Let the image tokens of every row attend to the image tokens of its references.

    query, key, value: (n, tokens, channels) or (n, heads, tokens, channels) for layout.axis 1 or 2.
    mask: None, or a mask whose last two axes are queries (or 1) and keys, with the rows of the
    batch (or 1) first if it has more than two axes. references: for each of the n rows, the image
    tokens of its references, in the shape of a row. attention: plain attention on any number of
    rows. biases: for each row, those of its references; None adds nothing.
    Returns what plain attention returns for `query`. Queries that are not of the image attend to
    their own sequence. One row is worked on at a time, so that only its keys are in memory.
    Raises ValueError if the number of references is not the number of rows.
    """
    if len(references) != len(query):
        raise ValueError(f"{len(query)} rows need {len(query)} references, not {len(references)}")
    image = []
    for row, of_row in enumerate(references):
        own = slice(row, row + 1)
        queries = _part(query[own], layout.axis, layout.queries)
        keys, values = (
            _sequences(tensor[own], [tokens[number] for tokens in of_row], layout)
            for number, tensor in enumerate((key, value))
        )
        own_mask = _of_row(mask, row, len(query))
        own_mask = _repeated(_of_queries(own_mask, layout, [layout.queries]), layout, len(of_row))
        if biases is not None and len(set(biases[row])) > 1:
            own_mask = _biased(own_mask, bias_mask([biases[row]], layout.k_tokens, query))
        image.append(attention(queries, keys, values, own_mask))
    painted = torch.cat(image) if len(image) > 1 else image[0]
    around = list(_around(layout.queries, layout.q_tokens))
    if not around:
        return painted
    others = torch.cat([_part(query, layout.axis, span) for span in around], dim=layout.axis)
    rest = attention(others, key, value, _of_queries(mask, layout, around))
    before = rest.narrow(layout.out_axis, 0, layout.queries.start)
    after = rest.narrow(
        layout.out_axis, layout.queries.start, layout.q_tokens - layout.queries.stop
    )
    return torch.cat([before, painted, after], dim=layout.out_axis)


def _part(tensor: Tensor, axis: int, span: Span) -> Tensor:
    """Return the tokens of a span, as a view."""
    return tensor.narrow(axis, span.start, span.length)


def _around(span: Span, tokens: int) -> Iterator[Span]:
    """Yield the spans before and after a span in a sequence, if they are not empty."""
    for outside in (Span(0, span.start), Span(span.stop, tokens)):
        if outside.length > 0:
            yield outside


def _sequences(own: Tensor, references: Sequence[Tensor], layout: Layout) -> Tensor:
    """Return the keys (or values) of one row: one sequence after another, for each reference.

    own: the row's own sequence, with the row as axis 0. references: image tokens, without it.
    """
    before = own.narrow(layout.axis, 0, layout.keys.start)
    after = own.narrow(layout.axis, layout.keys.stop, layout.k_tokens - layout.keys.stop)
    parts = [part for tokens in references for part in (before, tokens.unsqueeze(0), after)]
    return torch.cat([part for part in parts if part.shape[layout.axis]], dim=layout.axis)


def _of_row(mask: Tensor | None, row: int, rows: int) -> Tensor | None:
    """Return the part of a mask that belongs to a row of the batch."""
    if mask is None or mask.ndim < 3 or mask.shape[0] != rows:
        return mask
    return mask[row : row + 1]


def _of_queries(mask: Tensor | None, layout: Layout, spans: Sequence[Span]) -> Tensor | None:
    """Return the part of a mask that belongs to the queries of some spans."""
    if mask is None or mask.ndim < 2 or mask.shape[-2] != layout.q_tokens or layout.q_tokens == 1:
        return mask
    return torch.cat([_part(mask, -2, span) for span in spans], dim=-2)


def _repeated(mask: Tensor | None, layout: Layout, times: int) -> Tensor | None:
    """Return a mask for as many sequences of keys as there are references."""
    if mask is None or mask.shape[-1] != layout.k_tokens:
        return mask
    return torch.cat([mask] * times, dim=-1)


def _biased(mask: Tensor | None, bias: Tensor) -> Tensor:
    """Return a mask that adds a bias as well. bias: (1, 1, keys)."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:  # True where a key may be attended to
        mask = torch.zeros_like(mask, dtype=bias.dtype).masked_fill(~mask, -torch.inf)
    return mask + bias
