"""Load the pack as `crossframe`, find a ComfyUI, and say loudly when there is none.

Tests under `tests/comfyui/` need a real ComfyUI. They import it inside test functions and
fixtures, so that they can be collected, counted and skipped without it.
"""

import logging
import os
from pathlib import Path

import pytest
import torch
from browser import obstacle
from comfyui_location import comfyui_version, find_comfyui, use_comfyui
from module import load_pack

ROOT = Path(__file__).resolve().parent.parent
COMFYUI_TESTS = ROOT / "tests" / "comfyui"


load_pack()
COMFYUI = find_comfyui()
NO_PAGE = obstacle(COMFYUI) if COMFYUI is not None else None
if COMFYUI is not None:
    use_comfyui(COMFYUI, cpu=True)
logging.getLogger("crossframe").setLevel(logging.INFO)
torch.set_num_threads(1)  # the models are so small that threads cost more than they bring


def pytest_addoption(parser):
    help_ = "write the golden file of the nodes' interfaces again"
    parser.addoption("--write-schema", action="store_true", help=help_)


def pytest_configure(config):
    config.addinivalue_line("markers", "comfyui: needs a real ComfyUI")
    config.addinivalue_line("markers", "chromium: needs ComfyUI's page in a Chromium")


def pytest_xdist_auto_num_workers(config):
    """How many processes share the tests: for single files, none but this one.

    Each process imports torch and ComfyUI and makes the models that its files need.
    """
    whole = all(Path(argument).is_dir() for argument in config.args)
    return min(os.cpu_count() or 1, 2) if whole else 0


def pytest_collection_modifyitems(items):
    # Files that run a server take longest, so they come first and no process waits for one.
    with_server = {item.path for item in items if "server" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in with_server)
    for item in items:
        if COMFYUI_TESTS in item.path.parents:
            item.add_marker(pytest.mark.comfyui)
            if COMFYUI is None:
                item.add_marker(pytest.mark.skip(reason="no ComfyUI found"))
            elif NO_PAGE is not None and item.get_closest_marker("chromium"):
                item.add_marker(pytest.mark.skip(reason=NO_PAGE))


def pytest_terminal_summary(terminalreporter):
    def count(outcome, mark):
        reports = terminalreporter.stats.get(outcome, [])
        marked = (r for r in reports if mark in getattr(r, "keywords", {}))
        return sum(report.when != "teardown" for report in marked)

    outcomes = {name: count(name, "comfyui") for name in ("passed", "failed", "skipped")}
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
    if NO_PAGE is not None:
        skipped = count("skipped", "chromium")
        terminalreporter.write_line(
            f"{NO_PAGE}: {skipped} tests of ComfyUI's page were SKIPPED.", red=True, bold=True
        )
