"""Where functions, and the objects around them, hold tensors, and how to put others there.

What nodes put on a MODEL are functions that hold things: in their closure, as attributes of the
object whose method they are, as arguments of a partial. A `Place` is one such spot. Other tensors
are put there for the time of a call and the former ones back afterwards, so that everything else
stays what it is: what a function keeps from call to call, what it shares with others, who it is.
"""

import functools
import types
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ..model.rebuild import MOST, is_open

Leave = Callable[[Any], bool]


class Place(NamedTuple):
    """A spot that holds a tensor, or a tuple or partial with tensors in it.

    put: puts another value there. get: what is there now. tensors: what is held there.
    """

    get: Callable[[], Any]
    put: Callable[[Any], None]
    tensors: tuple[torch.Tensor, ...]


def places_in(
    value: Any, leave: Leave = lambda _: False, keys: Leave = lambda _: True
) -> list[Place]:
    """Every place in nested containers, functions and objects that holds a tensor.

    leave: says in what nothing is to be looked for. keys: of those of `value`, where to look, if
    it is a dict. Parameters of a model are no such tensors.
    """
    if isinstance(value, MutableMapping):
        roots: list[tuple[Callable[[], Any], Callable[[Any], None]]] = [
            (functools.partial(value.get, k), _setter(value, k)) for k in value if keys(k)
        ]
    else:
        roots = list(_spots(value))
    found = [Place(*spot, held) for spot in roots if (held := tuple(_tensors(spot[0]())))]
    seen: dict[int, Any] = {id(value): value}
    waiting = [get() for get, _ in roots]
    while waiting and len(seen) < MOST:
        owner = waiting.pop()
        if id(owner) in seen or leave(owner):
            continue
        seen[id(owner)] = owner
        for get, put in _spots(owner):
            held = get()
            if tensors := tuple(_tensors(held)):
                found.append(Place(get, put, tensors))
            waiting.append(held)
    return found


def _spots(owner: Any) -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """The spots of an owner: how to get what is in each, and how to put something else there."""
    if isinstance(owner, MutableMapping):
        yield from ((functools.partial(owner.__getitem__, k), _setter(owner, k)) for k in [*owner])
    elif isinstance(owner, MutableSequence):
        for number in range(len(owner)):
            yield functools.partial(owner.__getitem__, number), _setter(owner, number)
    elif isinstance(owner, types.FunctionType):
        yield from _spots_of_function(owner)
    elif isinstance(owner, (tuple, types.MethodType, functools.partial)):
        yield from ((lambda held=held: held, _no) for held in _inside(owner))
    elif is_open(owner):
        yield from _spots(vars(owner))


def _spots_of_function(function: types.FunctionType):
    for cell in function.__closure__ or ():
        if cell != types.CellType():  # it is not empty
            get = functools.partial(getattr, cell, "cell_contents")
            yield get, functools.partial(setattr, cell, "cell_contents")
    for name in ("__defaults__", "__kwdefaults__"):
        if getattr(function, name):
            get = functools.partial(getattr, function, name)
            yield get, functools.partial(setattr, function, name)
    yield from _spots(function.__dict__)


def _setter(owner: Any, key: Any) -> Callable[[Any], None]:
    return functools.partial(owner.__setitem__, key)


def _no(_: Any) -> None:
    """For what is held in something that does not change; its owner's spot is replaced instead."""


def _inside(owner: Any) -> tuple:
    """What a tuple, a method or a partial holds."""
    if isinstance(owner, types.MethodType):
        return (owner.__func__, owner.__self__)
    if isinstance(owner, functools.partial):
        return (owner.func, owner.args, owner.keywords)
    return owner


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    """The tensors that a spot holds itself, or in tuples and partials, which do not change."""
    if isinstance(held, torch.Tensor):
        if not isinstance(held, torch.nn.Parameter):
            yield held
    elif isinstance(held, tuple):
        for item in held:
            yield from _tensors(item)
    elif isinstance(held, functools.partial):
        yield from _tensors(held.args)


def _with(held: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """What a spot holds, with its tensors changed."""
    if isinstance(held, torch.Tensor):
        return change(held)
    if isinstance(held, tuple):
        made = [_with(item, change) for item in held]
        return type(held)(*made) if hasattr(held, "_fields") else type(held)(made)
    if isinstance(held, functools.partial):
        return functools.partial(held.func, *_with(held.args, change), **held.keywords)
    return held


@contextmanager
def holding(places: list[Place], change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let places hold what `change` makes of their tensors, and then again what they held."""
    before = [(place, place.get()) for place in places]
    try:
        for place, held in before:
            place.put(_with(held, change))
        yield
    finally:
        for place, held in before:
            place.put(held)
