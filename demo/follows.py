"""How well pictures of the small world follow their prompts: named colours, and moods."""

import colorsys
from collections.abc import Mapping

import torch
from torch import Tensor

from .. import consistency
from .judge import ENOUGH, PARTS
from .looks import COLOURS, MOODS, NAMES, Mood

SLACK = 0.06  # how far outside of a mood's ranges a colour may be; the autoencoder mixes a little


def named_colours(pictures: Tensor, part: Tensor, named: Mapping[str, str]) -> list[bool]:
    """Return, for each class that a prompt names and a picture shows, whether its colour is right.

    It is right if the hue of the class's ground is nearer to the named colour than to any other. By
    chance that is so for one in eight. pictures: (n, 3, SIZE, SIZE). part: what their pixels show,
    (n, SIZE, SIZE). named: colours by names of classes.
    """
    right = []
    for colours in _grounds(pictures, part):
        for name, colour in named.items():
            if (rgb := colours.get(name)) is not None:
                hue, _, _ = colorsys.rgb_to_hsv(*rgb)
                right.append(min(COLOURS, key=lambda c: _apart(hue, COLOURS[c])) == colour)
    return right


def in_mood(pictures: Tensor, part: Tensor, mood: str) -> list[bool]:
    """Return, for each class that a picture shows, whether its ground lies within a mood's ranges.

    The arguments are those of `named_colours`.
    """
    return [
        _fits(MOODS[mood], *colorsys.rgb_to_hsv(*rgb))
        for colours in _grounds(pictures, part)
        for rgb in colours.values()
    ]


def _grounds(pictures: Tensor, part: Tensor) -> list[dict[str, tuple[float, ...]]]:
    """Return the mean colour of the ground of each class that a picture shows enough of."""
    colours = consistency.mean_colours(pictures, part, PARTS)  # (n, parts, 3)
    counts = torch.stack([(part == number).sum(dim=(1, 2)) for number in range(PARTS)], dim=1)
    return [
        {
            name: tuple(colours[row, 2 * kind].clamp(0, 1).tolist())
            for kind, name in enumerate(NAMES)
            if counts[row, 2 * kind] >= ENOUGH
        }
        for row in range(len(pictures))
    ]


def _fits(mood: Mood, hue: float, saturation: float, value: float) -> bool:
    """Return whether a colour lies within a mood's ranges."""
    middle = mood.hue + mood.width / 2
    low, high = mood.saturation[0] - SLACK, mood.saturation[1] + SLACK
    return (
        _apart(hue, middle) <= mood.width / 2 + SLACK
        and low <= saturation <= high
        and mood.value[0] - SLACK <= value <= mood.value[1] + SLACK
    )


def _apart(hue: float, other: float) -> float:
    """Return the distance of two hues on the colour circle, in turns."""
    return abs((hue - other + 0.5) % 1.0 - 0.5)
