"""Masked re-noising: pull a noisy latent towards a picture while it is denoised.

In its second pass, Rerender A Video (Yang et al. 2023, section 4.1.3, structure-guided
inpainting) mixes the noisy latent, before some of the steps, with a target to which noise of the
same level has been added. The target is the picture that its flow makes of earlier results.
"""

import torch
from torch import Tensor

KEPT_NOISE = 0.9  # how much of the model's noise stays where the target counts, as published


def renoised(clean: Tensor, noise: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mix a noisy latent with a noisy target.

    The latent is clean + noise: what the model has predicted, scaled to the noise level, and the
    noise that it has found. target: the target with new noise of this level. All three have the
    same shape, (..., height, width). weight: how much the target counts, 0 to 1, (height, width).
    Returns the mixture in the same shape. Where the weight is 0 that is the latent itself.

    The sum of two noises that know nothing of each other is weaker than each. So the model's noise
    is scaled by more than 1 - weight, which keeps the noise level nearly what it was.
    """
    keeps_level = KEPT_NOISE * (1 - weight**2).sqrt()
    share = torch.maximum(1 - weight, keeps_level)
    return weight * target + (1 - weight) * clean + share * noise
