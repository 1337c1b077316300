"""Run a module of this folder as part of the package `crossframe`: `module.py demo.train ...`.

The folder is the package, whatever it is called and wherever it lies, so that nothing has to
be installed and no name in it can hide another package's.
"""

import importlib.util
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def load_pack() -> None:
    """Import this folder, whatever it is called, as the package `crossframe`."""
    if "crossframe" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "crossframe", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["crossframe"] = package
    spec.loader.exec_module(package)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python tools/module.py <module> [arguments], e.g. demo.train --help")
    module = f"crossframe.{sys.argv[1]}"
    load_pack()
    del sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
