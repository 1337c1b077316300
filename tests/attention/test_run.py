"""Two orders of work are the same function: a toy denoiser of real attention, in float64.

Third road, without anything of the pack: all layers of all frames at once, each frame
attending to its references by plain indexing.
"""

import logging
from dataclasses import dataclass

import pytest
import torch
from crossframe.attention import (
    REFERENCES,
    WITH_KEYFRAMES,
    FrameByFrame,
    Layer,
    PaintingOrder,
    PerStep,
    Policy,
    Reference,
    Run,
    StepMismatchError,
    WithSelf,
    reference_policy,
)
from crossframe.attention.compose import bias_mask
from crossframe.attention.references import Own, attended

TOKENS, CHANNELS, STEPS = 6, 4, 3
LAYERS = [Layer("output", number, index) for number in range(2) for index in range(2)]
ENTRIES = ["cond", "uncond"]


@dataclass(frozen=True)
class Keyframes(Policy):
    """Every third frame is a keyframe. Keyframes see each other, and all frames see them."""

    frames: int

    def references(self, frame):
        keys = range(0, self.frames, 3)
        return tuple(keys) if frame in keys else (*keys, max(frame - 1, 0))


@dataclass(frozen=True)
class Next(Policy):
    """Every frame attends to the next one, and the last frame to itself."""

    frames: int

    def references(self, frame):
        return (min(frame + 1, self.frames - 1),)


@dataclass(frozen=True)
class Weighted(Policy):
    """References with weights, one of them above 1, and the frame itself at the end."""

    first: float = 3.0

    def references(self, frame):
        return (Reference(0, self.first), Reference(max(frame - 1, 0), 0.4), Reference(frame, 1.7))


LOOKING_BACK = [name for name in REFERENCES if name not in WITH_KEYFRAMES]
POLICIES = [
    *(reference_policy(name, own) for name in LOOKING_BACK for own in (False, True)),
    Own(),
    Weighted(),
    Weighted(0.0),
    Keyframes,
    WithSelf(Keyframes(7)),
    Next,
]


