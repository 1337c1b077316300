"""Imports go one way, nodes -> hosts -> attention, and the core needs no host."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each room may import these, and itself.
MAY_IMPORT = {
    "attention": set(),
    "consistency": set(),
    "hosts": {"attention", "consistency"},
    "nodes": {"attention", "consistency", "hosts"},
    "demo": {"attention", "consistency", "hosts", "nodes"},
}

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


def imported_rooms(source: str, package: tuple[str, ...]) -> set[str]:
    """The rooms that the relative imports of a module in `package` lead to."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = tuple(node.module.split(".")) if node.module else ()
            for name in node.names:
                rooms.add((*base, *module, name.name)[0])
    return rooms


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room):
    allowed = {room, *MAY_IMPORT[room]}
    assert modules(room)
    for path in modules(room):
        package = path.relative_to(ROOT).parent.parts
        assert imported_rooms(path.read_text(), package) <= allowed, path


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from ..nodes import x", {"nodes"}),
        ("from .. import hosts", {"hosts"}),
        ("from ..hosts.comfy.patch import attach", {"hosts"}),
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
        ("crossframe.consistency", ["comfy", "comfy_api", "nodes", "diffusers", "skimage"]),
        ("crossframe.hosts.diffusers", ["comfy", "comfy_api", "nodes", "folder_paths"]),
    ],
)
def test_imports_with_hosts_blocked(module, blocked):
    script = BLOCKED_IMPORT.format(blocked=blocked, root=str(ROOT), module=module)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
