"""Nothing is left behind: the same graph gives the same frames, whatever ran before."""

import bench
import pytest
import tiny
import torch


@pytest.mark.parametrize("config", [tiny.SD15, tiny.SDXL], ids=["sd15", "sdxl"])
def test_attending_to_oneself_is_the_unpatched_model(config, sample):
    model = tiny.model(config)
    conds = tiny.prompt(1, pooled=True), tiny.prompt(2, pooled=True)
    patched = sample(tiny.patch_own(model), *conds, tiny.clip())
    if sample is tiny.ksampler:
        assert torch.equal(patched, tiny.ksampler(model, *conds, tiny.clip()))
    one_frame = tiny.clip()["samples"][:1]
    plain = tiny.ksampler(model, *conds, {"samples": one_frame})
    assert torch.equal(sample(tiny.patch_own(model), *conds, {"samples": one_frame}), plain)
    assert torch.equal(sample(tiny.patch(model), *conds, {"samples": one_frame}), plain)


def test_the_node_leaves_its_input_alone(sd15, canny, prompts, sample):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())
    options = str(sd15.model_options)
    plain = tiny.ksampler(sd15, *conds, tiny.clip())
    patched = tiny.patch(sd15)
    patched_options = str(patched.model_options)
    assert not torch.equal(sample(patched, *conds, tiny.clip()), plain)
    assert torch.equal(tiny.ksampler(sd15, *conds, tiny.clip()), plain)
    assert str(sd15.model_options) == options
    assert str(patched.model_options) == patched_options
    assert sd15.wrappers == {}


def test_two_runs_are_bit_identical(sd15, canny, prompts, sample):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())
    model = tiny.patch(sd15, frames_per_batch=2)
    first = sample(model, *conds, tiny.clip())
    assert torch.equal(sample(model, *conds, tiny.clip()), first)
    assert torch.equal(sample(model.clone(), *conds, tiny.clip()), first)


def at(call, action):
    """Return a function for `bench.spied` that does something in one call of a model."""
    return lambda number, args: action() if number == call else None


def raise_planted():
    raise RuntimeError("planted")


def cancel():
    """What the page's Cancel button does: ComfyUI raises at its next check."""
    import comfy.model_management

    comfy.model_management.interrupt_current_processing(True)
    comfy.model_management.throw_exception_if_processing_interrupted()


@pytest.mark.parametrize("action", [raise_planted, cancel])
def test_a_run_after_an_interrupted_one(sd15, prompts, sample, action):
    """This holds for an interruption in any call of the model."""
    import comfy.model_management

    model = tiny.patch(sd15, frames_per_batch=2)
    latent = tiny.clip(3)
    counted, calls = bench.spied(model)
    clean = sample(counted, *prompts, latent, steps=2)
    assert len(calls) >= 4
    for call in range(len(calls)):
        broken, _ = bench.spied(model, at(call, action))
        with pytest.raises((RuntimeError, comfy.model_management.InterruptProcessingException)):
            sample(broken, *prompts, latent, steps=2)
        assert torch.equal(sample(model, *prompts, latent, steps=2), clean)


def test_cancel_stops_within_one_batch(sd15, prompts, sample):
    """A long clip is many batches; Cancel must not wait for the end of the step."""
    import comfy.model_management

    interrupt = comfy.model_management.interrupt_current_processing
    model = tiny.patch(sd15, frames_per_batch=2)
    model, calls = bench.spied(model, at(1, lambda: interrupt(True)))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, *prompts, tiny.clip(12))
    assert len(calls) == 2


def test_two_patched_models_in_one_graph(sd15, prompts, sample):
    """Each keeps its own settings when they are used in turns."""
    up, everything = tiny.patch(sd15), tiny.patch(sd15, layers="all", references="first")
    first = [sample(model, *prompts, tiny.clip()) for model in (up, everything)]
    second = [sample(model, *prompts, tiny.clip()) for model in (up, everything)]
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert tiny.error(*first) > 0.01


def test_a_guider_serves_several_samplers(sd15, canny, prompts):
    """Node outputs stay cached between runs, so a sampler must not change its guider."""
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())
    guider = bench.guider(tiny.patch(sd15), conds, 3.0)
    before = str(vars(guider))
    results = [
        bench.custom(guider, sigmas=(6.0, 3.0, 0.0), frame_by_frame=order)
        for order in (True, False) * 2
    ]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    assert tiny.error(results[0], results[1]) < 1e-4
    assert str(vars(guider)) == before
