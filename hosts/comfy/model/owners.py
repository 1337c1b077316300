"""Names that users know functions by, and the functions behind partials and methods."""

import functools
import types
from typing import Any


def innermost(function: Any) -> Any:
    """Return the function behind partials and methods."""
    while isinstance(function, (functools.partial, types.MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def module_of(function: Any) -> str:
    """Return the name of the module that defines a function or an object's class."""
    function = innermost(function)
    if not isinstance(function, types.FunctionType):
        return type(function).__module__
    return function.__globals__.get("__name__", "")


def owner_of(function: Any) -> str:
    """Return the name that users know a function by: that of the node class it was made in.

    If it was not made in a class, this is the function's own name.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        owner = function.__self__
        return owner.__name__ if isinstance(owner, type) else type(owner).__name__
    if isinstance(function, types.FunctionType):
        return function.__qualname__.split(".")[0]
    return type(function).__name__
