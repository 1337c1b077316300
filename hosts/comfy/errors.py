"""The common form of errors about bad input: they name the node, the input and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...attention.errors import PackError


class BadInputError(PackError, ValueError):
    """A mistake in the graph that its user can correct.

    The code that raises it knows the input. The node that is executed adds its id, through `named`.
    """

    def __init__(self, name: str, problem: str, fix: str) -> None:
        """name: the name of the input. problem, fix: what is wrong, and what to do about it."""
        super().__init__(f"input '{name}': {problem} {fix}")
        self.name = name
        self.node: str | None = None

    def add_node(self, node: str, inputs: dict[str, str]) -> None:
        """Put the id of a node before the message, unless an id is there already.

        inputs: this node's own names of inputs, by the names that errors use.
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
    """Add the id of a node to errors about bad input that are raised inside this context.

    node: its id. inputs: the node's own names of inputs, by the names that errors use.
    """
    try:
        yield
    except BadInputError as error:
        error.add_node(node, inputs)
        raise
