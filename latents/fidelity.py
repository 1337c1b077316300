"""Fidelity-oriented encoding: a latent that decodes to a picture as it is.

An autoencoder loses a little of a picture each time. When a result is encoded again for every
frame, the loss adds up. Rerender A Video (Yang et al. 2023, section 4.1.3) therefore adds to the
latent what one more round trip would lose, and leaves that out where it would do harm.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TOO_FAR = 0.125  # mean difference of RGB in 0..1; where correction goes further, it is left out

# A function from pictures, (n, height, width, 3) in 0..1, to latents, (n, channels, ..., h, w), and
# one from latents to pictures.
Encode = Callable[[Tensor], Tensor]
Decode = Callable[[Tensor], Tensor]


def fidelity_encoded(pictures: Tensor, encode: Encode, decode: Decode) -> Tensor:
    """Encode pictures so that decoding gives them back more exactly.

    pictures: (n, height, width, 3), RGB in 0..1. Returns latents, (n, channels, ..., h, w). It
    takes two calls of `encode` and two of `decode`.
    """
    latent = encode(pictures)
    lost = latent - encode(decode(latent))
    corrected = latent + lost
    difference = (decode(corrected) - pictures).abs().mean(dim=-1)  # (n, height, width)
    failed = _cells(difference > TOO_FAR, (latent.shape[-2], latent.shape[-1]))
    # (n, h, w) -> (n, 1, ..., h, w)
    failed = failed.reshape(len(latent), *[1] * (latent.ndim - 3), *failed.shape[-2:])
    return torch.where(failed, latent, corrected)


def _cells(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which cells of a grid hold, or touch a cell that holds, a marked pixel.

    pixels: (n, height, width), bool. Returns (n, *grid), bool.
    """
    marked = torch.nn.functional.adaptive_max_pool2d(pixels[:, None].float(), grid)
    around = torch.nn.functional.max_pool2d(marked, kernel_size=3, stride=1, padding=1)
    return around[:, 0] > 0
