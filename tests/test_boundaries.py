"""Imports go one way, nodes -> hosts -> attention, and the core needs no host.

Inside of `hosts/comfy/` they go one way too: a room may import those above it in `ROOMS`.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each room may import these, and itself.
MAY_IMPORT = {
    "attention": set(),
    "motion": set(),
    "consistency": {"motion"},
    "latents": {"motion"},
    "hosts": {"attention", "consistency", "latents", "motion"},
    "nodes": {"attention", "consistency", "hosts", "latents", "motion"},
    "demo": {"attention", "consistency", "hosts", "latents", "motion", "nodes"},
}

# The rooms and single files of hosts/comfy/: each may import those before it.
ROOMS = [
    "errors",
    "images",
    "page",
    "model",
    "demo",
    "consistency",
    "motion",
    "motion_field",
    "encoding",
    "propagate",
    "prompts",
    "noise",
    "rows",
    "neighbours",
    "state",
    "run",
    "orders",
    "dynamics",
    "rerender",
    "attach",
]

BLOCKED_IMPORT = """
import importlib.util, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
spec = importlib.util.spec_from_file_location(
    "crossframe", {root!r} + "/__init__.py", submodule_search_locations=[{root!r}]
)
package = importlib.util.module_from_spec(spec)
sys.modules["crossframe"] = package
spec.loader.exec_module(package)
import {module}
"""


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(source: str, package: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Return what the relative imports of a module in `package` name, as paths from the root."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = tuple(node.module.split(".")) if node.module else ()
            found.update((*base, *module, name.name) for name in node.names)
    return found


def imported_rooms(source: str, package: tuple[str, ...]) -> set[str]:
    """Return the rooms of the pack that the relative imports of a module in `package` name."""
    return {path[0] for path in imported(source, package)}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room):
    allowed = {room, *MAY_IMPORT[room]}
    assert modules(room)
    for path in modules(room):
        package = path.relative_to(ROOT).parent.parts
        assert imported_rooms(path.read_text(), package) <= allowed, path


def rooms_of_comfy() -> set[str]:
    return {path.stem for path in (ROOT / "hosts" / "comfy").iterdir() if path.stem[0] != "_"}


def test_every_room_of_comfy_has_its_place():
    assert rooms_of_comfy() == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_inside_of_comfy_go_one_way(room):
    allowed = {room, *ROOMS[: ROOMS.index(room)]}
    place = ROOT / "hosts" / "comfy" / room
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        package = path.relative_to(ROOT).parent.parts
        for target in imported(path.read_text(), package):
            if target[:2] == ("hosts", "comfy"):
                assert target[2] in allowed, (path, target)


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from ..nodes import x", {"nodes"}),
        ("from .. import hosts", {"hosts"}),
        ("from ..hosts.comfy.attach import attach", {"hosts"}),
        ("from .bank import Bank", {"attention"}),
    ],
)
def test_the_rule_sees_every_way_to_import(source, rooms):
    assert imported_rooms(source, ("attention",)) == rooms


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("crossframe", ["torch", "comfy", "comfy_api", "nodes", "diffusers", "transformers"]),
        ("crossframe.attention", ["comfy", "comfy_api", "nodes", "diffusers", "transformers"]),
        ("crossframe.latents", ["comfy", "comfy_api", "nodes", "diffusers", "transformers"]),
        ("crossframe.motion", ["comfy", "comfy_api", "nodes", "diffusers", "skimage"]),
        ("crossframe.consistency", ["comfy", "comfy_api", "nodes", "diffusers", "skimage"]),
        ("crossframe.hosts.diffusers", ["comfy", "comfy_api", "nodes", "folder_paths"]),
    ],
)
def test_imports_with_hosts_blocked(module, blocked):
    script = BLOCKED_IMPORT.format(blocked=blocked, root=str(ROOT), module=module)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