def random(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


WEIGHTS = {
    layer: [random(CHANNELS, CHANNELS, seed=10 * i + j) for j in range(3)]
    for i, layer in enumerate(LAYERS)
}


def attention(layer, own, context, mass=1.0):
    """One layer: (rows, tokens, channels), (rows, k * tokens, channels) -> like own.

    mass: by which the softmax mass of keys is multiplied.
    """
    query, key, value = WEIGHTS[layer]
    shares = ((own @ query) @ (context @ key).transpose(1, 2)).softmax(-1) * mass
    return own + 0.5 * (shares / shares.sum(-1, keepdim=True)) @ (context @ value)


def gathered(evaluation, layer, entries, rows):
    """The keys and values of rows, and the factors on their mass."""
    (context,), biases = evaluation.gathered(layer, entries, (rows,))
    return context, 1.0 if biases is None else bias_mask(biases, TOKENS, rows).exp()


def denoise(x, entries, attend):
    """One evaluation for entries x frames: each entry starts from its own prompt."""
    prompts = {entry: random(1, TOKENS, CHANNELS, seed=99 + i) for i, entry in enumerate(ENTRIES)}
    rows = torch.cat([x + prompts[entry] for entry in entries])
    for layer in LAYERS:
        rows = attention(layer, rows, *attend(layer, rows))
    return dict(zip(entries, rows.split(len(x))))


def step(x, parts):
    """Guidance and a step towards the prediction."""
    guided = parts["uncond"] + 2.0 * (parts["cond"] - parts["uncond"])
    return x + 0.3 * (guided - x)


def by_indexing(policy, frames):
    """The rule itself: keys and values of frame i come from the frames it names."""
    x = random(frames, TOKENS, CHANNELS, seed=1)

    def attend_one(frame):
        references = attended(policy, frame)
        weights = [r.weight for r in references for _ in range(TOKENS)]
        mass = torch.tensor(weights, dtype=torch.float64)
        return lambda layer, rows: (
            torch.stack(
                [
                    torch.cat([rows[entry * frames + r.frame] for r in references])
                    for entry in range(2)
                    for _ in range(frames)
                ]
            ),
            mass,
        )

    for _ in range(STEPS):
        prompts = [random(1, TOKENS, CHANNELS, seed=99 + i) for i in range(2)]
        rows = torch.cat([x + prompt for prompt in prompts])
        for layer in LAYERS:
            results = [attention(layer, rows, *attend_one(f)(layer, rows)) for f in range(frames)]
            rows = torch.stack([results[r % frames][r] for r in range(2 * frames)])
        x = step(x, dict(zip(ENTRIES, rows.split(frames))))
    return x


def new_run(policy, frames):
    return Run(policy, PaintingOrder.of(policy, frames))


def all_frames_per_step(policy, frames, batch):
    """Whole groups are put into a batch until it has as many frames as it should have."""
    run, x = new_run(policy, frames), random(frames, TOKENS, CHANNELS, seed=1)
    lead = PerStep(run)
    batches = [[]]
    for group in run.order.groups:
        if len(batches[-1]) >= batch:
            batches.append([])
        batches[-1] += group
    for number in range(STEPS):
        step_number = lead.next_step()
        after = x.clone()
        for part in batches:
            evaluation = run.evaluate(step_number, part, LAYERS)
            entries = ENTRIES[:: 1 if number % 2 else -1]  # their order does not matter
            parts = denoise(
                x[part],
                entries,
                lambda layer, rows: gathered(evaluation, layer, entries, rows),  # noqa: B023
            )
            after[part] = step(x[part], parts)
        x = after
    return x, run


def frame_by_frame(policy, frames, split):
    run, x = new_run(policy, frames), random(frames, TOKENS, CHANNELS, seed=1)
    lead = FrameByFrame(run)
    finished = torch.empty_like(x)
    for _ in run.order.groups:
        group = list(lead.next_group())
        own = x[group]
        for number in range(STEPS):
            lead.next_step(float(number))
            evaluation = lead.evaluate(LAYERS)
            parts = {}
            for entries in [["uncond"], ["cond"]] if split else [ENTRIES]:
                parts |= denoise(
                    own,
                    entries,
                    lambda layer, rows: gathered(evaluation, layer, entries, rows),  # noqa: B023
                )
            own = step(own, parts)
        finished[group] = own
    return finished, run


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_two_orders_one_result(policy, frames):
    if isinstance(policy, type):
        policy = policy(frames)
    elif isinstance(policy, WithSelf) and isinstance(policy.policy, Keyframes):
        policy = WithSelf(Keyframes(frames))
    expected = by_indexing(policy, frames)
    for batch in (1, 2, 3, 7):
        result, run = all_frames_per_step(policy, frames, batch)
        assert torch.allclose(result, expected, rtol=0, atol=1e-10)
        assert run.bank.nbytes == 0
    for split in (False, True):
        result, run = frame_by_frame(policy, frames, split)
        assert torch.allclose(result, expected, rtol=0, atol=1e-10)
        assert run.bank.nbytes == 0, "the last frame leaves nothing that nobody reads"
    if frames > 1 and not isinstance(policy, Own):
        plain = by_indexing(Own(), frames)
        assert float((expected - plain).abs().max()) > 0.01


def test_the_bank_of_each_order():
    size = TOKENS * CHANNELS * 8 * len(LAYERS) * len(ENTRIES)
    policy = reference_policy("first + previous")
    assert all_frames_per_step(policy, 7, 7)[1].peak_bytes == 0
    assert all_frames_per_step(policy, 7, 2)[1].peak_bytes == 2 * size
    assert frame_by_frame(policy, 7, False)[1].peak_bytes == 2 * size * STEPS


def test_keyframes_are_painted_first_and_together():
    order = PaintingOrder.of(Keyframes(7), 7)
    assert order.groups == ((0, 3, 6), (1,), (2,), (4,), (5,))
    run = frame_by_frame(Keyframes(7), 7, False)[1]
    size = TOKENS * CHANNELS * 8 * len(LAYERS) * len(ENTRIES)
    assert run.peak_bytes == order.most_kept() * size * STEPS == 4 * size * STEPS


def test_keys_and_values_may_differ():
    """Where another patch feeds them differently, each stream meets its own references."""
    run = new_run(reference_policy("previous"), 2)
    keys, values = random(2, TOKENS, CHANNELS, seed=1), random(2, TOKENS, CHANNELS, seed=2)
    number = PerStep(run).next_step()
    for frame in range(2):
        evaluation = run.evaluate(number, (frame,), LAYERS)
        tokens = keys[frame : frame + 1], values[frame : frame + 1]
        result, _ = evaluation.gathered(LAYERS[0], ["cond"], tokens)
    assert torch.equal(result[0], keys[:1])
    assert torch.equal(result[1], values[:1])


def test_other_layers_are_left_alone():
    run = new_run(reference_policy("first"), 2)
    rows = random(2, TOKENS, CHANNELS, seed=1)
    evaluation = run.evaluate(0, (0, 1), LAYERS[:1])
    assert evaluation.gathered(LAYERS[1], ["cond"], (rows,))[0][0] is rows
    assert evaluation.gathered(LAYERS[0], ["cond"], (rows,))[0][0] is not rows


def test_a_batch_of_other_rows_is_refused():
    evaluation = new_run(reference_policy("first"), 3).evaluate(0, (0, 1, 2), LAYERS)
    with pytest.raises(ValueError, match="regroups"):
        evaluation.gathered(LAYERS[0], ENTRIES, (random(5, TOKENS, CHANNELS, seed=1),))


def test_a_second_visit_in_one_evaluation_meets_the_second_visit_of_its_references():
    """Another node may run the model several times in a step, on one tile after the other."""
    policy = reference_policy("first")
    clips = [random(2, TOKENS, CHANNELS, seed=seed) for seed in (1, 2)]
    run = new_run(policy, 2)
    number = PerStep(run).next_step()
    for frame in range(2):
        evaluation = run.evaluate(number, (frame,), LAYERS)
        for clip in clips:
            (found,), _ = evaluation.gathered(LAYERS[0], ["cond"], (clip[frame : frame + 1],))
            assert torch.equal(found, clip[:1])


def test_a_missing_reference_is_self_attention_said_once(caplog):
    """A prompt that begins at a later step for later frames is such a case."""
    caplog.set_level(logging.WARNING, "crossframe")
    lead = FrameByFrame(new_run(reference_policy("first + previous"), 3))
    rows = random(2, TOKENS, CHANNELS, seed=1)
    lead.next_group()
    lead.next_step(1.0)
    lead.evaluate(LAYERS).gathered(LAYERS[0], ["cond"], (rows[:1],))
    lead.next_group()
    lead.next_step(1.0)
    evaluation = lead.evaluate(LAYERS)
    (result,), _ = evaluation.gathered(LAYERS[0], ["uncond", "cond"], (rows,))
    assert torch.equal(result[0], rows[0])
    assert torch.equal(result[1], rows[0])
    evaluation.gathered(LAYERS[1], ["cond"], (rows[:1],))
    assert len(caplog.messages) == 1
    assert "frame 1" in caplog.messages[0]


@pytest.mark.parametrize("levels", [[3.0, 2.0, 0.5], [3.0, 2.0, 1.0, 0.5]])
def test_frames_on_other_steps_are_refused(levels):
    lead = FrameByFrame(new_run(reference_policy("first"), 2))
    lead.next_group()
    for level in (3.0, 2.0, 1.0):
        lead.next_step(level)
    lead.next_group()
    with pytest.raises(StepMismatchError, match=r"frame 1 .* 0\.5"):
        for level in levels:
            lead.next_step(level)


def test_a_frame_that_stops_early_is_refused():
    lead = FrameByFrame(new_run(reference_policy("first"), 3))
    lead.next_group()
    lead.next_step(3.0)
    lead.next_step(2.0)
    lead.next_group()
    lead.next_step(3.0)
    with pytest.raises(StepMismatchError, match="frame 1 took 1"):
        lead.next_group()


def test_there_are_no_more_groups_than_the_order_has():
    lead = FrameByFrame(new_run(reference_policy("first"), 1))
    lead.next_group()
    with pytest.raises(IndexError, match="all 1 groups"):
        lead.next_group()


def test_a_noise_level_may_come_twice():
    """Samplers that evaluate the model twice per step visit a level twice, with different x."""
    lead = FrameByFrame(new_run(reference_policy("previous"), 2))
    for frame in range(2):
        lead.next_group()
        rows = random(2, TOKENS, CHANNELS, seed=frame)
        for visit in range(2):
            lead.next_step(1.0)
            evaluation = lead.evaluate(LAYERS)
            (result,), _ = evaluation.gathered(LAYERS[0], ["cond"], (rows[visit : visit + 1],))
            expected = random(2, TOKENS, CHANNELS, seed=0)[visit]
            assert torch.equal(result[0], expected)
