"""The archive that the Registry hands out."""

import subprocess
from pathlib import Path

import pytest
from comfy_server import copy_pack


def build_archive(folder: Path):
    """Build the archive as publishing does, from a clone with the work in progress."""
    from comfy_cli.file_utils import zip_files
    from comfy_cli.registry.config_parser import extract_node_configuration

    clone = folder / "clone"
    copy_pack(clone)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=clone, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        config = extract_node_configuration()
        zip_files(str(folder / "node.zip"), includes=config.tool_comfy.includes)
    return folder / "node.zip", config
