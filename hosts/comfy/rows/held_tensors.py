"""Find where functions, and the objects around them, hold tensors, and put other tensors there.

Nodes put functions on a MODEL that hold things: in their closure, as attributes of the object whose
method they are, or as arguments of a partial. A `Place` is one such spot. Other tensors are put
there for the time of a call, and the original ones are put back afterwards. So the functions stay
the same objects, and keep what they remember from call to call and what they share with others.
"""

import functools
import types
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ..model.rebuild import MOST, is_open

Leave = Callable[[Any], bool]
# How to get and to put the value of a spot, and the dict that it lies in, or None.
Spot = tuple[Callable[[], Any], Callable[[Any], None], MutableMapping | None]


class Place(NamedTuple):
    """A spot that holds a tensor, or a tuple or partial with tensors in it.

    get: returns the value there. put: puts another value there. tensors: the tensors in the value.
    around: the dict that it lies in, such as the attributes of an object, or None.
    """

    get: Callable[[], Any]
    put: Callable[[Any], None]
    tensors: tuple[torch.Tensor, ...]
    around: MutableMapping | None = None


def places_in(
    value: Any, leave: Leave = lambda _: False, keys: Leave = lambda _: True
) -> list[Place]:
    """Return all places in nested containers, functions and objects that hold a tensor.

    leave: whether an object is to be skipped. keys: whether a key of `value` is to be searched, if
    `value` is a dict. Parameters of a model do not count as tensors here.
    """
    if isinstance(value, MutableMapping):
        roots: list[Spot] = [
            (functools.partial(value.get, k), _setter(value, k), value) for k in value if keys(k)
        ]
    else:
        roots = list(_spots(value))
    found = [
        Place(get, put, held, around)
        for get, put, around in roots
        if (held := tuple(_tensors(get())))
    ]
    seen: dict[int, Any] = {id(value): value}
    waiting = [get() for get, *_ in roots]
    while waiting and len(seen) < MOST:
        owner = waiting.pop()
        if id(owner) in seen or leave(owner):
            continue
        seen[id(owner)] = owner
        for get, put, around in _spots(owner):
            held = get()
            if tensors := tuple(_tensors(held)):
                found.append(Place(get, put, tensors, around))
            waiting.append(held)
    return found


def _spots(owner: Any) -> Iterator[Spot]:
    """Yield the spots of an owner."""
    if isinstance(owner, MutableMapping):
        for key in [*owner]:
            yield functools.partial(owner.__getitem__, key), _setter(owner, key), owner
    elif isinstance(owner, MutableSequence):
        for number in range(len(owner)):
            yield functools.partial(owner.__getitem__, number), _setter(owner, number), None
    elif isinstance(owner, types.FunctionType):
        yield from _spots_of_function(owner)
    elif isinstance(owner, (tuple, types.MethodType, functools.partial)):
        yield from ((lambda held=held: held, _no, None) for held in _inside(owner))
    elif is_open(owner):
        yield from _spots(vars(owner))


def _spots_of_function(function: types.FunctionType):
    for cell in function.__closure__ or ():
        if cell != types.CellType():  # the cell is not empty
            get = functools.partial(getattr, cell, "cell_contents")
            yield get, functools.partial(setattr, cell, "cell_contents"), None
    for name in ("__defaults__", "__kwdefaults__"):
        if getattr(function, name):
            get = functools.partial(getattr, function, name)
            yield get, functools.partial(setattr, function, name), None
    yield from _spots(function.__dict__)


def _setter(owner: Any, key: Any) -> Callable[[Any], None]:
    return functools.partial(owner.__setitem__, key)


def _no(_: Any) -> None:
    """Do nothing, for spots in an immutable value: the spot of the whole value is replaced."""


def _inside(owner: Any) -> tuple:
    """Return the values in a tuple, a method or a partial."""
    if isinstance(owner, types.MethodType):
        return (owner.__func__, owner.__self__)
    if isinstance(owner, functools.partial):
        return (owner.func, owner.args, owner.keywords)
    return owner


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a spot, directly or inside immutable values (tuples and partials)."""
    if isinstance(held, torch.Tensor):
        if not isinstance(held, torch.nn.Parameter):
            yield held
    elif isinstance(held, tuple):
        for item in held:
            yield from _tensors(item)
    elif isinstance(held, functools.partial):
        yield from _tensors(held.args)


def _with(held: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return the value of a spot with its tensors changed."""
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
    """Replace the tensors of places by what `change` returns for them, and restore them later.

    What the owner of a replaced tensor works out from it meanwhile, such as an encoded picture and
    its size, is also taken away later. Numbers stay as the owner leaves them, because they may
    count its calls. Places whose tensors `change` returns as they are belong to their owner alone.
    """
    changes = [(place, held := place.get(), _with(held, change)) for place in places]
    replaced = [
        (place, held, other)
        for place, held, other in changes
        if any(old is not new for old, new in zip(_tensors(held), _tensors(other), strict=True))
    ]
    around = (place.around for place, *_ in replaced)
    owners = {id(owner): owner for owner in around if owner is not None}
    before = [(owner, dict(owner)) for owner in owners.values()]
    try:
        for place, _, other in replaced:
            place.put(other)
        yield
    finally:
        for place, held, _ in replaced:
            place.put(held)
        for owner, contents in before:
            _restore(owner, contents)


def _restore(owner: MutableMapping, contents: dict) -> None:
    """Put back the contents of a dict, but for numbers."""
    for key, value in [*owner.items()]:
        if isinstance(value, (int, float)):
            continue
        if key not in contents:
            del owner[key]
        elif value is not contents[key]:
            owner[key] = contents[key]
