"""The small models of DiT families are fit to be tested with, and do what `families.py` says."""

import functools

import pytest
import tiny
import torch
from families import FAMILIES, TEXT, Recorded, attention_calls, span

FRAMES = 3
FAST = {"steps": 2, "denoise": 0.5, "cfg": 3.0}
EACH = pytest.mark.parametrize("name", FAMILIES)
WITH_REFERENCES = pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.references])


class Bench:
    """A family with its MODEL, and what the usual clip and prompts become."""

    def __init__(self, name: str):
        self.family = FAMILIES[name]
        self.model = self.family.model()

    @functools.cached_property
    def usual(self) -> torch.Tensor:
        return self.sampled(self.family.clip(FRAMES), self.family.prompt(1))

    def sampled(self, latent, positive) -> torch.Tensor:
        return tiny.ksampler(self.model, positive, self.family.prompt(2), latent, **FAST)

    def calls(self, latent, conds) -> list[Recorded]:
        return attention_calls(self.model, conds, latent)


@pytest.fixture(scope="module")
def benches():
    """Benches by name, each made once."""
    return {}


@pytest.fixture
def bench(benches, name):
    if not FAMILIES[name].available():
        pytest.skip(f"this ComfyUI has no {FAMILIES[name].source}")
    if name not in benches:
        benches[name] = Bench(name)
    return benches[name]


def changed_frames(a: torch.Tensor, b: torch.Tensor) -> list[int]:
    """The frames that differ by more than rounding."""
    return [i for i in range(len(a)) if tiny.error(a[i], b[i]) > 1e-4]


def changed_tokens(a: Recorded, b: Recorded, of: str) -> list[int]:
    """Tokens of the queries or keys that differ between two calls."""
    pair = [call.token_axis(getattr(call, of)) for call in (a, b)]
    return (pair[0] - pair[1]).abs().amax(1).gt(1e-5).nonzero().flatten().tolist()


@EACH
def test_samples_something(bench):
    family = bench.family
    samples = bench.usual
    assert samples.shape == family.clip(FRAMES)["samples"].shape
    assert samples.isfinite().all()
    assert 0.2 < bench.model.model.process_latent_in(samples).std() < 6


@EACH
def test_same_weights_each_time(bench):
    """No memory is left as it was found, in weights or in buffers."""
    family = bench.family
    again = family.make()
    for (key, a), (_, b) in zip(
        [*bench.model.model.named_parameters(), *bench.model.model.named_buffers()],
        [*again.named_parameters(), *again.named_buffers()],
        strict=True,
    ):
        assert torch.equal(a, b), key


@EACH
def test_frames_are_apart(bench):
    family = bench.family
    latent = family.clip(FRAMES)
    latent["samples"][1] = family.clip(FRAMES, seed=8)["samples"][1]
    other = bench.sampled(latent, family.prompt(1))
    assert changed_frames(bench.usual, other) == [1]


@EACH
def test_prompt_matters(bench):
    family = bench.family
    other = bench.sampled(family.clip(FRAMES), family.prompt(3))
    assert tiny.error(bench.usual, other) > 0.1
    assert changed_frames(bench.usual, other) == [0, 1, 2]


@EACH
def test_one_prompt_per_frame(bench):
    family = bench.family
    samples = [
        bench.sampled(family.clip(FRAMES), conds)
        for conds in (family.prompt(1, FRAMES), changed_row(family.prompt(1, FRAMES), 1))
    ]
    assert changed_frames(*samples) == [1]


def changed_row(conds, row: int):
    (tokens, values), *others = conds
    tokens = tokens.clone()
    tokens[row] += 1
    return [[tokens, values], *others]


@WITH_REFERENCES
@pytest.mark.parametrize("count", [1, 2])
def test_references_matter(bench, count):
    family = bench.family
    latent, conds = family.clip(FRAMES), family.prompt(1)
    one, other = (
        bench.sampled(latent, family.with_references(conds, seed=seed, count=count))
        for seed in (20, 30)
    )
    assert tiny.error(one, other) > 0.05
    assert changed_frames(one, other) == [0, 1, 2]


