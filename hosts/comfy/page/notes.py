"""Notes that a run has for its user beside its frames."""

import logging

from .graph import show

log = logging.getLogger("crossframe")


class Notes:
    """Notes of one run, as sentences, which go to the log, on the node and into the run's report.

    node: the class that ComfyUI executes, or None if there is no node to write on.
    """

    def __init__(self, node=None) -> None:
        self.lines: list[str] = []
        self._node = node

    def warn(self, text: str) -> None:
        """Add a note about something that is not as the user wants it, and show it at once."""
        log.warning("Cross-frame attention: %s", text)
        self.lines.append(text)
        if self._node is not None:
            show(self._node, "\n".join(self.lines))
