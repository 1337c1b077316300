"""The one form of an error about bad input: which node, which input, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...attention.errors import PackError


class BadInputError(PackError, ValueError):
    """Something that a user can put right in the graph.

    Whoever raises it knows the input. The node that is executed adds its own name, in `named`.
    """

    def __init__(self, name: str, problem: str, fix: str) -> None:
        """name: of the input. problem, fix: what is wrong, and what to do about it."""
        super().__init__(f"input '{name}': {problem} {fix}")
        self.name = name
        self.node: str | None = None

    def add_node(self, node: str, inputs: dict[str, str]) -> None:
        """Let the message begin with the id of a node, once.

        inputs: what this node calls an input, if it has another name for it.
        """
        if self.node is not None:
            return
        self.node = node
        (message,) = self.args
        name = inputs.get(self.name, self.name)
        message = message.replace(f"input '{self.name}'", f"input '{name}'", 1)
        self.args = (f"{node}: {message}",)


@contextmanager
def named(node: str, **inputs: str) -> Iterator[None]:
    """Let errors about bad input that come out of here name a node.

    node: its id. inputs: what it calls an input, by the name that the error has for it.
    """
    try:
        yield
    except BadInputError as error:
        error.add_node(node, inputs)
        raise
