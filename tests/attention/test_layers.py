"""Named sets of layers, by the real widths of U-Nets and the real order of transformers."""

import pytest
from crossframe.attention import LAYER_SETS, Layer

# Every self-attention layer on the expanding path: (block numbers, channels, transformers).
UP = {
    "SD1.5": [((3, 4, 5), 1280, 1), ((6, 7, 8), 640, 1), ((9, 10, 11), 320, 1)],
    "SDXL": [((0, 1, 2), 1280, 10), ((3, 4, 5), 640, 2)],
}


def channels(model: str) -> dict[Layer, int]:
    up = {
        Layer("output", number, transformer): width
        for numbers, width, transformers in UP[model]
        for number in numbers
        for transformer in range(transformers)
    }
    return {Layer("input", 1, 0): 320, Layer("middle", 0, 0): 1280, **up}


@pytest.mark.parametrize("model", UP)
def test_loose_leaves_out_the_innermost_level(model):
    every = channels(model)
    loose = LAYER_SETS["up, loose"].of_unet(every)
    assert loose == [layer for layer in LAYER_SETS["up"].of_unet(every) if every[layer] < 1280]
    assert 0 < len(loose) < len(LAYER_SETS["up"].of_unet(every))


def test_a_unet_of_one_width_has_no_loose_layers():
    assert LAYER_SETS["up, loose"].of_unet({Layer("output", 0, 0): 64}) == []


def test_loose_in_a_transformer_is_the_outer_half_of_up():
    flux = [Layer("double", n, 0) for n in range(19)] + [Layer("single", n, 0) for n in range(38)]
    assert LAYER_SETS["up, loose"].of_transformer(flux) == flux[-19:]
    alike = [Layer("block", n, 0) for n in range(30)]
    assert LAYER_SETS["up, loose"].of_transformer(alike) == alike[-10:]
