"""The small models of DiT families are fit to be tested with, and do what `families.py` says."""

import functools
import math

import pytest
import tiny
import torch
from families import FAMILIES, Recorded, attention_calls, available, span
from family import IMG, REF, TXT

FRAMES = 3
FAST = {"steps": 1, "denoise": 0.5, "cfg": 3.0, "scheduler": "simple"}


def each(which=lambda family: True):
    """Run a test for every family of a kind."""
    return pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if which(f)])


def seen(family) -> bool:
    """Whether an override sees the attention of a family."""
    return bool(family.expected())


class Bench:
    """A family with its MODEL, and what the usual clip and prompts become."""

    def __init__(self, name: str):
        self.family = FAMILIES[name]
        self.model = self.family.model()

    @functools.cached_property
    def usual(self) -> torch.Tensor:
        return self.sampled(self.family.clip(FRAMES), self.family.prompt(1))

    def sampled(self, latent, positive) -> torch.Tensor:
        return tiny.ksampler(self.fresh(), positive, self.family.prompt(2), latent, **FAST)

    def calls(self, latent, conds, **inputs) -> list[Recorded]:
        return attention_calls(self.fresh(), conds, latent, **inputs)

    def fresh(self):
        """The MODEL, without the keys that HiDream-O1 keeps of earlier prompts."""
        network = self.model.model.diffusion_model
        if hasattr(network, "clear_kv_cache"):
            network.clear_kv_cache()
        return self.model


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


def with_row(conds: list, other: list, row: int) -> list:
    """A CONDITIONING of one row per frame, with one row of another."""

    def mixed(value, other):
        if not isinstance(value, torch.Tensor) or len(value) != FRAMES:
            return value
        value = value.clone()
        value[row] = other[row]
        return value

    ((cond, values),), ((cond2, values2),) = conds, other
    return [[mixed(cond, cond2), {key: mixed(values[key], values2[key]) for key in values}]]


def test_families_come_by_name():
    assert set(available()) <= set(FAMILIES)
    assert {"flux", "qwen_image", "z_image", "sd3", "cosmos_predict2"} <= set(available())


@each()
def test_samples_something(bench):
    samples = bench.usual
    assert samples.shape == bench.family.clip(FRAMES)["samples"].shape
    assert samples.isfinite().all()
    assert 0.2 < bench.model.model.process_latent_in(samples).std() < 20


@each()
def test_same_weights_each_time(bench):
    """No memory is left as it was found, in weights or in buffers."""
    made, again = bench.model.model, bench.family.make()
    for (key, a), (_, b) in zip(
        [*made.named_parameters(), *made.named_buffers()],
        [*again.named_parameters(), *again.named_buffers()],
        strict=True,
    ):
        assert torch.equal(a, b), key


@each()
def test_frames_are_apart(bench):
    family = bench.family
    latent = family.clip(FRAMES)
    latent["samples"][1] = family.clip(FRAMES, seed=8)["samples"][1]
    assert changed_frames(bench.usual, bench.sampled(latent, family.prompt(1))) == [1]


@each(lambda family: family.prompted)
def test_prompt_matters(bench):
    family = bench.family
    other = bench.sampled(family.clip(FRAMES), family.prompt(3))
    assert tiny.error(other, bench.usual) > 0.1
    assert changed_frames(bench.usual, other) == [0, 1, 2]


@each(lambda family: family.prompted and family.prompt_rows)
def test_one_prompt_per_frame(bench):
    family = bench.family
    conds = family.prompt(1, FRAMES)
    others = with_row(conds, family.prompt(3, FRAMES), 1)
    one, other = (bench.sampled(family.clip(FRAMES), each) for each in (conds, others))
    assert changed_frames(one, other) == [1]


@each(lambda family: family.references)
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


@each(lambda family: family.references and family.reference_rows)
def test_one_reference_per_frame(bench):
    family = bench.family
    latent, conds = family.clip(FRAMES), family.with_references(family.prompt(1), FRAMES)
    one = bench.sampled(latent, conds)
    conds[0][1]["reference_latents"][0][1] += 1
    assert changed_frames(one, bench.sampled(latent, conds)) == [1]


