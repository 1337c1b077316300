"""Functions and the objects around them, made again with other contents.

What nodes put on a MODEL are functions that hold things: in their closure, as attributes of the
object whose method they are, as arguments of a partial. `Rebuilding` makes such a function again
with some of these things replaced; the function that it was given stays as it is. Whatever is
shared by several functions is shared by their copies too.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import torch

# How far things are looked for inside of things: a tensor in a list in a closure is at 4.
DEPTH = 9
# How many things are looked at, so that one that leads to all of the program ends somewhere.
MOST = 20_000


class Rebuilding:
    """Makes functions again, with every tensor they hold replaced by what `change` makes of it.

    change: gets a tensor and returns it, or another one. apart: whether all that a call can
    leave a trace in is made again too, so that the original knows nothing of calls of the copy;
    without it only what holds a changed tensor is made again.
    """

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor], apart: bool = False) -> None:
        self.change = change
        self.apart = apart
        # By id: the original, which must stay alive for its id to be its own, and the copy.
        self._made: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any, depth: int = DEPTH) -> Any:
        """The value made again, or itself if nothing in it is replaced."""
        if id(value) not in self._made:
            self._made[id(value)] = value, value  # for what holds itself
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
        """Every value made again, and whether their owner must be made again with them."""
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
        twin = object.__new__(type(value))  # not copy.copy, which a class may have changed
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

# Objects of these modules are models, devices and the like: they are passed on as they are.
_WHOLE = ("torch", "comfy", "comfy_api", "server", "execution", "aiohttp", "asyncio")
_OF_COMFYUI_BUT_PATCHES = ("comfy.ldm",)
_HEAP_TYPE = 1 << 9  # flag of classes that were written in Python


def is_open(value: Any) -> bool:
    """Whether a value keeps what it has in its attributes, and is no model, device or the like."""
    module = type(value).__module__
    if isinstance(value, (type, types.ModuleType, torch.nn.Module, BaseException)):
        return False
    whole = _lies_in(module, _WHOLE) and not _lies_in(module, _OF_COMFYUI_BUT_PATCHES)
    return hasattr(value, "__dict__") and not whole


def is_plain_object(value: Any) -> bool:
    """Whether a copy of a value is one that has a copy of its attributes, and no more.

    What does something when it is gone is not: a copy of it would do that, too.
    """
    kind = type(value)
    makes: Any = kind.__new__
    plain = kind.__flags__ & _HEAP_TYPE and makes is object.__new__
    return bool(plain) and not hasattr(kind, "__del__") and is_open(value)


def _lies_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)
