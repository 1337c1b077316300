"""Re-noising pulls a noisy latent to a target and keeps its noise level."""

import pytest
import torch
from crossframe.latents.renoise import KEPT_NOISE, renoised

CLEAN, NOISE, TARGET, FRESH = torch.randn(4, 4, 64, 64, generator=torch.Generator().manual_seed(2))


def test_without_weight_nothing_changes():
    found = renoised(CLEAN, NOISE, TARGET + FRESH, torch.zeros(64, 64))
    assert torch.equal(found, CLEAN + NOISE)


def test_with_full_weight_it_is_the_target():
    assert torch.allclose(renoised(CLEAN, NOISE, TARGET, torch.ones(64, 64)), TARGET)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_noise_level_stays(weight):
    """Two noises that know nothing of each other are weaker together; that is made up for."""
    nothing = torch.zeros_like(CLEAN)
    found = renoised(nothing, NOISE, FRESH, torch.full((64, 64), weight))
    assert abs(float(found.std() / NOISE.std()) - 1) < 0.1
    half = 0.5 * FRESH + max(0.5, KEPT_NOISE * 0.75**0.5) * NOISE
    if weight == 0.5:
        assert torch.allclose(found, half, atol=1e-5)


@pytest.mark.parametrize("before", [(), (1,), (1, 4)], ids=["a frame", "4-D", "5-D"])
def test_every_place_has_its_own_weight(before):
    shape = (*before[:1], 4, *before[1:], 64, 64)
    clean, noise, target = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3))
    weight = torch.zeros(64, 64)
    weight[:, 32:] = 1
    found = renoised(clean, noise, target, weight)
    assert found.shape == shape
    assert torch.equal(found[..., :32], (clean + noise)[..., :32])
    assert torch.allclose(found[..., 32:], target[..., 32:])
