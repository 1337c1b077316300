"""The demo models by the names of their architectures."""

from pathlib import Path

from .dit import load_demo_dit
from .files import DIT
from .model import load_demo_model


def load_demo(architecture: str, folder: Path, dit_folder: Path) -> tuple:
    """Return (MODEL, CLIP, VAE, CONTROL_NET). architecture: one of `files.ARCHITECTURES`."""
    if architecture == DIT:
        return load_demo_dit(dit_folder, folder)
    return load_demo_model(folder)
