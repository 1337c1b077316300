"""The size of the bank is announced, and samplers of other packs are run only to paint."""

import functools
import itertools
import math
import re

import bench
import pytest
import tiny
import torch

FRAMES, STEPS = 3, 4
SIGMAS = torch.linspace(10, 0, STEPS + 1)
calls: list[int] = []  # rows of the latents that a foreign function was called with


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def two_evaluations(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler as another pack writes it: the model is evaluated twice per step."""
    calls.append(tuple(x.shape))
    rows = x.new_ones(len(x))
    for start, end in itertools.pairwise(sigmas):
        model(x, start * rows, **extra_args)
        denoised = model(x, start * rows, **extra_args)
        x = x + (x - denoised) / start * (end - start)
    return x


def one_evaluation(model, x, sigmas, extra_args=None, callback=None, disable=None):
    calls.append(tuple(x.shape))
    return model(x, sigmas[0] * x.new_ones(len(x)), **extra_args)


def around(function):
    """A wrapper that looks like the function that it wraps."""

    @functools.wraps(function)
    def wrapper(model, x, *args, **kwargs):
        calls.append(tuple(x.shape))
        return function(model, x, *args, **kwargs)

    return wrapper


def foreign_noise(sigma, sigma_next):
    calls.append((1, 4, tiny.SIZE, tiny.SIZE))
    return torch.zeros(1, 4, tiny.SIZE, tiny.SIZE)


def foreign_samplers() -> dict:
    """SAMPLERs with code of another pack in them, and how often the model is evaluated."""
    import comfy.k_diffusion.sampling as core
    from comfy.samplers import KSAMPLER, ksampler

    class Own(KSAMPLER):
        def sample(self, *args, **kwargs):
            calls.append(tuple(args[4].shape))
            return super().sample(*args, **kwargs)

    patched = ksampler("euler")
    patched.sample = functools.partial(Own.sample, Own(patched.sampler_function))
    wrapped = around(core.sample_heun)
    return {
        "two evaluations": (KSAMPLER(two_evaluations), 2 * STEPS),
        "one evaluation": (KSAMPLER(one_evaluation), 1),
        "around one of ComfyUI's": (KSAMPLER(around(core.sample_euler)), STEPS),
        "around it, decorated": (KSAMPLER(torch.no_grad()(wrapped)), 2 * STEPS - 1),
        "partial": (KSAMPLER(functools.partial(two_evaluations, disable=True)), 2 * STEPS),
        "noise": (ksampler("euler_ancestral", {"noise_sampler": foreign_noise}), STEPS),
        "subclass": (Own(core.sample_euler), STEPS),
        "method": (patched, STEPS),
    }


def paint(model, prompts, sampler, latent=None):
    """The CrossFrameSampler node. Returns (samples, what it reports)."""
    guider = bench.guider(model, prompts, 3.0)
    latent = tiny.clip(FRAMES) if latent is None else latent
    output = bench.custom_output(guider, sampler, SIGMAS, latent)
    return output.args[0]["samples"], output.ui["text"][0]


@pytest.fixture
def exact_sizes(monkeypatch):
    """Sizes are written as exact numbers of bytes."""
    from crossframe.hosts.comfy.orders import frame_by_frame
    from crossframe.hosts.comfy.run import bank_size

    monkeypatch.setattr(frame_by_frame, "readable_size", str)
    monkeypatch.setattr(bank_size, "readable_size", str)


def per_evaluation(model) -> int:
    """Bytes that an evaluation leaves: first and previous frame, cond and uncond, fp32."""
    layers = tiny.settings_of(model).layers
    return 2 * 2 * sum(a.tokens(tiny.SIZE, tiny.SIZE) * a.channels * 4 for a in layers)


FOREIGN = [
    "two evaluations",
    "one evaluation",
    "around one of ComfyUI's",
    "around it, decorated",
    "partial",
    "noise",
    "subclass",
    "method",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_code_is_run_to_paint_only(sd15, prompts, caplog, exact_sizes, name):
    sampler, evaluations = foreign_samplers()[name]
    model = tiny.patch(sd15)
    _, report = paint(model, prompts, sampler)
    assert calls
    assert set(calls) == {(1, 4, tiny.SIZE, tiny.SIZE)}, "run on a stand-in"
    guess, true = per_evaluation(model) * STEPS, per_evaluation(model) * evaluations
    assert f"bank of about {guess} in" in caplog.text
    corrected = [m for m in caplog.messages if "the bank will hold up to" in m]
    assert len(corrected) == (true != guess)
    assert all(f"hold up to {true} and not {guess}" in message for message in corrected)
    assert f"held at most {true} ({true} expected)" in report


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "dpm_fast", "dpmpp_sde", "uni_pc"])
def test_comfyuis_samplers_are_counted(sd15, prompts, caplog, exact_sizes, name):
    from comfy.samplers import sampler_object

    _, report = paint(tiny.patch(sd15), prompts, sampler_object(name))
    (announced,) = (m for m in caplog.messages if "one after another" in m)
    (nbytes,) = re.findall(r"bank of up to (\d+) in", announced)
    assert f"held at most {nbytes} ({nbytes} expected)" in report
    assert "and not" not in caplog.text


def test_options_of_comfyuis_own_are_no_foreign_code(sd15, prompts, caplog):
    """The node SamplerSASolver makes such options; one of them is a function of ComfyUI's."""
    from comfy.k_diffusion.sa_solver import get_tau_interval_func
    from comfy.samplers import ksampler

    options = {"tau_func": get_tau_interval_func(5.0, 1.0, eta=1.0), "use_pece": True}
    paint(tiny.patch(sd15), prompts, ksampler("sa_solver", options))
    assert "bank of up to" in caplog.text


def test_memory_is_asked_for_by_what_the_first_frame_took(sd15, prompts, monkeypatch):
    import comfy.sampler_helpers
    from comfy.samplers import KSAMPLER

    asked = []
    estimate = comfy.sampler_helpers.estimate_memory

    def record(model, noise_shape, conds):
        asked.append(noise_shape[0])
        return estimate(model, noise_shape, conds)

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", record)
    per_frame = 100_000
    monkeypatch.setattr(sd15.model, "memory_required", lambda shape, **_: per_frame * shape[0] / 2)
    model = tiny.patch(sd15)
    paint(model, prompts, KSAMPLER(two_evaluations))
    one = per_evaluation(model)
    still = [one * STEPS, one * 2 * STEPS - one * STEPS, 0]  # of two kept frames, one is there
    assert asked == [1 + math.ceil(nbytes / per_frame) for nbytes in still]


def test_frames_that_go_on_from_a_state_are_known_before(sd15, prompts, caplog):
    from comfy.samplers import KSAMPLER

    guider = bench.guider(tiny.patch(sd15), prompts)
    inputs = guider, KSAMPLER(two_evaluations), SIGMAS, tiny.clip(1)
    state = bench.custom_output(*inputs, keep_state=True).args[2]
    assert "bank of about" in caplog.text
    caplog.clear()
    bench.custom_output(*inputs, state=state)
    assert "bank of up to" in caplog.text
    assert "and not" not in caplog.text
