"""AdaIN: give one latent the colours and contrasts of another one.

Adaptive instance normalization replaces the mean and the standard deviation of each channel by
those of another latent. Rerender A Video (Yang et al. 2023, section 4.1.4, colour-aware adaptive
latent adjustment) does so with the predicted clean latents of late steps, and takes the first frame
as the other one.
"""

from dataclasses import dataclass

from torch import Tensor

EPSILON = 1e-5  # is added to variances, so that a flat channel does not divide by zero


@dataclass(frozen=True)
class Statistics:
    """The mean and the standard deviation of each channel, both (channels, 1, ...)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, latent: Tensor) -> "Statistics":
        """Return the statistics of a latent, (channels, ..., height, width)."""
        axes = tuple(range(1, latent.ndim))
        variance = latent.var(dim=axes, keepdim=True, correction=0)
        return cls(latent.mean(dim=axes, keepdim=True), (variance + EPSILON).sqrt())


def adain(latent: Tensor, like: Tensor) -> Tensor:
    """Return a latent with the statistics of another one.

    latent, like: (channels, ..., height, width), of any two sizes. Returns the shape of `latent`.
    """
    own, wanted = Statistics.of(latent), Statistics.of(like)
    return (latent - own.mean) / own.deviation * wanted.deviation + wanted.mean
