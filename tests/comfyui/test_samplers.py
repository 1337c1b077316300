"""Every sampler of ComfyUI, in both orders: the same frames, whatever noise it adds on its way."""

import bench
import pytest
import tiny
import torch
from sampler_names import DETERMINISTIC, REFUSED_FRAME_BY_FRAME, STOCHASTIC
from tiny import DIFFERENT, SAME

FRAMES = 3


def test_the_lists_are_comfyuis():
    import comfy.samplers

    known = {*DETERMINISTIC, *STOCHASTIC, *REFUSED_FRAME_BY_FRAME}
    assert known == set(comfy.samplers.SAMPLER_NAMES), "sort the new samplers in, and try them"


def stock_with_noise(model, positive, negative, latent, sampler, frame_noise):
    """SamplerCustomAdvanced with what `tiny.frame_ksampler` sets."""
    from comfy.samplers import KSampler

    settings = tiny.SAMPLING
    schedule = KSampler(
        model,
        settings["steps"],
        model.load_device,
        sampler,
        settings["scheduler"],
        settings["denoise"],
    )
    guider = bench.guider(model, (positive, negative), settings["cfg"])
    noise = bench.clip_noise(settings["seed"], frame_noise)
    return bench.custom(guider, sampler, schedule.sigmas, latent, noise, frame_by_frame=False)


@pytest.mark.parametrize("sampler", [*DETERMINISTIC, *STOCHASTIC])
def test_both_orders_give_the_same_frames(sd15, prompts, sampler):
    """The first frame, which looks at no other, is also what the stock sampler gives without the
    pack.
    """
    model, clip = tiny.patch(sd15, frames_per_batch=2), tiny.clip(FRAMES)
    batch, frames = (
        order(model, *prompts, clip, sampler, frame_noise=DIFFERENT)
        for order in (stock_with_noise, tiny.frame_ksampler)
    )
    assert torch.isfinite(frames).all()
    assert tiny.error(batch, frames) < 1e-4
    stock = tiny.ksampler(sd15, *prompts, {"samples": clip["samples"][:1]}, sampler)
    assert tiny.error(batch[:1], stock) < 1e-4


@pytest.mark.parametrize("sampler", [*STOCHASTIC, "ddim"])
def test_one_noise_for_every_frame_holds_on_the_way(sd15, prompts, sampler):
    """Equal frames stay equal if all noise that is added is the same, and differ if it is not."""
    model = tiny.patch_own(sd15, frames_per_batch=2)
    still = {"samples": tiny.clip(1)["samples"].repeat(FRAMES, 1, 1, 1)}
    inputs = model, *prompts, still, sampler
    same = stock_with_noise(*inputs, SAME)
    assert tiny.error(same[1:], same[:1].expand(FRAMES - 1, -1, -1, -1)) < 1e-4
    assert tiny.error(tiny.frame_ksampler(*inputs, frame_noise=SAME), same) < 1e-4
    other = tiny.frame_ksampler(*inputs, frame_noise=DIFFERENT)
    assert tiny.error(other[1:], same[1:]) > 0.1
    assert tiny.error(other[1], other[2]) > 0.1


@pytest.mark.parametrize("frame_by_frame", [False, True])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde"])
def test_frames_that_start_alike_get_noise_of_their_own(
    sd15, prompts, monkeypatch, sampler, frame_by_frame
):
    """What is added on the way differs between frames where the first noise does, if barely."""
    from crossframe.hosts.comfy.noise import frame_numbers

    # Whose noise this is cannot be found out, and looking for it takes long with small latents.
    monkeypatch.setattr(frame_numbers, "MOST_NUMBERS", 100_000)

    class NearlyOneNoise:
        seed = 3

        def generate_noise(self, latent):
            draw = torch.randn(1, 4, tiny.SIZE, tiny.SIZE, generator=torch.manual_seed(3))
            return draw + 1e-6 * torch.arange(FRAMES).view(-1, 1, 1, 1)

    guider = bench.guider(tiny.patch_own(sd15), prompts)
    still = {"samples": tiny.clip(1)["samples"].repeat(FRAMES, 1, 1, 1)}
    noise = NearlyOneNoise()
    one, two, three = bench.custom(guider, sampler, (6.0, 3.0, 1.0), still, noise, frame_by_frame)
    assert min(tiny.error(one, two), tiny.error(two, three), tiny.error(one, three)) > 0.1


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde"])
def test_noise_goes_by_seed_and_frame(sd15, prompts, sampler):
    model = tiny.patch_own(sd15)
    clip = tiny.clip(FRAMES)
    one = tiny.ksampler(model, *prompts, clip, sampler)
    assert torch.equal(tiny.ksampler(model, *prompts, clip, sampler), one)
    more = tiny.ksampler(model, *prompts, tiny.clip(2 * FRAMES), sampler)
    assert tiny.error(more[:1], one[:1]) < 1e-4
    assert tiny.error(tiny.ksampler(model, *prompts, clip, sampler, seed=4), one) > 0.1


def test_noise_that_another_node_draws_is_left_to_it(sd15, prompts):
    """A SAMPLER that brings a noise_sampler keeps it."""
    import comfy.samplers

    calls = []

    def silent(sigma, sigma_next):
        calls.append(float(sigma))
        return torch.zeros(FRAMES, 4, tiny.SIZE, tiny.SIZE)

    guider = bench.guider(tiny.patch(sd15), prompts)
    sampler = comfy.samplers.ksampler("euler_ancestral", {"noise_sampler": silent})
    latent = tiny.clip(FRAMES)["samples"]
    guider.sample(torch.randn_like(latent), latent, sampler, torch.tensor([6.0, 3.0, 1.0]), seed=1)
    assert calls == [6.0, 3.0]
