"""Tensor math of key/value tokens."""

import pytest
import torch
from crossframe.attention.compose import bias_mask, biases_of, gather, same_length, simplest

N, TOKENS, CHANNELS = 3, 4, 2


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend(query, rows):
    """Attention of one row's queries over a list of rows' tokens."""
    keys = torch.cat(rows)
    return (query @ keys.T).softmax(-1) @ keys


def test_simplest():
    assert simplest((0, 0)) == (0,)
    assert simplest((0, 0, 4, 4)) == (0, 4)
    assert simplest((3, 0, 0)) == (3, 0, 0)
    assert simplest((0, 0, 0, 0, 4, 4)) == (0, 0, 4)


def test_same_length():
    assert same_length([(0,), (0, 0), (0, 1)]) == [(0, 0), (0, 0), (0, 1)]
    assert same_length([(0,), (1, 0), (2, 0, 1)]) == [(0,) * 6, (1, 0) * 3, (2, 0, 1) * 2]


def test_gather_from_the_batch_and_from_outside():
    own, old = tokens(N, TOKENS, CHANNELS), tokens(TOKENS, CHANNELS, seed=1)
    result = gather(own, [4, 5, 6], [(0, 4), (0, 4), (0, 5)], {0: old})
    assert result.shape == (N, 2 * TOKENS, CHANNELS)
    for row, previous in enumerate([0, 0, 1]):
        assert torch.equal(result[row], torch.cat([old, own[previous]]))


def test_repetition_leaves_attention_unchanged():
    own = tokens(N, TOKENS, CHANNELS)
    rows = gather(own, [0, 1, 2], [(0,), (0, 0), (2, 0, 1)], {})
    assert rows.shape[1] == 3 * TOKENS
    for row, references in enumerate([[0], [0], [2, 0, 1]]):
        expected = attend(own[row], [own[r] for r in references])
        actual = attend(own[row], [rows[row]])
        assert torch.allclose(actual, expected, atol=1e-12)


def test_projecting_before_or_after():
    """Hidden states and projected keys can both be gathered."""
    own, weight = tokens(N, TOKENS, CHANNELS), tokens(CHANNELS, 5, seed=2)
    references = [(0,), (0, 0), (0, 1)]
    before = gather(own @ weight, [0, 1, 2], references, {})
    after = gather(own, [0, 1, 2], references, {}) @ weight
    assert torch.allclose(before, after, atol=1e-12)


def test_self_alone_is_no_copy():
    own = tokens(N, TOKENS, CHANNELS)
    assert gather(own, [0, 1, 2], [(0,), (1, 1), (2,)], {}) is own


@pytest.mark.parametrize(
    ("names", "references", "kept", "error"),
    [
        ([0, 0, 1], [(0,)] * 3, {}, ValueError),
        ([0, 1], [(0,)] * 2, {}, ValueError),
        ([0, 1, 2], [(0,)] * 2, {}, ValueError),
        ([1, 2, 3], [(0,)] * 3, {}, KeyError),
        ([1, 2, 3], [(0,)] * 3, {0: tokens(TOKENS + 1, CHANNELS)}, ValueError),
        ([1, 2, 3], [(0,)] * 3, {0: tokens(TOKENS, CHANNELS).float()}, ValueError),
        ([1, 2, 3], [(0,)] * 3, {0: tokens(N, TOKENS, CHANNELS)}, ValueError),
    ],
)
def test_rows_that_do_not_fit_are_refused(names, references, kept, error):
    with pytest.raises(error):
        gather(tokens(N, TOKENS, CHANNELS), names, references, kept)


def test_biases():
    rows = [(0, 1), (2, 2)]
    assert biases_of(rows, [{0: 0.0, 1: -1.0}, {}]) == [(0.0, -1.0), (0.0, 0.0)]
    assert biases_of(rows, [{0: 0.5, 1: 0.5}, {2: 3.0}]) is None


def test_a_mask_has_the_precision_of_the_queries():
    half = torch.zeros(1, dtype=torch.float16)
    mask = bias_mask([(0.0, -1.0), (0.5, 0.0)], 2, half)
    assert mask.dtype == torch.float16
    assert mask.tolist() == [[[0, 0, -1, -1]], [[0.5, 0.5, 0, 0]]]
    assert bias_mask([(0.0, -1.0)] * 5, 2, half).shape == (1, 1, 4)
