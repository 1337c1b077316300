"""Colours of one picture on the shapes of another one."""

import numpy as np
import torch
from crossframe.latents.colours import with_colours_of
from skimage import color, data, exposure


def shipped(name):
    return torch.from_numpy(getattr(data, name)()[::4, ::4, :3].copy()).float() / 255


def test_it_is_histogram_matching_of_two_channels():
    """skimage matches them; its lightness is put back. Ours rounds to units of the colour space."""
    picture, other = shipped("astronaut"), shipped("coffee")
    own, wanted = (color.rgb2lab(p.numpy()) for p in (picture, other))
    matched = exposure.match_histograms(own, wanted, channel_axis=2)
    matched[..., 0] = own[..., 0]
    expected = np.clip(color.lab2rgb(matched), 0, 1)
    found = with_colours_of(picture, other).numpy()
    assert np.abs(found - expected).mean() < 0.02
    assert np.abs(found - picture.numpy()).mean() > 0.04


def test_lightness_stays():
    picture, other = shipped("astronaut"), shipped("coffee")
    found = with_colours_of(picture, other)
    lightness = [color.rgb2lab(p.numpy())[..., 0] for p in (found, picture)]
    assert np.abs(lightness[0] - lightness[1]).mean() < 1.5  # out of 100; RGB ends at 1


def test_a_picture_like_itself_stays():
    picture = shipped("coffee")
    assert (with_colours_of(picture, picture) - picture).abs().mean() < 0.01


def test_a_smooth_passage_stays_smooth():
    """Colours that are closer than one unit of the colour space do not become steps."""
    lab = torch.full((4, 200, 3), 60.0)
    lab[..., 1], lab[..., 2] = torch.linspace(-15, 15, 200), torch.linspace(-10, 10, 200)
    ramp, wider = (
        torch.from_numpy(color.lab2rgb((lab * torch.tensor(scale)).numpy())).float()
        for scale in ([1.0, 1.0, 1.0], [1.0, 1.5, 1.5])
    )
    found = color.rgb2lab(with_colours_of(ramp, wider).numpy())[0]
    assert (np.diff(found[:, 1:], axis=0) > 0).mean() > 0.95
    expected = color.rgb2lab(wider.numpy())[0]
    assert np.abs(found[:, 1:] - expected[:, 1:]).max() < 1.5


def test_the_colours_of_a_grey_picture_are_none():
    grey = torch.linspace(0.2, 0.8, 64)[None, :, None].expand(16, 64, 3)
    found = with_colours_of(shipped("astronaut"), grey)
    assert (found - found.mean(dim=-1, keepdim=True)).abs().max() < 0.01


def test_grey_takes_the_middle_colour_and_no_noise():
    """Rounding errors of grey must not be spread over all colours."""
    ramp = torch.linspace(0.2, 0.8, 64)[None, :, None].expand(16, 64, 3)
    found = with_colours_of(ramp, shipped("coffee"))
    channels = color.rgb2lab(found.numpy())[..., 1:].reshape(-1, 2)
    wanted = np.median(color.rgb2lab(shipped("coffee").numpy())[..., 1:].reshape(-1, 2), axis=0)
    assert channels.std(axis=0).max() < 2
    assert np.abs(channels.mean(axis=0) - wanted).max() < 3
