"""Tell ComfyUI's own functions from those that another pack has put in their place."""

import sys
from functools import partial
from types import FunctionType
from typing import Any

import torch

# The module of torch whose decorators, such as `torch.no_grad()`, wrap ComfyUI's samplers.
DECORATORS = "torch.utils._contextlib"


def is_comfyuis(function: Any) -> bool:
    """Return whether a function was written in ComfyUI's package `comfy`.

    Only two things decide: the file that its code comes from, and the module in which it looks up
    names. A wrapper can take on the name and the module of what it wraps, but not these two. This
    also works if another pack was loaded before this one.
    """
    while _module(function) == DECORATORS:
        function = getattr(function, "__wrapped__", None)
    return _module(function).partition(".")[0] == "comfy"


def runs_comfyuis_forward(module: torch.nn.Module, kind: str) -> bool:
    """Return whether calling a module runs the forward pass of ComfyUI's class of this name."""
    forward: Any = module.forward
    function: Any = getattr(forward, "__func__", None)  # None if it is not a method
    return (
        type(module).__call__ is torch.nn.Module.__call__
        and getattr(forward, "__self__", None) is module
        and is_comfyuis(function)
        and function.__qualname__ == f"{kind}.forward"
    )


def holds_foreign_code(value: Any) -> bool:
    """Return whether a value is or holds anything but plain data and ComfyUI's own functions."""
    if value is None or isinstance(value, (bool, int, float, complex, str, torch.Tensor)):
        return False
    if isinstance(value, dict):
        return holds_foreign_code([*value, *value.values()])
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(holds_foreign_code, value))
    if isinstance(value, partial):
        return holds_foreign_code((value.func, value.args, value.keywords))
    return not is_comfyuis(value)


def _module(function: Any) -> str:
    """Return the name of the module that defines a function, or "" if that is not certain."""
    if not isinstance(function, FunctionType):
        return ""
    name = function.__globals__.get("__name__", "")
    home = sys.modules.get(name)
    written_there = (
        home is not None
        and vars(home) is function.__globals__
        and function.__code__.co_filename == getattr(home, "__file__", None)
    )
    return name if written_there else ""
