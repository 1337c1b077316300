"""Make a Python environment for the tests and the demo and print its interpreter.

With a ComfyUI, the environment sits on top of ComfyUI's own: it sees ComfyUI's packages and
adds what the tests need beside them, without changing ComfyUI's environment. Without a ComfyUI
it has its own torch. ComfyUI's interpreter is COMFYUI_PYTHON, else that of `.venv` or `venv` in
ComfyUI's folder; if there is none, ComfyUI's requirements are installed as well.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from comfyui_location import find_comfyui

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    comfyui = find_comfyui()
    wanted = [ROOT / "tests" / "requirements.txt"]
    if comfyui is None:
        wanted.append(ROOT / "tests" / "requirements-torch.txt")
        python = environment(".venv", sys.executable, wanted, beneath=None)
    else:
        beneath = comfyui_python(comfyui)
        if beneath is None:
            wanted.append(comfyui / "requirements.txt")
        python = environment(".venv-comfyui", beneath or sys.executable, wanted, beneath)
    print(python)


def comfyui_python(comfyui: Path) -> str | None:
    """Return the interpreter that ComfyUI runs with, if it can be told."""
    if chosen := os.environ.get("COMFYUI_PYTHON"):
        return chosen
    folders = (".venv/bin", "venv/bin", ".venv/Scripts", "venv/Scripts")
    names = (comfyui / folder / name for folder in folders for name in ("python", "python.exe"))
    return next((str(name) for name in names if name.exists()), None)


def environment(name: str, base: str, wanted: list[Path], beneath: str | None) -> Path:
    """Create or reuse the environment `name` and return its interpreter.

    base: the interpreter to make it from. wanted: requirement files. beneath: the interpreter of
    another environment whose packages the new one sees.
    """
    folder = ROOT / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "installed"
    contents = f"{base} {beneath} " + "".join(path.read_text() for path in wanted)
    wish = hashlib.sha256(contents.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wish:
        return python
    print(f"setting up {name} (once; takes a few minutes)", file=sys.stderr)
    run(base, "-m", "venv", "--clear", str(folder))
    if beneath is not None:
        packages = output(beneath, "import sysconfig; print(sysconfig.get_paths()['purelib'])")
        own = output(str(python), "import sysconfig; print(sysconfig.get_paths()['purelib'])")
        (Path(own) / "beneath.pth").write_text(packages + "\n")
    requirements = [argument for path in wanted for argument in ("-r", str(path))]
    run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements)
    stamp.write_text(wish)
    return python


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


def output(python: str, code: str) -> str:
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
