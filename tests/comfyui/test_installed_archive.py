"""The Registry's archive alone, unpacked under another name, in a real ComfyUI."""

import json
import subprocess
import sys
import zipfile

import pytest
from archive import build_archive
from comfy_server import make_base_directory, running_server
from comfyui_location import ROOT, find_comfyui

FOLDER = "cross-frame_by-someone"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A --base-directory with the unpacked archive as its one pack."""
    folder = tmp_path_factory.mktemp("base")
    archive, _ = build_archive(tmp_path_factory.mktemp("archive"))
    make_base_directory(folder)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder / "custom_nodes" / FOLDER)
    return folder


def test_archive_alone_loads_and_runs(base):
    with running_server(base) as server:
        nodes = server.get("/object_info")
        modules = {info["python_module"] for info in nodes.values()}
        assert f"custom_nodes.{FOLDER}" in modules
        templates = {file.stem for file in (ROOT / "example_workflows").glob("*.json")}
        assert set(server.get("/workflow_templates")[FOLDER]) == templates
        prompt = {
            "1": {"class_type": "CrossFrameDemoModel", "inputs": {}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a"}},
            "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
        }
        assert server.run(prompt).end == "execution_success"
        assert "Traceback" not in server.log


IMPORT = """
import asyncio, importlib.util, sys
sys.path.insert(0, {comfyui!r})
import comfy.options
comfy.options.enable_args_parsing(False)
import comfy.cli_args
comfy.cli_args.args.cpu = True
import nodes, comfy_extras.nodes_custom_sampler, comfy_api.latest
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("pack", {pack!r} + "/__init__.py")
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
assert {{node.define_schema().node_id for node in nodes}} == {node_ids!r}
print(*set(name.partition(".")[0] for name in set(sys.modules) - before))
"""


def test_pack_adds_little_to_the_start(base):
    """It loads no package except for itself that ComfyUI has not already loaded."""
    pack = str(base / "custom_nodes" / FOLDER)
    node_ids = set(json.loads((ROOT / "tests/comfyui/schema.json").read_text()))
    code = IMPORT.format(comfyui=str(find_comfyui()), pack=pack, node_ids=node_ids)
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1]
    assert set(loaded.split()) - sys.stdlib_module_names == {"pack"}
