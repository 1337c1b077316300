"""Errors of the pack have readable names, and can be copied and pickled."""

import copy
import importlib
import pickle
import pkgutil
import sys
import types

import pytest

PATH = "/home/someone/ComfyUI/custom_nodes/comfyui-crossframe"  # what ComfyUI calls our package


def errors(package) -> dict[str, type]:
    """The error classes that a package's modules define, by name."""
    found = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            is_error = isinstance(value, type) and issubclass(value, Exception)
            if is_error and name.endswith("Error") and value.__module__ != "builtins":
                found[name] = value
    return found


def is_ours(error: type) -> bool:
    """Whether an error is one of the pack's and not one that a module of it has imported."""
    return getattr(error, "home", error.__module__).startswith(PATH)


@pytest.fixture
def pack(monkeypatch):
    """The pack as ComfyUI loads it: as a package that is called by its path."""
    import crossframe

    for name in [name for name in sys.modules if name.startswith(PATH)]:
        monkeypatch.delitem(sys.modules, name)
    loaded = types.ModuleType(PATH)
    loaded.__path__ = list(crossframe.__path__)
    monkeypatch.setitem(sys.modules, PATH, loaded)
    before = set(sys.modules)
    yield loaded
    for name in set(sys.modules) - before:
        sys.modules.pop(name)


def test_users_see_no_path(pack):
    from execution import full_type_name

    rooms = [importlib.import_module(f"{PATH}.{room}") for room in ("hosts.comfy", "attention")]
    found = errors(rooms[0]) | errors(rooms[1])
    found.pop("PackError", None)  # never raised itself
    assert {"BadInputError", "DamagedModelError", "StepMismatchError"} <= found.keys()
    ours = {name: full_type_name(error) for name, error in found.items() if is_ours(error)}
    assert ours == {name: f"crossframe.{name}" for name in ours}


def test_they_can_be_handed_on(pack):
    """A copied or pickled error has the same type, text and attributes."""
    hosts = importlib.import_module(f"{PATH}.hosts.comfy.errors")
    files = importlib.import_module(f"{PATH}.hosts.comfy.demo.files")
    core = importlib.import_module(f"{PATH}.attention")
    made = [
        hosts.BadInputError("model", "It is none.", "Connect one."),
        files.DamagedModelError("a file is missing."),
        core.StepMismatchError("frame 1 took 3 model evaluations"),
    ]
    for error in made:
        error.seen = "by a test"
        for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(again) is type(error)
            assert str(again) == str(error)
            assert again.__dict__ == error.__dict__
            assert repr(again) == repr(error)
    assert isinstance(made[1], hosts.BadInputError)
