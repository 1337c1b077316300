"""Noise is what the stock samplers draw, or one draw of it for every frame."""

import pytest
import tiny
import torch


def random_noise(seed, frame_noise=None):
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
    from crossframe.nodes.noise import CrossFrameNoise

    noise = Noise_RandomNoise(seed)
    return noise if frame_noise is None else CrossFrameNoise.execute(noise, frame_noise).args[0]


@pytest.mark.parametrize("batch_index", [None, [3, 4, 9], [2, 2, 0]])
def test_different_per_frame_is_the_stock_draw(batch_index):
    latent = tiny.clip(3) if batch_index is None else tiny.clip(3, batch_index=batch_index)
    ours = random_noise(5, "different per frame").generate_noise(latent)
    assert torch.equal(ours, random_noise(5).generate_noise(latent))


@pytest.mark.parametrize("batch_index", [None, [3, 4, 9]])
def test_same_for_every_frame_is_one_frames_draw(batch_index):
    """A part of a clip gets it too, so that parts that are sampled apart share their noise."""
    latent = tiny.clip(3) if batch_index is None else tiny.clip(3, batch_index=batch_index)
    ours = random_noise(5, "same for every frame").generate_noise(latent)
    single = random_noise(5).generate_noise(tiny.clip(1))
    assert torch.equal(ours, single.expand(3, -1, -1, -1))
    assert random_noise(5, "same for every frame").seed == 5


@pytest.mark.parametrize("batch_index", [None, [3, 4, 9]])
def test_the_frame_sampler_draws_like_the_stock_one(sd15, prompts, batch_index):
    latent = tiny.clip(3) if batch_index is None else tiny.clip(3, batch_index=batch_index)
    model = tiny.patch(sd15)
    frames = tiny.frame_ksampler(model, *prompts, latent)
    assert tiny.error(tiny.ksampler(model, *prompts, latent), frames) < 1e-4


def test_frame_noise_of_the_frame_sampler(sd15, prompts):
    """With one latent for all frames, equal noise and no attention make equal frames."""
    latent = {"samples": tiny.clip(1)["samples"].repeat(3, 1, 1, 1)}
    model = tiny.patch_own(sd15)
    same = tiny.frame_ksampler(model, *prompts, latent, frame_noise="same for every frame")
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])
    different = tiny.frame_ksampler(model, *prompts, latent)
    assert tiny.error(different[:1], different[1:2]) > 0.1
    assert torch.equal(same[0], different[0])


def test_denoise_0_changes_nothing(sd15, prompts):
    latent = tiny.clip(3)
    result = tiny.frame_ksampler(tiny.patch(sd15), *prompts, latent, denoise=0.0)
    assert torch.equal(result, latent["samples"])
