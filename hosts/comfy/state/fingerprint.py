"""A fingerprint of everything that decides what frames look like.

It keeps finished frames from being used for another sampling. Two things go in: the graph that
leads to the node, with all of its settings, and the contents of what arrives, which are latents,
noise, prompts, hints, masks and samples of all weights. A change that leaves no trace in either,
such as other code in a node pack, is not noticed.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

import torch

from ..model.control_layers import MARK

SAMPLES = 4  # how many numbers of each vector of weights are used


class NotRepeatable(Exception):  # noqa: N818  (no error: only a reason not to resume)
    """The graph would give another result a second time."""


def fingerprint(node, guider, *contents: Any) -> str:
    """Return a fingerprint of a sampling in the graph that is executed.

    node: the class that ComfyUI executes. contents: everything else that arrives, as plain data.
    Raises NotRepeatable.
    """
    digest = hashlib.sha256(_graph(node).encode())
    _add(digest, list(contents))
    _add(digest, {name: [_cond(c) for c in conds] for name, conds in guider.original_conds.items()})
    patcher = guider.model_patcher
    _add(digest, _weights(patcher.model.diffusion_model, patcher.backup, "diffusion_model."))
    _add(digest, [[key, *map(_patch, patches)] for key, patches in patcher.patches.items()])
    return digest.hexdigest()[:32]


def _graph(node) -> str:
    """Return a digest of the graph that leads to a node: types and settings of nodes, not ids."""
    if node.hidden is None or node.hidden.dynprompt is None:
        raise NotRepeatable("it is not known which graph it belongs to")
    graph = node.hidden.dynprompt
    known: dict[str, str] = {}

    def describe(name: str) -> str:
        if name not in known:
            found = graph.get_node(name)
            changed = found.get("is_changed")
            if any(isinstance(value, float) and math.isnan(value) for value in _flat(changed)):
                raise NotRepeatable(f"{found['class_type']} runs again every time")
            inputs = {
                key: [describe(value[0]), value[1]] if _is_link(graph, value) else value
                for key, value in sorted(found["inputs"].items())
            }
            text = json.dumps([found["class_type"], inputs, changed], default=repr)
            known[name] = hashlib.sha256(text.encode()).hexdigest()
        return known[name]

    return describe(node.hidden.unique_id)


def _is_link(graph, value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and graph.has_node(value[0])


def _flat(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _cond(cond: dict) -> dict:
    """Return a cond with its chain of ControlNets replaced by plain data."""
    chain, control = [], cond.get("control")
    while control is not None:
        network = getattr(control, "control_model", None)
        weights = _weights(network, {}, "") if isinstance(network, torch.nn.Module) else []
        hints = [control.cond_hint_original, *control.extra_concat_orig]
        link = [control.strength, control.timestep_percent_range, hints, weights]
        chain.append([*link, MARK] if getattr(control, MARK, False) else link)
        control = control.previous_controlnet
    return {**cond, "control": chain}


def _weights(module: torch.nn.Module, originals: dict, prefix: str) -> list:
    """Return samples of all vectors of weights, in their unpatched form."""
    found = []
    for name, weight in module.named_parameters():
        if weight.ndim == 1:
            original = originals.get(prefix + name)
            weight = weight if original is None else original.weight
            places = torch.linspace(0, len(weight) - 1, SAMPLES).long().to(weight.device)
            found.append(weight.detach()[places].float().cpu())
    return [torch.stack(found)] if found else []


def _patch(patch: tuple) -> list:
    """Return one of ComfyUI's weight patches as plain data: its numbers and its tensors."""
    return [getattr(part, "weights", part) for part in patch]


def _add(digest, value: Any) -> None:
    """Add plain data to a digest. Other values add only their class: the graph describes them."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous()
        digest.update(f"{flat.dtype}{tuple(flat.shape)}".encode())
        digest.update(flat.flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        _add(digest, [[str(key), item] for key, item in value.items()])
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for item in value:
            _add(digest, item)
    elif value is None or isinstance(value, (bool, int, float, str)):
        digest.update(f"{type(value).__name__}{value!r};".encode())
    else:
        digest.update(type(value).__qualname__.encode())