@WITH_REFERENCES
def test_one_reference_per_frame(bench):
    family = bench.family
    latent, conds = family.clip(FRAMES), family.with_references(family.prompt(1), FRAMES)
    one = bench.sampled(latent, conds)
    conds[0][1]["reference_latents"][0][1] += 1
    assert changed_frames(one, bench.sampled(latent, conds)) == [1]


def described(call: Recorded) -> dict:
    """What a call got, in the words of `families.Call`."""
    q, k = call.head_axis(call.q), call.head_axis(call.k)
    return {
        "rows": len(q),
        "q": q.shape[2],
        "k": k.shape[2],
        "flat": not call.skip_reshape,
        "gqa": call.enable_gqa,
        "heads": (call.heads, q.shape[1]),
        **call.ids,
    }


@EACH
@pytest.mark.parametrize("references", [0, 1, 2])
def test_calls_are_as_stated(bench, references):
    """Every call comes in its turn, with the lengths and names that `families.py` states."""
    family = bench.family
    conds = family.prompt(1)
    if references:
        if not family.references:
            pytest.skip("takes no references")
        conds = family.with_references(conds, count=references)
    elif family.edits:
        pytest.skip("always has a reference")
    calls = bench.calls(family.clip(FRAMES), conds)
    lengths = family.parts(TEXT, references)
    assert [described(call) for call in calls] == [
        stated(family, call, lengths, references, FRAMES) for call in family.expected(references)
    ]
    for call, expected in zip(calls, family.expected(references), strict=True):
        keys = call.head_axis(call.k).unflatten(1, (-1, expected.repeated))
        assert (keys == keys[:, :, :1]).all(), "the same keys for heads in a row"
        if expected.layer:
            peaks = call.weights().square().sum(-1) * keys.shape[3]
            assert peaks.mean() > 2, f"attention is nearly uniform: {expected.layer}"


def stated(family, call, lengths, references: int, frames: int) -> dict:
    """What `families.py` says of a call, in the words of `described`."""
    names = {"type": "block_type", "index": "block_index", "total": "total_blocks"}
    told = {names[key]: value for key, value in call.ids.items()}
    if call.img_slice is not None:
        ends = [span(part, call.queries, lengths) for part in call.img_slice]
        told["img_slice"] = [ends[0][0], ends[-1][1]]
    if references and family.tells_references:
        told["reference_image_num_tokens"] = [lengths["references"] // references] * references
    return {
        "rows": frames * (lengths[call.rows] if call.rows else 1),
        "q": sum(lengths[part] for part in call.queries),
        "k": sum(lengths[part] for part in call.keys),
        "flat": call.flat,
        "gqa": call.gqa,
        "heads": (family.heads, family.heads),
        **told,
    }


@EACH
def test_parts_lie_as_stated(bench):
    """In the first layer a token depends on the latent if, and only if, it is of the image."""
    family = bench.family
    references = int(family.references)
    lengths = family.parts(TEXT, references)
    expected = family.expected(references)
    number = next(i for i, call in enumerate(expected) if call.layer)

    def first_layer(latent=7, prompt=1, reference=11):
        (tokens, values), *_ = family.prompt(prompt)
        pooled = family.prompt(1)[0][1]["pooled_output"]  # which all tokens depend on
        conds = [[tokens, {**values, "pooled_output": pooled}]]
        if references:
            conds = family.with_references(conds, seed=reference)
        return bench.calls(family.clip(FRAMES, latent), conds)[number]

    usual = first_layer()
    others = {"image": first_layer(latent=8)}
    if "text" in expected[number].queries:
        others["text"] = first_layer(prompt=3)
    if references:
        others["references"] = first_layer(reference=12)
    for part, other in others.items():
        for of, sequence in (("q", expected[number].queries), ("k", expected[number].keys)):
            tokens = list(range(*span(part, sequence, lengths)))
            assert changed_tokens(usual, other, of) == tokens, (part, of)
