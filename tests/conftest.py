"""Load the pack as `crossframe`, find a ComfyUI, and say loudly when there is none.

Tests under `tests/comfyui/` need a real ComfyUI. They import it inside test functions and
fixtures, so that they can be collected, counted and skipped without it.
"""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest
import torch
from comfyui_location import comfyui_version, find_comfyui

ROOT = Path(__file__).resolve().parent.parent
COMFYUI_TESTS = ROOT / "tests" / "comfyui"


def load_pack() -> None:
    """Import this folder, whatever it is called, as the package `crossframe`."""
    if "crossframe" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "crossframe", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["crossframe"] = module
    spec.loader.exec_module(module)


def prepare_comfyui(path: Path) -> None:
    """Make ComfyUI importable, on the CPU, as its main.py would."""
    sys.path.insert(0, str(path))
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.disable_api_nodes = True


load_pack()
COMFYUI = find_comfyui()
if COMFYUI is not None:
    prepare_comfyui(COMFYUI)
logging.getLogger("crossframe").setLevel(logging.INFO)
torch.set_num_threads(1)  # the models are so small that threads cost more than they bring


def pytest_configure(config):
    config.addinivalue_line("markers", "comfyui: needs a real ComfyUI")


def pytest_collection_modifyitems(items):
    for item in items:
        if COMFYUI_TESTS in item.path.parents:
            item.add_marker(pytest.mark.comfyui)
            if COMFYUI is None:
                item.add_marker(pytest.mark.skip(reason="no ComfyUI found"))


def pytest_terminal_summary(terminalreporter):
    outcomes = {
        name: sum(
            1
            for report in terminalreporter.stats.get(name, [])
            if "comfyui" in getattr(report, "keywords", {}) and report.when != "teardown"
        )
        for name in ("passed", "failed", "skipped")
    }
    if COMFYUI is None:
        terminalreporter.write_line(
            f"NO COMFYUI FOUND: {outcomes['skipped']} tests that need it were SKIPPED. "
            "Set COMFYUI_PATH to run them.",
            red=True,
            bold=True,
        )
    else:
        terminalreporter.write_line(
            f"ComfyUI {comfyui_version(COMFYUI)}: {outcomes['passed']} tests on it passed, "
            f"{outcomes['failed']} failed, {outcomes['skipped']} skipped",
            bold=True,
        )
