"""Copies of functions, and of the objects around them, with some contents replaced.

Nodes put functions on a MODEL that hold things: in their closure, as attributes of the object whose
method they are, or as arguments of a partial. `Rebuilding` copies such a function with some of
these things replaced, and leaves the original as it is. What several functions share is also shared
by their copies.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import torch

# How many levels of nesting are searched. A tensor in a list in a closure is at level 4.
DEPTH = 9
# How many objects are visited at most, because some objects lead to all of the program.
MOST = 20_000


class Rebuilding:
    """Copies functions, with every tensor that they hold replaced by what `change` returns for it.

    change: gets a tensor and returns the same or another one. apart: whether everything that a
    call could modify is copied too, so that calls of the copy leave no trace in the original.
    Otherwise only things that hold a changed tensor are copied.
    """

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor], apart: bool = False) -> None:
        self.change = change
        self.apart = apart
        # (original, copy) by the original's id. The original must stay alive to keep its id.
        self._made: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any, depth: int = DEPTH) -> Any:
        """Return a copy of the value, or the value itself if nothing in it is replaced."""
        if id(value) not in self._made:
            self._made[id(value)] = value, value  # for values that hold themselves
            self._made[id(value)] = value, self._rebuilt(value, depth)
        return self._made[id(value)][1]

    def _rebuilt(self, value: Any, depth: int) -> Any:
        if isinstance(value, torch.Tensor):
            return value if isinstance(value, torch.nn.Parameter) else self.change(value)
        make = _KINDS.get(type(value))
        if make is None and isinstance(value, tuple) and hasattr(value, "_fields"):
            make = Rebuilding._sequence
        if make is None and is_plain_object(value):
            make = Rebuilding._object
        if make is None or depth == 0 or len(self._made) > MOST:
            return value
        return make(self, value, depth - 1)

    def _all(self, values, depth: int) -> tuple[list, bool]:
        """Return copies of all values, and whether their owner must be copied with them."""
        made = [self.of(value, depth) for value in values]
        changed = any(new is not old for new, old in zip(made, values, strict=True))
        return made, self.apart or changed

    def _function(self, function: types.FunctionType, depth: int):
        held = [*(function.__closure__ or ()), function.__defaults__, function.__kwdefaults__]
        if not any(held):
            return function
        (*cells, defaults, named), changed = self._all(held, depth)
        if not changed:
            return function
        copied = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, defaults, tuple(cells)
        )
        copied.__kwdefaults__ = named
        copied.__module__, copied.__qualname__ = function.__module__, function.__qualname__
        copied.__dict__.update(function.__dict__)
        return copied

    def _cell(self, cell: types.CellType, depth: int):
        try:
            contents = cell.cell_contents
        except ValueError:  # it is empty
            return cell
        made = self.of(contents, depth)
        return types.CellType(made) if self.apart or made is not contents else cell

    def _method(self, method: types.MethodType, depth: int):
        owner = self.of(method.__self__, depth)
        return method if owner is method.__self__ else types.MethodType(method.__func__, owner)

    def _partial(self, partial: functools.partial, depth: int):
        held = [partial.func, partial.args, partial.keywords]
        (function, args, keywords), changed = self._all(held, depth)
        return functools.partial(function, *args, **keywords) if changed else partial

    def _sequence(self, values, depth: int):
        made, changed = self._all(values, depth)
        if not changed:
            return values
        return type(values)(*made) if hasattr(values, "_fields") else type(values)(made)

    def _dict(self, values: dict, depth: int):
        made, changed = self._all(list(values.values()), depth)
        return dict(zip(values, made, strict=True)) if changed else values

    def _object(self, value: Any, depth: int):
        attributes = self._dict(vars(value), depth)
        if attributes is vars(value):
            return value
        twin = object.__new__(type(value))  # copy.copy would call what a class defines for it
        twin.__dict__.update(attributes)
        return twin


_KINDS: dict[type, Callable] = {
    types.FunctionType: Rebuilding._function,
    types.MethodType: Rebuilding._method,
    types.CellType: Rebuilding._cell,
    functools.partial: Rebuilding._partial,
    list: Rebuilding._sequence,
    tuple: Rebuilding._sequence,
    dict: Rebuilding._dict,
}

# Objects from these modules are models, devices and the like. They are never copied.
_WHOLE = ("torch", "comfy", "comfy_api", "server", "execution", "aiohttp", "asyncio")
_OF_COMFYUI_BUT_PATCHES = ("comfy.ldm",)
_HEAP_TYPE = 1 << 9  # flag of classes that were written in Python


def is_open(value: Any) -> bool:
    """Return whether a value holds things as attributes and is no model, device or the like."""
    module = type(value).__module__
    if isinstance(value, (type, types.ModuleType, torch.nn.Module, BaseException)):
        return False
    whole = _lies_in(module, _WHOLE) and not _lies_in(module, _OF_COMFYUI_BUT_PATCHES)
    return hasattr(value, "__dict__") and not whole


def is_plain_object(value: Any) -> bool:
    """Return whether copying a value's attributes is enough to copy the value.

    It is not enough for a class with `__del__`, because the copy would also run that method.
    """
    kind = type(value)
    makes: Any = kind.__new__
    plain = kind.__flags__ & _HEAP_TYPE and makes is object.__new__
    return bool(plain) and not hasattr(kind, "__del__") and is_open(value)


def _lies_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)
