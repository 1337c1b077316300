"""Check arguments that must be one of several names."""

from collections.abc import Mapping
from typing import Any


def chosen(argument: str, name: str, choices: Mapping[str, Any]) -> Any:
    """Return what `choices` holds under a name. Otherwise raise ValueError with all choices."""
    if name not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{argument} is {name!r}; choose one of {listed}")
    return choices[name]