def described(call: Recorded) -> dict:
    """What a call got, in the words of ComfyUI."""
    q, k, v = (call.head_axis(tensor) for tensor in (call.q, call.k, call.v))
    assert k.shape[:3] == v.shape[:3]
    return {
        "rows": len(q),
        "q": q.shape[2],
        "k": k.shape[2],
        "heads": (call.heads, q.shape[1], k.shape[1]),
        "mask": None if call.mask is None else tuple(call.mask.shape),
        "skip_reshape": call.kwargs.get("skip_reshape", False),
        "skip_output_reshape": call.kwargs.get("skip_output_reshape", False),
        "enable_gqa": call.kwargs.get("enable_gqa", False),
        **call.ids,
    }


def stated(family, call, lengths, references: int, frames=FRAMES, hidden=False) -> dict:
    """What `families.py` says of a call, in the words of ComfyUI."""
    told = dict(call.ids)
    if call.img_slice is not None:
        ends = [span(part, call.queries, lengths) for part in call.img_slice]
        told["img_slice"] = [ends[0][0], ends[-1][1]]
    if references and family.tells_references:
        told["reference_image_num_tokens"] = [lengths[REF] // references] * references
    heads = family.heads
    rows = frames * (lengths[call.rows] if call.rows else 1)
    q, k = (sum(lengths[part] for part in parts) for parts in (call.queries, call.keys))
    axes = {"rows": rows, "queries": q, "keys": k, 1: 1}
    mask = tuple(axes[axis] for axis in call.mask or ())
    return {
        "rows": rows,
        "q": q,
        "k": k,
        "heads": (heads, heads, heads // call.grouped),
        "mask": mask if mask and (hidden or call.always_masked) else None,
        "skip_reshape": not call.flat,
        "skip_output_reshape": call.split,
        "enable_gqa": call.grouped > 1,
        **told,
    }


@pytest.mark.parametrize(
    ("name", "references"),
    [
        (name, references)
        for name, family in FAMILIES.items()
        for references in ((1, 2) if family.edits else (0, 1, 2) if family.references else (0,))
    ],
)
def test_calls_are_as_stated(bench, references):
    """Every call comes in its turn, with the lengths and names that `families.py` states."""
    family = bench.family
    conds = family.prompt(1)
    if references:
        conds = family.with_references(conds, count=references)
    lengths = family.parts(references)
    expected = [stated(family, call, lengths, references) for call in family.expected(references)]
    calls = bench.calls(family.clip(FRAMES), conds)
    assert as_newest(expected, [described(call) for call in calls]) == expected


def as_newest(expected: list[dict], found: list[dict]) -> list[dict]:
    """Add what an older ComfyUI does not tell yet, or has done already, to what was found."""
    if set(available()) == set(FAMILIES):
        return found
    told = ("block_type", "block_index", "total_blocks", "reference_image_num_tokens")
    new = []
    for call, other in zip(found, expected):
        call = {**{key: other[key] for key in told if key in other}, **call}
        if other["enable_gqa"] and not call["enable_gqa"]:  # it has repeated the keys
            assert call["heads"][1] == call["heads"][2]
            call.update(heads=other["heads"], enable_gqa=True)
        new.append(call)
    return new + found[len(new) :]


@each(lambda family: family.hides)
def test_masks_are_as_stated(bench):
    """A mask of the prompt arrives in the stated form, and hides its tokens from the image."""
    family = bench.family
    frames, hidden = FRAMES if family.hides_rows else 1, 2
    lengths, expected = family.parts(), family.expected()
    calls = bench.calls(family.clip(frames), family.prompt(1, hidden=hidden))
    references = int(family.edits)
    wanted = [stated(family, call, lengths, references, frames, True) for call in expected]
    assert as_newest(wanted, [described(call) for call in calls]) == wanted
    for call, other in zip(calls, expected):
        if other.layer:
            last = span(TXT, other.keys, lengths)[1]
            image = span(IMG, other.queries, lengths)[0]
            mask = call.mask.expand(*call.mask.shape[:-2], sum(lengths.values()), -1)
            unseen = (mask[..., image, :] < -1e9).nonzero()[:, -1].unique().tolist()
            assert unseen == list(range(last - hidden, last))


@each(lambda family: family.patch > 1 and family.odd)
def test_odd_pictures(bench):
    """A picture whose sides are no multiples of a patch has a patch more on each side."""
    family = bench.family
    samples = family.clip(1)["samples"][..., :-1, :-1]
    calls = bench.calls({"samples": samples}, family.prompt(1))
    usual = bench.calls(family.clip(1), family.prompt(1))
    assert family.tokens(*samples.shape[-2:]) == family.parts()[IMG]
    assert [described(call) for call in calls] == [described(call) for call in usual]


@each(lambda family: family.prompted and seen(family))
def test_prompts_of_other_lengths(bench):
    """Every part is where it should be if the prompt is longer, or (as Lens does) empty."""
    family = bench.family
    for tokens in [family.text + 30, *([0] if family.name == "lens" else [])]:
        lengths, references = family.parts(text=tokens), int(family.edits)
        calls = bench.calls(family.clip(FRAMES), family.prompt(1, tokens=tokens))
        wanted = [stated(family, call, lengths, references) for call in family.expected()]
        assert as_newest(wanted, [described(call) for call in calls]) == wanted


@each(seen)
def test_later_evaluations_are_alike(bench):
    """The second evaluation of a sampling makes the calls of the first."""
    family = bench.family
    calls = bench.calls(family.clip(FRAMES), family.prompt(1), steps=2)
    first, second = calls[: len(calls) // 2], calls[len(calls) // 2 :]
    assert [described(call) for call in first] == [described(call) for call in second]


@each(seen)
def test_attention_is_uneven(bench):
    """Layers choose among tokens, and heads have the same keys only if `families.py` says so."""
    family = bench.family
    calls = bench.calls(family.clip(FRAMES), family.prompt(1))
    for call, expected in zip(calls, family.expected(), strict=True):
        keys = call.head_axis(call.k).unflatten(1, (-1, expected.repeated))
        assert (keys == keys[:, :, :1]).all()
        assert family.heads == expected.repeated or not (keys[:, :1] == keys).all()
        if expected.layer:
            weights = call.weights()
            assert (weights.square().sum(-1) * weights.shape[-1]).mean() > 1.8, expected.layer


@each(seen)
def test_parts_lie_as_stated(bench):
    """A token depends on the latent if, and only if, it is of the image; in every call.

    Attention gives nothing here, which would let tokens depend on one another.
    """
    family = bench.family
    references = int(family.references)
    lengths = family.parts(references)

    def calls(latent=7, prompt=1, reference=11):
        ((cond, values),) = family.prompt(prompt)
        common = ("pooled_output", "concat_latent_image", "lq_latent", "concat_mask")
        first = family.prompt(1)[0][1]  # all tokens depend on these
        conds = [[cond, {**values, **{key: first[key] for key in common if key in first}}]]
        if references:
            conds = family.with_references(conds, seed=reference)
        return bench.calls(family.clip(FRAMES, latent), conds, silent=True)

    usual, others = calls(), {IMG: calls(latent=8)}
    if family.prompted:
        others[TXT] = calls(prompt=3)
    if references:
        others[REF] = calls(reference=12)
    for number, call in enumerate(family.expected(references)):
        for of, sequence in (("q", call.queries), ("k", call.keys)):
            if call.rows:  # the tokens of a part are not in the sequence, but rows
                continue
            changed = {
                part: set(changed_tokens(usual[number], other[number], of))
                for part, other in others.items()
            }
            parts = {part: set(range(*span(part, sequence, lengths))) for part in sequence}
            pictures = parts.get(IMG, set()) | parts.get(REF, set())
            text = set().union(*(parts.get(part, set()) for part in family.texts))
            assert changed[IMG] == own_tokens(family, IMG, sequence, lengths), (call, of)
            if references:
                tokens = own_tokens(family, REF, sequence, lengths)
                assert changed[REF] & pictures == tokens, (call, of)
            if family.prompted:
                assert changed[TXT] <= text, (call, of)
                assert len(changed[TXT]) > 4 or not text, (call, of)


def own_tokens(family, part: str, sequence, lengths) -> set[int]:
    """The tokens of a picture, but for those that fill its length up to a multiple."""
    if part not in sequence:
        return set()
    if part == IMG:
        tokens, size = family.image_tokens(sequence, lengths), family.size
    else:
        tokens, size = list(range(*span(part, sequence, lengths))), family.reference_size
    return set(tokens if family.multiple == 1 else tokens[: math.prod(size)])
