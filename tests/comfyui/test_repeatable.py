"""Nothing is left behind: the same graph gives the same frames, whatever ran before."""

import pytest
import tiny
import torch


class CallCounter:
    """Counts calls of the model, and does something in one of them."""

    def __init__(self, call=None, action=None):
        self.count, self.call, self.action = 0, call, action

    def __call__(self, apply_model, args):
        if self.count == self.call:
            self.action()
        self.count += 1
        return apply_model(args["input"], args["timestep"], **args["c"])


def counting(model, *args):
    """A clone of a MODEL with a CallCounter. Returns (model, counter)."""
    counter = CallCounter(*args)
    model = model.clone()
    model.set_model_unet_function_wrapper(counter)
    return model, counter


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


def raise_planted():
    raise RuntimeError("planted")


def cancel():
    """What the page's Cancel button does: ComfyUI raises at its next check."""
    import comfy.model_management

    comfy.model_management.interrupt_current_processing(True)
    comfy.model_management.throw_exception_if_processing_interrupted()


@pytest.mark.parametrize("action", [raise_planted, cancel])
def test_a_run_after_an_interrupted_one(sd15, prompts, sample, action):
    """Whichever call of the model the interruption falls into."""
    import comfy.model_management

    model = tiny.patch(sd15, frames_per_batch=2)
    latent = tiny.clip(3)
    counted, counter = counting(model)
    clean = sample(counted, *prompts, latent, steps=2)
    assert counter.count >= 4
    for call in range(counter.count):
        broken, _ = counting(model, call, action)
        with pytest.raises((RuntimeError, comfy.model_management.InterruptProcessingException)):
            sample(broken, *prompts, latent, steps=2)
        again, _ = counting(model)
        assert torch.equal(sample(again, *prompts, latent, steps=2), clean)


def test_cancel_stops_within_one_batch(sd15, prompts, sample):
    """A long clip is many batches; Cancel must not wait for the end of the step."""
    import comfy.model_management

    model, counter = counting(
        tiny.patch(sd15, frames_per_batch=2),
        1,
        lambda: comfy.model_management.interrupt_current_processing(True),
    )
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(model, *prompts, tiny.clip(12))
    assert counter.count == 2


def test_two_patched_models_in_one_graph(sd15, prompts, sample):
    """Each keeps its own settings, used in turns."""
    up, everything = tiny.patch(sd15), tiny.patch(sd15, layers="all", references="first")
    first = [sample(model, *prompts, tiny.clip()) for model in (up, everything)]
    second = [sample(model, *prompts, tiny.clip()) for model in (up, everything)]
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert tiny.error(*first) > 0.01


def test_a_guider_serves_several_samplers(sd15, canny, prompts):
    """Node outputs stay cached between runs, so a sampler must not change its guider."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
    from crossframe.nodes.sampling import CrossFrameSampler

    guider = comfy.samplers.CFGGuider(tiny.patch(sd15))
    guider.set_conds(*tiny.apply_controlnet(*prompts, canny, tiny.images()))
    guider.set_cfg(3.0)
    sigmas, sampler = torch.tensor([6.0, 3.0, 0.0]), comfy.samplers.sampler_object("euler")
    before = str(vars(guider))
    results = [
        node.execute(Noise_RandomNoise(5), guider, sampler, sigmas, tiny.clip()).args[0]["samples"]
        for node in (CrossFrameSampler, SamplerCustomAdvanced) * 2
    ]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    assert tiny.error(results[0], results[1]) < 1e-4
    assert str(vars(guider)) == before
