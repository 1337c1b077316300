"""Two orders of work are the same function: a toy denoiser of real attention, in float64.

Third road, without anything of the pack: all layers of all frames at once, each frame
attending to its references by plain indexing.
"""

import logging

import pytest
import torch
from crossframe.attention import REFERENCES, Layer, Run, StepMismatchError, WithSelf
from crossframe.attention.references import Own

TOKENS, CHANNELS, STEPS = 6, 4, 3
LAYERS = [Layer("output", number, index) for number in range(2) for index in range(2)]
ENTRIES = ["cond", "uncond"]
POLICIES = [*REFERENCES.values(), *map(WithSelf, REFERENCES.values()), Own()]


def random(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


WEIGHTS = {
    layer: [random(CHANNELS, CHANNELS, seed=10 * i + j) for j in range(3)]
    for i, layer in enumerate(LAYERS)
}


def attention(layer, own, context):
    """One layer: (rows, tokens, channels), (rows, k * tokens, channels) -> like own."""
    query, key, value = WEIGHTS[layer]
    scores = (own @ query) @ (context @ key).transpose(1, 2)
    return own + 0.5 * scores.softmax(-1) @ (context @ value)


def denoise(x, entries, attend):
    """One evaluation for entries x frames: each entry starts from its own prompt."""
    prompts = {entry: random(1, TOKENS, CHANNELS, seed=99 + i) for i, entry in enumerate(ENTRIES)}
    rows = torch.cat([x + prompts[entry] for entry in entries])
    for layer in LAYERS:
        rows = attention(layer, rows, attend(layer, rows))
    return dict(zip(entries, rows.split(len(x))))


def step(x, parts):
    """Guidance and a step towards the prediction."""
    guided = parts["uncond"] + 2.0 * (parts["cond"] - parts["uncond"])
    return x + 0.3 * (guided - x)


def by_indexing(policy, frames):
    """The rule itself: keys and values of frame i come from the frames it names."""
    x = random(frames, TOKENS, CHANNELS, seed=1)

    def attend_one(frame):
        return lambda layer, rows: torch.stack(
            [
                torch.cat([rows[entry * frames + f] for f in policy.references(frame)])
                for entry in range(2)
                for _ in range(frames)
            ]
        )

    for _ in range(STEPS):
        prompts = [random(1, TOKENS, CHANNELS, seed=99 + i) for i in range(2)]
        rows = torch.cat([x + prompt for prompt in prompts])
        for layer in LAYERS:
            results = [attention(layer, rows, attend_one(f)(layer, rows)) for f in range(frames)]
            rows = torch.stack([results[r % frames][r] for r in range(2 * frames)])
        x = step(x, dict(zip(ENTRIES, rows.split(frames))))
    return x


def all_frames_per_step(policy, frames, batch):
    run, x = Run(policy, frames), random(frames, TOKENS, CHANNELS, seed=1)
    for number in range(STEPS):
        run.forget()
        outputs = []
        for start in range(0, frames, batch):
            part = range(start, min(start + batch, frames))
            evaluation = run.evaluate(part, LAYERS)
            entries = ENTRIES[:: 1 if number % 2 else -1]  # their order does not matter
            parts = denoise(
                x[part.start : part.stop],
                entries,
                lambda layer, rows: evaluation.attend(layer, entries, (rows,))[0],  # noqa: B023
            )
            outputs.append(step(x[part.start : part.stop], parts))
        x = torch.cat(outputs)
    return x, run


def frame_by_frame(policy, frames, split):
    run, x = Run(policy, frames), random(frames, TOKENS, CHANNELS, seed=1)
    finished = []
    for frame in range(frames):
        run.start_frame(frame)
        one = x[frame : frame + 1]
        for number in range(STEPS):
            run.next_step(float(number))
            evaluation = run.evaluate((frame,), LAYERS)
            parts = {}
            for entries in [["uncond"], ["cond"]] if split else [ENTRIES]:
                parts |= denoise(
                    one,
                    entries,
                    lambda layer, rows: evaluation.attend(layer, entries, (rows,))[0],  # noqa: B023
                )
            one = step(one, parts)
        finished.append(one)
    return torch.cat(finished), run


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_two_orders_one_result(policy, frames):
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
    policy = REFERENCES["first + previous"]
    assert all_frames_per_step(policy, 7, 7)[1].peak_bytes == 0
    assert all_frames_per_step(policy, 7, 2)[1].peak_bytes == 2 * size
    assert frame_by_frame(policy, 7, False)[1].peak_bytes == 2 * size * STEPS


def test_keys_and_values_may_differ():
    """Where another patch feeds them differently, each stream meets its own references."""
    run = Run(REFERENCES["previous"], 2)
    keys, values = random(2, TOKENS, CHANNELS, seed=1), random(2, TOKENS, CHANNELS, seed=2)
    run.forget()
    for frame in range(2):
        evaluation = run.evaluate((frame,), LAYERS)
        tokens = keys[frame : frame + 1], values[frame : frame + 1]
        result = evaluation.attend(LAYERS[0], ["cond"], tokens)
    assert torch.equal(result[0], keys[:1])
    assert torch.equal(result[1], values[:1])


def test_other_layers_are_left_alone():
    run = Run(REFERENCES["first"], 2)
    rows = random(2, TOKENS, CHANNELS, seed=1)
    evaluation = run.evaluate((0, 1), LAYERS[:1])
    assert evaluation.attend(LAYERS[1], ["cond"], (rows,))[0] is rows
    assert evaluation.attend(LAYERS[0], ["cond"], (rows,))[0] is not rows


def test_a_batch_of_other_rows_is_refused():
    evaluation = Run(REFERENCES["first"], 3).evaluate((0, 1, 2), LAYERS)
    with pytest.raises(ValueError, match="regroups"):
        evaluation.attend(LAYERS[0], ENTRIES, (random(5, TOKENS, CHANNELS, seed=1),))


def test_a_second_visit_in_one_evaluation_meets_the_second_visit_of_its_references():
    """Another node may run the model several times in a step, on one tile after the other."""
    policy = REFERENCES["first"]
    clips = [random(2, TOKENS, CHANNELS, seed=seed) for seed in (1, 2)]
    run = Run(policy, 2)
    run.forget()
    for frame in range(2):
        evaluation = run.evaluate((frame,), LAYERS)
        for clip in clips:
            (found,) = evaluation.attend(LAYERS[0], ["cond"], (clip[frame : frame + 1],))
            assert torch.equal(found, clip[:1])


def test_a_missing_reference_is_self_attention_said_once(caplog):
    """A prompt that begins at a later step for later frames is such a case."""
    caplog.set_level(logging.WARNING, "crossframe")
    run = Run(REFERENCES["first + previous"], 3)
    rows = random(2, TOKENS, CHANNELS, seed=1)
    run.start_frame(0)
    run.next_step(1.0)
    run.evaluate((0,), LAYERS).attend(LAYERS[0], ["cond"], (rows[:1],))
    run.start_frame(1)
    run.next_step(1.0)
    evaluation = run.evaluate((1,), LAYERS)
    (result,) = evaluation.attend(LAYERS[0], ["uncond", "cond"], (rows,))
    assert torch.equal(result[0], rows[0])
    assert torch.equal(result[1], rows[0])
    evaluation.attend(LAYERS[1], ["cond"], (rows[:1],))
    assert len(caplog.messages) == 1
    assert "frame 1" in caplog.messages[0]


@pytest.mark.parametrize("levels", [[3.0, 2.0, 0.5], [3.0, 2.0, 1.0, 0.5]])
def test_frames_on_other_steps_are_refused(levels):
    run = Run(REFERENCES["first"], 2)
    run.start_frame(0)
    for level in (3.0, 2.0, 1.0):
        run.next_step(level)
    run.start_frame(1)
    with pytest.raises(StepMismatchError, match=r"frame 1 .* 0\.5"):
        for level in levels:
            run.next_step(level)


def test_a_frame_that_stops_early_is_refused():
    run = Run(REFERENCES["first"], 3)
    run.start_frame(0)
    run.next_step(3.0)
    run.next_step(2.0)
    run.start_frame(1)
    run.next_step(3.0)
    with pytest.raises(StepMismatchError, match="frame 1 took 1"):
        run.start_frame(2)


@pytest.mark.parametrize("frame", [0, 2, -1])
def test_frames_come_in_order(frame):
    run = Run(REFERENCES["first"], 3)
    run.start_frame(0)
    with pytest.raises(ValueError, match=f"frame {frame} cannot follow frame 0"):
        run.start_frame(frame)


def test_a_noise_level_may_come_twice():
    """Samplers that evaluate the model twice per step visit a level twice, with different x."""
    run = Run(REFERENCES["previous"], 2)
    for frame in range(2):
        run.start_frame(frame)
        rows = random(2, TOKENS, CHANNELS, seed=frame)
        for visit in range(2):
            run.next_step(1.0)
            evaluation = run.evaluate((frame,), LAYERS)
            (result,) = evaluation.attend(LAYERS[0], ["cond"], (rows[visit : visit + 1],))
            expected = random(2, TOKENS, CHANNELS, seed=0)[visit]
            assert torch.equal(result[0], expected)
