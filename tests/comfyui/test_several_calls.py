"""Nodes that run the model several times in a step: each call reads its like in other frames."""

import bench
import pytest
import tiny
import torch

FRAMES = 4


def tiles(apply_model, args):
    """The latent in tiles, one after another."""
    halves = [
        apply_model(half, args["timestep"], **args["c"]) for half in args["input"].chunk(2, dim=3)
    ]
    return torch.cat(halves, dim=3)


def uneven_tiles(apply_model, args):
    """Tiles of different sizes, which overlap."""
    x = args["input"]
    left = apply_model(x[..., :6], args["timestep"], **args["c"])
    right = apply_model(x[..., 4:], args["timestep"], **args["c"])
    return torch.cat([left[..., :5], right[..., 1:]], dim=3)


def mirrored(apply_model, args):
    """The mean of the prediction and of that for the mirrored latent."""
    x, timestep, c = args["input"], args["timestep"], args["c"]
    return (apply_model(x, timestep, **c) + apply_model(x.flip(3), timestep, **c).flip(3)) / 2


def three_times(apply_model, args):
    for _ in range(2):
        apply_model(args["input"] * 0.5, args["timestep"], **args["c"])
    return apply_model(args["input"], args["timestep"], **args["c"])


def wrapped(model, function):
    model = model.clone()
    model.set_model_unet_function_wrapper(function)
    return model


WRAPPERS = [tiles, uneven_tiles, mirrored, three_times]


@pytest.mark.parametrize("layers", ["up", "all"])
@pytest.mark.parametrize("function", WRAPPERS)
def test_both_orders_and_all_batches_give_the_same_frames(sd15, prompts, function, layers):
    def patched(batch=0):
        return wrapped(tiny.patch(sd15, layers=layers, frames_per_batch=batch), function)

    inputs = *prompts, tiny.clip(FRAMES)
    whole = tiny.ksampler(patched(), *inputs, steps=2)
    for batch in (1, 3):
        assert tiny.error(tiny.ksampler(patched(batch), *inputs, steps=2), whole) < 1e-4
    assert tiny.error(tiny.frame_ksampler(patched(), *inputs, steps=2), whole) < 1e-4


def test_a_state_knows_every_call(sd15, prompts, tmp_path):
    """A state tells several calls of a step apart, also after it was in a file."""
    from crossframe.hosts.comfy.state.files import read, write

    model = wrapped(tiny.patch(sd15), mirrored)

    def sample(latent, **inputs):
        inputs |= {"frame_noise": tiny.SAME, "keep_state": True}
        return tiny.frame_output(model, *prompts, latent, **inputs).args

    clip = tiny.clip(FRAMES)["samples"]
    whole = sample({"samples": clip})[0]["samples"]
    first, state = sample({"samples": clip[:2]})
    write(state, tmp_path / "state.crossframe.safetensors")
    state = read(tmp_path / "state.crossframe.safetensors")
    second = sample({"samples": clip[2:]}, state=state)[0]
    assert torch.equal(torch.cat([first["samples"], second["samples"]]), whole)


def half_of_the_rows(apply_model, args):
    """Runs conds one by one and does not say so."""
    x, c = args["input"], args["c"]
    rows = len(x) // 2
    outputs = []
    for part in (slice(0, rows), slice(rows, None)):
        own = {
            name: value[part] if isinstance(value, torch.Tensor) and len(value) == len(x) else value
            for name, value in c.items()
        }
        outputs.append(apply_model(x[part], args["timestep"][part], **own))
    return torch.cat(outputs)


@pytest.mark.parametrize("sample", tiny.ORDERS.values())
def test_rows_that_nobody_announced_are_an_error_in_words(sd15, prompts, sample):
    model = wrapped(tiny.patch(sd15), half_of_the_rows)
    words = r"^CrossFrame\w+: input 'model': another node that patches the model changes which"
    with pytest.raises(ValueError, match=words):
        sample(model, *prompts, tiny.clip(FRAMES))


def test_steps_that_differ_from_frame_to_frame_are_an_error_in_words(sd15, prompts):
    """A wrapper around a sampler that chooses its steps by what it sees."""
    from comfy.k_diffusion.sampling import sample_dpm_adaptive
    from comfy.samplers import KSAMPLER

    steps = iter(range(1, 100))

    def more_and_more(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma in torch.linspace(3, 1, next(steps) + 1):
            x = model(x, sigma * x.new_ones(len(x)), **extra_args)
        return x

    def adaptive(model, x, sigmas, **kwargs):
        return sample_dpm_adaptive(model, x, 0.5, 3.0, **kwargs)

    for function in (more_and_more, adaptive):
        guider = bench.guider(tiny.patch(sd15), prompts)
        with pytest.raises(ValueError, match=r"^CrossFrameSampler: input 'sampler': "):
            bench.custom(guider, KSAMPLER(function), (3.0, 1.0), tiny.clip(3))


@pytest.mark.parametrize("sample", tiny.ORDERS.values())
def test_a_prompt_of_another_kind_of_model_is_not_blamed_on_a_patch(sd15, sample):
    """ComfyUI's own words are clearer than a wrong owner."""
    wrong = [[torch.randn(1, 7, tiny.CONTEXT * 2), {}]]
    with pytest.raises(RuntimeError, match="shapes"):
        sample(tiny.patch(sd15, frames_per_batch=2), wrong, wrong, tiny.clip(FRAMES))
