"""Fidelity-oriented encoding makes up for what an autoencoder loses."""

import torch
from crossframe.latents.fidelity import TOO_FAR, fidelity_encoded


def encode(pictures):
    """A lossy toy: it halves the sides, loses contrast and shifts colours."""
    small = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 2)
    return 0.9 * small + 0.02


def decode(latent):
    large = torch.nn.functional.interpolate(latent, scale_factor=2, mode="bilinear")
    return large.movedim(1, -1)


def pictures():
    small = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(small, size=(32, 32), mode="bicubic")
    return (0.2 + 0.6 * smooth.movedim(1, -1)).clamp(0, 1)


def test_decoding_gives_the_picture_back_more_exactly():
    given = pictures()
    plain = (decode(encode(given)) - given).square().mean()
    corrected = (decode(fidelity_encoded(given, encode, decode)) - given).square().mean()
    assert corrected < 0.2 * plain


def test_it_is_left_out_where_it_goes_too_far():
    """Where the toy decoder inverts a corner of a picture, correction would drive it away."""

    def inverting(latent):
        picture = decode(latent).clone()
        picture[:1, :8, :8] = 1 - picture[:1, :8, :8] + 3 * TOO_FAR
        return picture

    given = pictures()
    found, plain = fidelity_encoded(given, encode, inverting), encode(given)
    assert torch.equal(found[0, :, :4, :4], plain[0, :, :4, :4])
    assert torch.equal(found[0, :, 4, :4], plain[0, :, 4, :4])  # and in the cells that touch it
    assert not torch.isclose(found[0, :, 6:, 6:], plain[0, :, 6:, 6:]).any()
    assert torch.equal(found[1], fidelity_encoded(given, encode, decode)[1])


def test_latents_of_video_vaes():
    given = pictures()
    found = fidelity_encoded(
        given, lambda p: encode(p)[:, :, None], lambda latent: decode(latent[:, :, 0])
    )
    assert torch.equal(found[:, :, 0], fidelity_encoded(given, encode, decode))
