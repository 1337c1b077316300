"""Find ComfyUI. Run as a script, this prints its path, or nothing if there is none."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def find_comfyui() -> Path | None:
    """Return COMFYUI_PATH, else the ComfyUI this pack is installed in, else comfy-cli's workspace.

    Raises FileNotFoundError if COMFYUI_PATH is set but holds no ComfyUI.
    """
    if chosen := os.environ.get("COMFYUI_PATH"):
        path = Path(chosen).expanduser().resolve()
        if not _is_comfyui(path):
            raise FileNotFoundError(f"COMFYUI_PATH={chosen} holds no ComfyUI")
        return path
    around = ROOT.parent.parent if ROOT.parent.name == "custom_nodes" else None
    for path in (around, Path.home() / "comfy" / "ComfyUI"):
        if path is not None and _is_comfyui(path):
            return path
    return None


def use_comfyui(path: Path, cpu: bool) -> None:
    """Make ComfyUI importable in this process, as its main.py does."""
    sys.path.insert(0, str(path))
    import comfy.cli_args
    import utils  # noqa: F401  (in old versions, `nodes` puts another module of this name in front)

    comfy.cli_args.args.cpu = cpu
    comfy.cli_args.args.disable_api_nodes = True


def need_comfyui(cpu: bool) -> Path:
    """Find a ComfyUI and make it importable, or end the program saying what to do."""
    path = find_comfyui()
    if path is None:
        sys.exit("this needs ComfyUI, and none was found: set COMFYUI_PATH")
    use_comfyui(path, cpu)
    return path


def comfyui_version(path: Path) -> str:
    """Return the version that a ComfyUI folder says it has."""
    text = (path / "comfyui_version.py").read_text()
    return re.search(r'__version__ = "(.+)"', text)[1]


def _is_comfyui(path: Path) -> bool:
    return (path / "comfyui_version.py").is_file() and (path / "comfy").is_dir()


if __name__ == "__main__":
    print(find_comfyui() or "")
