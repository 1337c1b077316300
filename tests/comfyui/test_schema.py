"""What shared workflows rely on: ids, inputs, defaults and outputs of every node."""

import json
from pathlib import Path

GOLDEN = Path(__file__).with_name("schema.json")
STOCK_LISTS = ("sampler_name", "scheduler")  # ComfyUI's own, which grow
ADVICE = """
A node's interface is not what {file} says. People have workflows with it. A new optional input at
the end is harmless; whatever is renamed, removed, reordered or given another default breaks or
changes their graphs. If that is meant, say so in CHANGELOG.md and write the file anew:
    python -m pytest {test} --write-schema
"""


def interfaces() -> dict:
    """The interface of every node, as ComfyUI tells it to the page."""
    from crossframe.nodes import NODES

    return {node.define_schema().node_id: _interface(node) for node in NODES}


def _interface(node) -> dict:
    info = node.GET_NODE_INFO_V1()
    return {
        "inputs": [
            {"name": name, "group": group, **_input(name, *spec)}
            for group in ("required", "optional")
            for name, spec in info["input"].get(group, {}).items()
        ],
        "outputs": [list(pair) for pair in zip(info["output_name"], info["output"])],
        "output_node": info["output_node"],
        "display_name": info["display_name"],
    }


def _input(name: str, kind, options: dict) -> dict:
    told = {"type": "COMBO" if isinstance(kind, list) else kind}
    told |= {key: options[key] for key in ("default", "min", "max", "advanced") if key in options}
    if "options" in options and name not in (*STOCK_LISTS, "file"):
        told["options"] = options["options"]
    return told


def test_interfaces_are_what_workflows_rely_on(pytestconfig):
    found = json.loads(json.dumps(interfaces()))
    if pytestconfig.getoption("--write-schema"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    here = Path(__file__)
    advice = ADVICE.format(file=GOLDEN.name, test=f"tests/comfyui/{here.name}")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8")), advice
