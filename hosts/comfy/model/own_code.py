"""Which functions are ComfyUI's own, and which another pack has put into their place."""

import sys
from functools import partial
from types import FunctionType
from typing import Any

import torch

# Where torch keeps what decorates a function with `torch.no_grad()`, as ComfyUI's samplers are.
DECORATORS = "torch.utils._contextlib"


def is_comfyuis(function: Any) -> bool:
    """Whether a function was written in ComfyUI's package `comfy`.

    When it was put where it is does not matter: another pack may have been there before this one.
    What counts is where its code comes from and in which module it looks up names, since a wrapper
    can take on the name and the module of what it wraps, but not these two.
    """
    while _module(function) == DECORATORS:
        function = getattr(function, "__wrapped__", None)
    return _module(function).partition(".")[0] == "comfy"


def runs_comfyuis_forward(module: torch.nn.Module, kind: str) -> bool:
    """Whether calling a module runs the forward pass that ComfyUI's class of this name has."""
    forward: Any = module.forward
    function: Any = getattr(forward, "__func__", None)  # none for what is no method
    return (
        type(module).__call__ is torch.nn.Module.__call__
        and getattr(forward, "__self__", None) is module
        and is_comfyuis(function)
        and function.__qualname__ == f"{kind}.forward"
    )


def holds_foreign_code(value: Any) -> bool:
    """Whether a value is, or holds, anything but plain data and functions of ComfyUI's own."""
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
    """The name of the module that a function was written in; empty if that is not certain."""
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
