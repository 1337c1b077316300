"""Whose code a function is, and what to call its owner in words."""

import functools
import types
from typing import Any


def innermost(function: Any) -> Any:
    """What a partial or a method stands for."""
    while isinstance(function, (functools.partial, types.MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def module_of(function: Any) -> str:
    """The module whose code a function or an object's `__call__` is.

    Taken from the code's own globals, since decorators copy `__module__` from what they wrap.
    """
    function = innermost(function)
    if not isinstance(function, types.FunctionType):
        function = innermost(vars(type(function)).get("__call__"))
    return getattr(function, "__globals__", {}).get("__name__", "")


def is_of_comfyui(function: Any) -> bool:
    """Whether a function is ComfyUI's own."""
    return module_of(function).split(".")[0] in ("comfy", "comfy_extras")


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
