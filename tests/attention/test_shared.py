"""Rows that share projected references: the same attention as row by row, for less work."""

from math import log

import pytest
import torch
from crossframe.attention.compose import biases_of, simplest
from crossframe.attention.shared import attend_to_rows, collect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOKENS, CHANNELS = 3, 4


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


TO_K, TO_V = random(CHANNELS, 2, seed=10), random(CHANNELS, 5, seed=11)


class Attention:
    """Attention, (b, q, 2), (b, k, 2), (b, k, 5) -> (b, q, 5); remembers its sizes.

    What a mask adds to the logits multiplies the softmax mass here.
    """

    def __init__(self):
        self.sizes = []

    def __call__(self, query, key, value, mask=None):
        self.sizes.append((tuple(query.shape[:2]), key.shape[1]))
        mass = (query @ key.transpose(1, 2)).exp() * (1 if mask is None else mask.exp())
        return mass / mass.sum(-1, keepdim=True) @ value


@st.composite
def batches(draw):
    """Names of a batch's rows, their references, and names of rows kept from elsewhere."""
    names = [f"own {row}" for row in range(draw(st.integers(1, 6)))]
    others = [f"kept {row}" for row in range(draw(st.integers(0, 3)))]
    some = st.lists(st.sampled_from(names + others), min_size=1, max_size=4).map(tuple)
    references = draw(st.lists(some, min_size=len(names), max_size=len(names)))
    # Names with a weight, in some rows.
    weights = st.dictionaries(st.sampled_from(names + others), st.sampled_from([0.5, 2.0, 3.0]))
    weighed = draw(st.lists(weights, min_size=len(names), max_size=len(names)))
    return names, references, others, weighed


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(batches())
def test_the_same_as_row_by_row(batch):
    names, references, others, weighed = batch
    own, query = random(len(names), TOKENS, CHANNELS), random(len(names), 2 * TOKENS, 2, seed=1)
    kept = dict(zip(others, random(len(others), TOKENS, CHANNELS, seed=2)))
    everyone = {**dict(zip(names, own)), **kept}
    expected = []
    for row, wanted in enumerate(references):
        context = torch.cat([everyone[name] for name in wanted])[None]
        weights = [weighed[row].get(name, 1.0) for name in wanted]
        mask = torch.tensor(weights, dtype=torch.float64).log().repeat_interleave(TOKENS)
        expected.append(Attention()(query[row : row + 1], context @ TO_K, context @ TO_V, mask))

    added = [{name: log(weight) for name, weight in row.items()} for row in weighed]
    biases = biases_of([simplest(row) for row in references], added)
    sources, rows = collect(own, names, references, kept)
    assert len(sources) <= len(own) + len(kept)
    actual = attend_to_rows(query, sources @ TO_K, sources @ TO_V, rows, Attention(), biases)
    assert torch.allclose(actual, torch.cat(expected), atol=1e-12)


def test_rows_with_one_reference_share_one_set_of_keys():
    own, old = random(4, TOKENS, CHANNELS), random(TOKENS, CHANNELS, seed=1)
    sources, rows = collect(own, [5, 6, 7, 8], [(0,)] * 4, {0: old})
    assert torch.equal(sources, old[None])
    attention = Attention()
    attend_to_rows(random(4, TOKENS, 2), sources @ TO_K, sources @ TO_V, rows, attention)
    assert attention.sizes == [((1, 4 * TOKENS), TOKENS)]


def test_a_clip_in_one_batch():
    """First and previous: frames 0 and 1 look at one frame, the others at two, none at three."""
    own = random(5, TOKENS, CHANNELS)
    references = [(0,), (0, 0), (0, 1), (0, 2), (0, 3)]
    sources, rows = collect(own, range(5), references, {})
    assert sources is own
    attention = Attention()
    attend_to_rows(random(5, TOKENS, 2), sources @ TO_K, sources @ TO_V, rows, attention)
    assert attention.sizes == [((1, 2 * TOKENS), TOKENS), ((3, TOKENS), 2 * TOKENS)]


def test_plain_self_attention_is_left_alone():
    own, query = random(3, TOKENS, CHANNELS), random(3, TOKENS, 2)
    sources, rows = collect(own, range(3), [(0,), (1,), (2,)], {})
    assert sources is own
    attention = Attention()
    shared = attend_to_rows(query, own @ TO_K, own @ TO_V, rows, attention)
    assert torch.equal(shared, attention(query, own @ TO_K, own @ TO_V))
    assert attention.sizes == [((3, TOKENS), TOKENS)] * 2


def test_bad_input():
    own = random(2, TOKENS, CHANNELS)
    with pytest.raises(KeyError):
        collect(own, [0, 1], [(0,), (7,)], {})
    with pytest.raises(ValueError, match="distinct names"):
        collect(own, [0, 0], [(0,), (0,)], {})
    with pytest.raises(ValueError, match="the batch needs"):
        collect(own, [0, 1], [(9,), (9,)], {9: random(TOKENS + 1, CHANNELS)})
    with pytest.raises(ValueError, match="2 rows of queries need 2 rows of references"):
        attend_to_rows(random(2, TOKENS, 2), own @ TO_K, own @ TO_V, [(0,)], Attention())
    key, value = own @ TO_K, own @ TO_V
    for keys, values in [(key[:1], value[:1]), (key, value[:1])]:
        with pytest.raises(ValueError, match="rows attend to row 1"):
            attend_to_rows(random(2, TOKENS, 2), keys, values, [(0,), (1,)], Attention())
