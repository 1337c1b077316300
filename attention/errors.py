"""The base class of the pack's own errors, which carry the pack's name.

ComfyUI shows users the module of an error's class. Without this base class that module would be
named by the path of the pack's folder.
"""

import importlib
from typing import Any, ClassVar

PACK = "crossframe"


class PackError(Exception):
    """Base of the errors that users see as `crossframe.BadInputError`, wherever the pack lies.

    home: the module that defines the class. Pickle needs it, because it would otherwise look for
    the class under the name that users see.
    """

    home: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.home, cls.__module__ = cls.__module__, PACK

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        return _restored, (kind.home, kind.__qualname__, self.args), self.__dict__


def _restored(home: str, name: str, args: tuple[Any, ...]) -> PackError:
    """Return a pickled error with its message, without calling its `__init__`.

    An error that has a message no longer needs the arguments that the message was made of.
    """
    kind = getattr(importlib.import_module(home), name)
    error: PackError = kind.__new__(kind, *args)
    return error
