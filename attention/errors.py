"""What the pack's own errors have in common: they are called by its name.

ComfyUI shows users the module of an error's class, and the modules of a pack are called by the
path of its folder there.
"""

import importlib
from typing import Any, ClassVar

PACK = "crossframe"


class PackError(Exception):
    """Base of the errors that users see: `crossframe.BadInputError`, wherever the pack lies.

    home: the module in which the class can be found, for pickle, which would look it up by the
    name that users see.
    """

    home: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.home, cls.__module__ = cls.__module__, PACK

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        return _restored, (kind.home, kind.__qualname__, self.args), self.__dict__


def _restored(home: str, name: str, args: tuple[Any, ...]) -> PackError:
    """An error as it was: one that has a message needs none of what the message was made of."""
    kind = getattr(importlib.import_module(home), name)
    error: PackError = kind.__new__(kind, *args)
    return error
