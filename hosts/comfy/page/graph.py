"""What a node can learn about the graph that it is executed in, and how it shows text there."""

from collections.abc import Iterator
from typing import Any

# Outputs of these types hold no state. All other types might: "*", bundles, matched types.
STATELESS = frozenset(
    {"CLIP", "CONDITIONING", "FLOAT", "IMAGE", "INT", "LATENT", "MASK", "MODEL", "STRING", "VAE"}
)


def is_connected(node, output: int) -> bool:
    """Return whether anything may read an output of the executed node; true outside of a graph.

    node: the class that ComfyUI executes, with unique_id and dynprompt among its hidden inputs.
    output: the output's position.

    Another node may have put this node into the graph while it was executed ("expansion"). The
    outputs may then come out of that other node, and only ComfyUI knows out of which of its
    outputs. So they count as read if any output of that node is read that could hold a state.
    """
    hidden = node.hidden
    if hidden is None or hidden.dynprompt is None:
        return True
    graph, name = hidden.dynprompt, hidden.unique_id
    if output in _read_outputs(graph, name):
        return True
    while (name := graph.get_parent_node_id(name)) is not None:
        if any(_may_hold_state(graph, name, place) for place in _read_outputs(graph, name)):
            return True
    return False


def _read_outputs(graph, name: str) -> set[int]:
    """Return the positions of a node's outputs to which something is connected."""
    return {
        place
        for other in graph.all_node_ids()
        for source, place in _links(graph.get_node(other)["inputs"])
        if source == name
    }


def _links(value: Any) -> Iterator[tuple[str, int]]:
    """Yield every link in the inputs of a node: (name of a node, position of its output).

    Links inside lists are included, because a node that expands may get lists to pass them on.
    """
    if isinstance(value, dict):
        for inner in value.values():
            yield from _links(inner)
    elif isinstance(value, (list, tuple)):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (int, float)):
            yield value[0], int(value[1])
            return
        for inner in value:
            yield from _links(inner)


def _may_hold_state(graph, name: str, place: int) -> bool:
    """Return whether a state could come out of a node's output, as far as its type tells."""
    import nodes  # ComfyUI's own module, which exists only where a graph is executed

    kind = nodes.NODE_CLASS_MAPPINGS.get(graph.get_node(name)["class_type"])
    try:
        return kind.RETURN_TYPES[int(place)] not in STATELESS
    except (AttributeError, IndexError, TypeError):  # packs may declare anything as types
        return True


def show(node, text: str) -> None:
    """Write a text on the executed node; do nothing outside of a graph.

    If the node is part of another node's expansion, the text goes on that other node, because only
    that one is on the page.
    """
    hidden = node.hidden
    if hidden is None or hidden.unique_id is None:
        return
    graph = getattr(hidden, "dynprompt", None)
    name = hidden.unique_id
    _send(text, name if graph is None else graph.get_display_node_id(name))


def show_on_executed(text: str) -> None:
    """Write a text on the node that is executed, e.g. a stock sampler; do nothing if none is."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    if context is not None:
        _send(text, context.node_id)


def _send(text: str, name: str) -> None:
    from server import PromptServer  # exists only where a server runs

    instance = getattr(PromptServer, "instance", None)
    if instance is not None:
        instance.send_progress_text(text, name)
