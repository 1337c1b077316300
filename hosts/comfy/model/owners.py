"""What to call the owner of a function in words."""

import functools
import types
from typing import Any


def innermost(function: Any) -> Any:
    """What a partial or a method stands for."""
    while isinstance(function, (functools.partial, types.MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def module_of(function: Any) -> str:
    """The module that a function, or the class of an object, was written in."""
    function = innermost(function)
    if not isinstance(function, types.FunctionType):
        return type(function).__module__
    return function.__globals__.get("__name__", "")


def owner_of(function: Any) -> str:
    """What users know a function by: the node class that it was made in, else its own name."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        owner = function.__self__
        return owner.__name__ if isinstance(owner, type) else type(owner).__name__
    if isinstance(function, types.FunctionType):
        return function.__qualname__.split(".")[0]
    return type(function).__name__
