"""Check types as the pack is imported: as a package called `crossframe`.

    python tools/check_types.py

The folder may have any name, and mypy takes a package's name from its folder. So it is shown a
folder of the right name that leads here.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("attention", "consistency", "latents", "motion", "hosts", "nodes")


def main() -> int:
    """Run mypy on the rooms of the pack and return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "crossframe").symlink_to(ROOT, target_is_directory=True)
        packages = [word for room in ROOMS for word in ("-p", f"crossframe.{room}")]
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        environment = {**os.environ, "MYPYPATH": folder}
        cache = ["--cache-dir", str(ROOT / ".mypy_cache")]
        return subprocess.run([*command, *cache, *packages], env=environment, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
