"""The pictures of latents, one at a time, by a VAE."""

import torch
from torch import Tensor

from ..encoding import check_pixels, check_vae


class Pictures:
    """Encodes and decodes single frames.

    Latents are those of a LATENT, (1, channels, ..., h, w); pictures are (1, height, width, 3).
    """

    def __init__(self, vae) -> None:
        """Raises BadInputError unless the VAE encodes pictures."""
        check_vae(vae)
        self.vae = vae

    def check(self, pictures: Tensor) -> None:
        """Raise BadInputError unless the VAE can encode pictures, (n, height, width, channels)."""
        check_pixels(pictures, self.vae.spacial_compression_encode())

    def encode(self, picture: Tensor) -> Tensor:
        """Return the latent of a picture."""
        latent: Tensor = self.vae.encode(picture[..., :3])
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture of a latent. A VAE that was made for video gives (1, 1, h, w, 3)."""
        return torch.as_tensor(self.vae.decode(latent)).flatten(0, -4).float()
