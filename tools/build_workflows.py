"""Write the example workflows, with every node as a real ComfyUI describes it.

Run:  python tools/build_workflows.py http://127.0.0.1:8188
or:   python tools/build_workflows.py object_info.json     (what that server has at /object_info)

What the files hold is the same whichever supported version of ComfyUI it is made with: the
nodes' sockets up to the last one used, and the widgets that are set here.
"""

import json
import sys
import urllib.request
from pathlib import Path

from chunks_workflow import CHUNKS, chunks
from demo_workflow import TRY_IT, try_it
from reference_workflow import REFERENCE, reference
from restyle_workflow import restyles

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"


def build(object_info: dict) -> dict[str, dict]:
    """Return every example workflow by the name of its file."""
    named = {
        TRY_IT: try_it(object_info),
        **restyles(object_info),
        CHUNKS: chunks(object_info),
        REFERENCE: reference(object_info),
    }
    return {f"{name}.json": workflow for name, workflow in named.items()}


def as_text(workflow: dict) -> str:
    """The text of a workflow file."""
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


def read_object_info(source: str) -> dict:
    """Read what ComfyUI says about its nodes, from a server or from a file."""
    if source.startswith("http"):
        with urllib.request.urlopen(f"{source.rstrip('/')}/object_info") as answer:
            return json.load(answer)
    return json.loads(Path(source).read_text())


def main() -> None:
    """Write the files."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    FOLDER.mkdir(exist_ok=True)
    for name, workflow in build(read_object_info(sys.argv[1])).items():
        (FOLDER / name).write_text(as_text(workflow))
        print(FOLDER / name)


if __name__ == "__main__":
    main()
