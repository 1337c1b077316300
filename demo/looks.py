"""Looks of the small world, and prompts that describe them in part.

A look is one colour per class and tone. A prompt may name a mood, which narrows the hues,
saturations and values, and the colours of some classes. Everything that it leaves open is drawn
again for every picture. This is why frames that are painted one by one flicker.
"""

import colorsys
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from .world import CLASSES


@dataclass(frozen=True)
class Mood:
    """Ranges of hues, saturations and values.

    hue, width: the beginning and the width of the hues, in turns of the colour circle.
    """

    hue: float
    width: float
    saturation: tuple[float, float]
    value: tuple[float, float]


ANY_MOOD = Mood(0.0, 1.0, (0.25, 1.0), (0.25, 1.0))
MOODS = {
    "warm": Mood(0.92, 0.26, (0.5, 1.0), (0.4, 1.0)),
    "cold": Mood(0.45, 0.28, (0.4, 1.0), (0.35, 1.0)),
    "pastel": Mood(0.0, 1.0, (0.15, 0.4), (0.85, 1.0)),
    "neon": Mood(0.0, 1.0, (0.85, 1.0), (0.8, 1.0)),
    "dark": Mood(0.0, 1.0, (0.4, 1.0), (0.1, 0.45)),
}
COLOURS = {
    "red": 0.0,
    "orange": 0.08,
    "yellow": 0.15,
    "green": 0.34,
    "cyan": 0.5,
    "blue": 0.63,
    "purple": 0.77,
    "pink": 0.9,
}
NAMES = ("background", "discs", "squares", "triangles")  # the names of CLASSES in prompts
NAMED = 0.2  # share of classes whose colour a prompt names, unless told otherwise
WORDS = ("a", "drawing", "with", "and", ",", *MOODS, *COLOURS, *NAMES)


def random_look(random: Random, share_named: float = NAMED) -> tuple[Tensor, str]:
    """Return a look, (classes, 2, 3), RGB in 0..1, and a prompt that describes a part of it."""
    mood_name, named = random_words(random, share_named)
    mood = MOODS.get(mood_name, ANY_MOOD)
    look = [_two_tones(mood, COLOURS.get(named.get(name)), random) for name in NAMES]
    assert len(look) == len(CLASSES)
    return torch.tensor(look), describe(mood_name, named)


def random_words(random: Random, share_named: float = NAMED) -> tuple[str | None, dict[str, str]]:
    """Return what a prompt says: a mood or None, and the colours of some classes.

    share_named: the share of classes whose colour it names.
    """
    mood = random.choice([None, None, *MOODS])
    named = {}
    for name in NAMES:
        if random.random() < share_named:
            named[name] = random.choice(list(COLOURS))
    return mood, named


def describe(mood: str | None, colours: dict[str, str]) -> str:
    """Return the prompt that names a mood and the colours of some classes."""
    start = f"a {mood} drawing" if mood else "a drawing"
    parts = [f"{colour} {name}" for name, colour in colours.items()]
    return f"{start} with {' and '.join(parts)}" if parts else start


def _two_tones(mood: Mood, hue: float | None, random: Random) -> list[tuple[float, float, float]]:
    """Return the colours of ground and mark; the mark differs in value, and sometimes in hue."""
    if hue is None:
        hue = mood.hue + random.random() * mood.width
    else:
        hue += random.uniform(-0.03, 0.03)
    saturation = random.uniform(*mood.saturation)
    value = random.uniform(*mood.value)
    other_hue = hue if random.random() < 0.5 else mood.hue + random.random() * mood.width
    # The mark is darker or lighter than the ground, whichever leaves more room.
    other_value = value * 0.55 if value > 0.5 * sum(mood.value) else min(1.0, value * 1.6)
    other_saturation = random.uniform(*mood.saturation)
    return [
        colorsys.hsv_to_rgb(hue % 1.0, saturation, value),
        colorsys.hsv_to_rgb(other_hue % 1.0, other_saturation, other_value),
    ]
