"""What a run has to tell its user beside its frames."""

import logging

from .graph import show

log = logging.getLogger("crossframe")


class Notes:
    """Notes of one run, as sentences: in the log and on the node at once, and in its report.

    node: the class that ComfyUI executes; None if there is none, or none to write on.
    """

    def __init__(self, node=None) -> None:
        self.lines: list[str] = []
        self._node = node

    def warn(self, text: str) -> None:
        """Add a note about something that is not as the user wants it."""
        log.warning("Cross-frame attention: %s", text)
        self.lines.append(text)
        if self._node is not None:
            show(self._node, "\n".join(self.lines))
