"""The one form of an error about bad input: which node, which input, what to do."""

from ...attention.errors import PackError


class BadInputError(PackError, ValueError):
    """Something a user can put right in the graph."""

    def __init__(self, node: str, name: str, problem: str, fix: str) -> None:
        """node: node id. name: its input. problem, fix: what is wrong, what to do about it."""
        super().__init__(f"{node}: input '{name}': {problem} {fix}")
