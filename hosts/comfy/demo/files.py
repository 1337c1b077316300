"""Read the files of the demo model. Every problem with them is a DamagedModelError."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.utils
import torch

from ..errors import BadInputError

DEMO = Path(__file__).parents[3] / "demo"
FOLDER = DEMO / "model"
DIT_FOLDER = DEMO / "dit"
CLIP_FILE = DEMO / "clip" / "shapes.mp4"
DTYPE = torch.float32  # the model's dtype on every device
U_NET, DIT = ARCHITECTURES = ("U-Net", "DiT")


class DamagedModelError(BadInputError):
    """A file of the demo is missing, or is not the one that came with the pack."""

    def __init__(self, problem: str) -> None:
        super().__init__("", problem, "Reinstall the pack.")
        self.args = (f"{problem} Reinstall the pack.",)  # the demo nodes have no input to name


def check_exists(file: Path) -> None:
    """Raise DamagedModelError if there is no such file."""
    if not file.is_file():
        raise DamagedModelError(f"the file {file} is missing.")


def read_config(file: Path) -> dict:
    """Read a config.json. Raises DamagedModelError."""
    check_exists(file)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedModelError(f"the file {file} cannot be read ({error}).") from error


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises DamagedModelError."""
    check_exists(file)
    try:
        weights = comfy.utils.load_torch_file(str(file), safe_load=True)
        return {name: weight.to(DTYPE) for name, weight in weights.items()}
    except Exception as error:  # readers of safetensors have their own errors
        raise DamagedModelError(f"the file {file} cannot be read ({error}).") from error


@contextmanager
def fitting_weights(part: str) -> Iterator[None]:
    """Turn a module's error about weights that do not fit into a DamagedModelError."""
    try:
        yield
    except RuntimeError as error:
        raise DamagedModelError(f"the weights in {part} do not fit its config: {error}") from error
