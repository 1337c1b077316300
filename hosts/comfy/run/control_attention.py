"""Let the self-attention of a ControlNet look at other frames, as that of its U-Net does.

ComfyUI gives ControlNets no patches. While one is called, its layers therefore get transformer
options through hooks of torch, which are removed before the call returns. The network itself, which
other graphs share, is never changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from comfy.cldm.cldm import ControlNet as Network
from comfy.controlnet import ControlNet
from comfy.ldm.modules.attention import SpatialTransformer

from ....attention import Layer
from ..errors import BadInputError, named
from ..model.carried import Carried, carried_by, carried_in
from ..model.control_layers import CONTROL_NODE, address, chosen_layers, depth_of
from ..model.settings import KEY
from ..model.unet import blocks_of
from .self_attention import attn1_replacement, reference_tokens


class AttendingControlNet(ControlNet):
    """A ControlNet whose self-attention takes part in the run of the MODEL that it is used with."""

    attends_across_frames = True  # MARK in `control_layers.py`

    def copy(self):
        """Return a ControlNet with the same network. ComfyUI's nodes put the hint on a copy."""
        copied = super().copy()
        copied.__class__ = AttendingControlNet
        return copied

    def pre_run(self, model, percent_to_timestep_function):
        """Prepare for a sampling. Raises BadInputError without cross-frame attention."""
        carried = carried_by(model.current_patcher.model_options)
        if carried is None or not carried.settings.attends:
            with named(CONTROL_NODE):
                raise BadInputError(
                    "control_net",
                    "the MODEL that is sampled carries no cross-frame attention, in which the "
                    "ControlNet could take part.",
                    "Put CrossFrameAttention on the MODEL, or use the ControlNet without this "
                    "node.",
                )
        super().pre_run(model, percent_to_timestep_function)

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        """Return what the ControlNet adds to the U-Net. x_noisy: (rows, channels, h, w)."""
        with self._attending(transformer_options):
            return super().get_control(x_noisy, t, cond, batched_number, transformer_options)

    @contextmanager
    def _attending(self, transformer_options: dict) -> Iterator[None]:
        carried = carried_in(transformer_options)
        evaluation = None if carried is None else carried.evaluation
        if carried is None or evaluation is None or not evaluation.layers:
            yield  # outside of a sampling, or of the part of it in which the U-Net attends
            return
        depth = depth_of(self)
        own = chosen_layers(self.control_model, carried.run.facts.settings.layer_set)
        layers = frozenset(address(depth, layer) for layer in own)
        evaluation = replace(evaluation, layers=layers, shared=frozenset())
        options = _options(transformer_options, replace(carried, evaluation=evaluation))
        hooks = [
            module.register_forward_pre_hook(_giving({**options, "block": block[:2]}))
            for module, block in _transformers(self.control_model, depth)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def attending(control_net: Any) -> AttendingControlNet:
    """Return a ControlNet that takes part in runs; the given one stays as it is.

    Raises BadInputError unless it is a ControlNet of SD1.x, SD2.x or SDXL.
    """
    if type(control_net) is AttendingControlNet:
        raise BadInputError(
            "control_net",
            "it already takes part in cross-frame attention.",
            f"Use one {CONTROL_NODE} node.",
        )
    if type(control_net) is not ControlNet or not isinstance(control_net.control_model, Network):
        network = getattr(control_net, "control_model", None)
        kind = type(control_net).__name__
        if type(control_net) is ControlNet:
            kind = f"{kind} with the network {type(network).__name__}"
        raise BadInputError(
            "control_net",
            f"it is a {kind}, which has no self-attention that could take part.",
            "Use a ControlNet of SD1.5, SD2 or SDXL, or connect it without this node.",
        )
    made = control_net.copy()
    made.__class__ = AttendingControlNet
    return made


def _options(transformer_options: dict, carried: Carried) -> dict:
    """Return transformer options for a ControlNet, without what patches the U-Net."""
    replaced = {}
    if carried.run.facts.order.logits:
        replaced = {tuple(layer): attn1_replacement for layer in carried.evaluation.layers}
    return {
        **transformer_options,
        KEY: carried,
        "patches": {"attn1_patch": [_attn1_patch]},
        "patches_replace": {"attn1": replaced},
    }


@torch.compiler.disable  # the run changes with every call
def _attn1_patch(query, context, value, extra_options: dict):
    """attn1 patch of a ControlNet. See `attn1_patch` in `self_attention.py`."""
    tokens = reference_tokens(context, value, extra_options)
    return query, tokens[0], tokens[-1]


def _giving(options: dict):
    """Return a hook that gives a layer its transformer options. options: these."""

    def give(module, args):
        x, context, *_ = args
        return x, context, dict(options)

    return give


def _transformers(network: Network, depth: int) -> Iterator[tuple[SpatialTransformer, Layer]]:
    """Yield the stacks of transformer blocks of a ControlNet, each with its address in the bank."""
    for block, name, number in blocks_of(network):
        for module in block:
            if isinstance(module, SpatialTransformer):
                yield module, address(depth, Layer(name, number, 0))
