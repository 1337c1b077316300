"""What a node can know of the graph that it is executed in, and say in it."""


def is_connected(node, output: int) -> bool:
    """Whether anything reads an output of the node in execution; true outside of a graph.

    node: the class that ComfyUI executes, with unique_id and dynprompt among its hidden inputs.
    output: its position.
    """
    hidden = node.hidden
    if hidden is None or hidden.dynprompt is None:
        return True
    wanted = [hidden.unique_id, output]
    graph = hidden.dynprompt
    return any(
        list(value) == wanted
        for other in graph.all_node_ids()
        for value in graph.get_node(other)["inputs"].values()
        if isinstance(value, (list, tuple)) and len(value) == 2
    )


def show(node, text: str) -> None:
    """Write a text on the node in execution; nowhere outside of a graph."""
    if node.hidden is not None and node.hidden.unique_id is not None:
        from server import PromptServer  # only there where a server runs

        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)
