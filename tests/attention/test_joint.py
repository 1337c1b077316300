"""Joint attention, compared with one softmax written out over all keys."""

import pytest
import torch
from crossframe.attention.joint import Layout, Span, attend_jointly

ROWS, HEADS, CHANNELS = 3, 2, 4
SHAPES = {  # image tokens in the middle, at the end, at the start, alone
    "middle": Layout(Span(3, 8), Span(3, 8), 10, 10, 2, 1),
    "end": Layout(Span(5, 10), Span(5, 10), 10, 10, 2, 1),
    "start": Layout(Span(0, 5), Span(0, 5), 9, 9, 2, 1),
    "alone": Layout(Span(0, 5), Span(0, 5), 5, 5, 2, 1),
    "keys before": Layout(Span(0, 5), Span(4, 9), 7, 11, 2, 1),
}


def plain(query, key, value, mask):
    """(rows, heads, tokens, channels) -> (rows, tokens, heads * channels)."""
    logits = query @ key.mT * CHANNELS**-0.5
    if mask is not None:
        logits = logits + (mask if mask.ndim == 4 else mask.unsqueeze(-3))
    return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)


def tensors(layout, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(tokens):
        return torch.randn(ROWS, HEADS, tokens, CHANNELS, generator=generator)

    return draw(layout.q_tokens), draw(layout.k_tokens), draw(layout.k_tokens)


def image(tensor, layout, row):
    return tensor[row, :, layout.keys.start : layout.keys.stop]


def expected(query, key, value, mask, layout, references, biases=None):
    """Each image query over own other keys and references' image keys, counted one by one."""
    result = plain(query, key, value, mask)
    for row, of_row in enumerate(references):
        keys, values, masks = [], [], []
        for reference in of_row:
            for tokens, own in ((keys, key), (values, value)):
                whole = own[row].clone()
                whole[:, layout.keys.start : layout.keys.stop] = image(own, layout, reference)
                tokens.append(whole)
            masks.append(mask)
        span = slice(layout.queries.start, layout.queries.stop)
        own_mask = None
        if mask is not None:
            own_mask = (mask[row : row + 1] if len(mask) == ROWS else mask).expand(
                *[-1] * (mask.ndim - 2), layout.q_tokens, -1
            )[..., span, :]
            own_mask = torch.cat([own_mask] * len(of_row), dim=-1)
        if biases is not None:
            bias = torch.tensor(biases[row]).repeat_interleave(layout.k_tokens)
            own_mask = bias[None, None] if own_mask is None else own_mask + bias
        result[row : row + 1, span] = plain(
            query[row : row + 1, :, span],
            torch.cat(keys, dim=1)[None],
            torch.cat(values, dim=1)[None],
            own_mask,
        )
    return result


@pytest.mark.parametrize("biases", [None, [(0.0,), (0.0, -1.5), (0.7, 0.0, -0.4)]])
@pytest.mark.parametrize("mask", [None, (1, 1), (ROWS, 1), (1, "q"), (ROWS, "q"), (ROWS, 1, "q")])
@pytest.mark.parametrize("name", SHAPES)
def test_it_is_one_softmax_over_all_keys(name, mask, biases):
    layout = SHAPES[name]
    query, key, value = tensors(layout)
    if mask is not None:
        shape = [layout.q_tokens if size == "q" else size for size in mask]
        mask = torch.randn(*shape, layout.k_tokens, generator=torch.Generator().manual_seed(5))
    references = [(0,), (0, 1), (2, 0, 1)]
    tokens = [
        [(image(key, layout, r), image(value, layout, r)) for r in of_row] for of_row in references
    ]
    found = attend_jointly(query, key, value, mask, layout, tokens, plain, biases)
    wanted = expected(query, key, value, mask, layout, references, biases)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_weights_beside_a_mask_that_hides_keys():
    """Such masks are of truth values, and weights are numbers."""
    layout = SHAPES["middle"]
    query, key, value = tensors(layout)
    seen = torch.ones(1, 1, layout.k_tokens, dtype=torch.bool)
    seen[..., 1] = False
    hidden = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    references, biases = [(0, 1)] * ROWS, [(0.0, -1.0)] * ROWS
    tokens = [
        [(image(key, layout, r), image(value, layout, r)) for r in of_row] for of_row in references
    ]

    def of_truth(query, key, value, mask):
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        return plain(query, key, value, mask)

    found = attend_jointly(query, key, value, seen, layout, tokens, of_truth, biases)
    wanted = expected(query, key, value, hidden, layout, references, biases)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_tokens_first():
    """The layout of families whose heads are not apart: (rows, tokens, channels)."""
    layout = SHAPES["middle"]
    query, key, value = tensors(layout)
    tokens = [[(image(key, layout, 0), image(value, layout, 0))]] * ROWS
    wanted = attend_jointly(query, key, value, None, layout, tokens, plain)

    def flat(tensor):
        return tensor.transpose(-3, -2).flatten(-2)

    def of_flat(query, key, value, mask):
        heads = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (query, key, value))
        return plain(*heads, mask)

    layout = layout._replace(axis=1)
    tokens = [[(flat(k), flat(v)) for k, v in of_row] for of_row in tokens]
    found = attend_jointly(flat(query), flat(key), flat(value), None, layout, tokens, of_flat)
    assert torch.equal(found, wanted)


def test_identical_references_change_nothing():
    layout = SHAPES["middle"]
    query, key, value = tensors(layout)
    for times, biases in ((1, None), (2, None), (3, None), (3, [(0.0, -1.0, 0.5)] * ROWS)):
        tokens = [
            [(image(key, layout, row), image(value, layout, row))] * times for row in range(ROWS)
        ]
        found = attend_jointly(query, key, value, None, layout, tokens, plain, biases)
        assert torch.allclose(found, plain(query, key, value, None), atol=1e-6)


def test_only_one_rows_keys_are_made_at_a_time():
    layout = SHAPES["end"]
    query, key, value = tensors(layout)
    tokens = [[(image(key, layout, 0), image(value, layout, 0))] * 2] * ROWS
    rows = []

    def counting(query, key, value, mask):
        rows.append((len(key), key.shape[2]))
        return plain(query, key, value, mask)

    attend_jointly(query, key, value, None, layout, tokens, counting)
    assert rows == [(1, 20)] * ROWS + [(ROWS, 10)]


def test_references_for_other_rows_are_an_error():
    layout = SHAPES["end"]
    query, key, value = tensors(layout)
    with pytest.raises(ValueError, match="3 rows need 3 references, not 1"):
        attend_jointly(query, key, value, None, layout, [[]], plain)
