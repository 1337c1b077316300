"""The self-attention layers of ControlNets that take part in a run."""

from collections.abc import Iterable, Iterator
from typing import Any

from ....attention import LAYER_SETS, Layer
from ..errors import BadInputError
from .settings import Settings
from .unet import Attn1, attn1_layers

CONTROL_NODE = "CrossFrameControlNet"
MARK = "attends_across_frames"  # an attribute of ControlNets that take part


def address(depth: int, layer: Layer) -> Layer:
    """Return the address of a ControlNet's layer in the bank.

    depth: how many ControlNets come before it in its chain.
    """
    return layer._replace(block=f"control {depth} {layer.block}")


def depth_of(control: Any) -> int:
    """Return how many ControlNets come before one in its chain."""
    depth = 0
    while (control := control.previous_controlnet) is not None:
        depth += 1
    return depth


def chosen_layers(network: Any, layer_set: str) -> dict[Layer, Attn1]:
    """Return those of a ControlNet's layers that belong to a layer set, by their own addresses."""
    every = {attn1.layer: attn1 for attn1 in attn1_layers(network)}
    wanted = LAYER_SETS[layer_set].of_unet(
        {layer: attn1.channels for layer, attn1 in every.items()}
    )
    return {layer: every[layer] for layer in wanted}


def attending_layers(conds: Iterable[list[dict]], settings: Settings) -> tuple[Attn1, ...]:
    """Return the layers of all ControlNets in conds that take part in a run.

    conds: lists of cond dicts. The layers have the addresses that they have in the bank.
    Raises BadInputError if a ControlNet takes part and has no layer that is chosen.
    """
    found: dict[Layer, Attn1] = {}
    if not settings.attends:
        return ()
    for control in _controls(conds):
        layers = chosen_layers(control.control_model, settings.layer_set)
        if not layers:
            raise BadInputError(
                "layers",
                f"a ControlNet comes from {CONTROL_NODE}, and it has no layers "
                f"'{settings.layer_set}'.",
                f"Choose 'all' or 'mid + up', or take {CONTROL_NODE} out.",
            )
        for layer, attn1 in layers.items():
            place = address(depth_of(control), layer)
            found[place] = attn1._replace(layer=place)
    return tuple(found.values())


def _controls(conds: Iterable[list[dict]]) -> Iterator[Any]:
    """Yield the ControlNets in conds that take part, those in chains included."""
    for entries in conds:
        for entry in entries:
            control = entry.get("control")
            while control is not None:
                if getattr(control, MARK, False):
                    yield control
                control = control.previous_controlnet
