"""AdaIN gives a latent the mean and deviation of another one, channel by channel."""

import pytest
import torch
from crossframe.latents.adain import Statistics, adain


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(4,), (16, 1)], ids=["4-D", "5-D"])
def test_it_is_torchs_instance_norm_with_other_statistics(shape):
    latent, like = 3 * random(*shape, 6, 8) + 2, 0.5 * random(*shape, 5, 7, seed=1) - 1
    flat = latent.reshape(1, shape[0], 6, 8)
    mean = like.reshape(shape[0], -1).mean(dim=1)[:, None, None]
    deviation = like.reshape(shape[0], -1).std(dim=1, correction=0)[:, None, None]
    expected = torch.nn.functional.instance_norm(flat)[0] * deviation + mean
    assert torch.allclose(adain(latent, like).reshape(expected.shape), expected, atol=1e-4)


def test_a_latent_like_itself_stays():
    latent = random(4, 6, 8)
    assert torch.allclose(adain(latent, latent), latent, atol=1e-5)


def test_a_flat_channel_does_not_divide_by_zero():
    flat = torch.ones(2, 4, 4)
    found = adain(flat, random(2, 4, 4))
    assert found.isfinite().all()
    assert torch.allclose(found, Statistics.of(random(2, 4, 4)).mean.expand_as(found), atol=1e-4)
