"""Write the example workflows, with every node as a real ComfyUI describes it.

Run:  python tools/build_workflows.py http://127.0.0.1:8188
or:   python tools/build_workflows.py object_info.json     (what that server has at /object_info)

The files are the same whichever supported version of ComfyUI describes the nodes: a file holds
each node's sockets up to the last one used, and the widgets that are set in `workflows/`.
"""

import json
import sys
import urllib.request
from functools import partial
from pathlib import Path

from workflows.chunks import chunks
from workflows.control_video import control_video
from workflows.graph import Graph
from workflows.models import SD15, SDXL
from workflows.reference import reference
from workflows.rerender import every_eighth, rerender
from workflows.restyle import restyle
from workflows.text_to_video import (
    text_to_video,
    text_to_video_transformer,
    try_text_to_video,
)
from workflows.transformers import edit, restyle_transformer
from workflows.try_it import try_it, try_repainting

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"
TRY_IT = "1 - Try it (no downloads)"
REPAINT = "2 - Repaint and propagate (no downloads)"
TRY_TEXT = "3 - Text to video (no downloads)"
TEXT = "Text to video"
TEXT_TRANSFORMER = "Text to video (Z-Image-Turbo)"
REFERENCE = "Reference picture"
TRANSFORMER = "Video restyle (Z-Image-Turbo)"
STEADY_TRANSFORMER = "Steady restyle (Z-Image-Turbo)"
EDIT = "Edit a video (Flux Kontext)"
EXAMPLES = {
    TRY_IT: try_it,
    REPAINT: try_repainting,
    TRY_TEXT: try_text_to_video,
    "Video restyle": partial(restyle, family=SD15),
    "Video restyle (frame by frame)": partial(restyle, family=SD15, frame_by_frame=True),
    "Video restyle (SDXL)": partial(restyle, family=SDXL),
    TRANSFORMER: restyle_transformer,
    "Steady restyle": partial(restyle, family=SD15, steady=True),
    "Steady restyle (SDXL)": partial(restyle, family=SDXL, steady=True),
    STEADY_TRANSFORMER: partial(restyle_transformer, steady=True),
    "Rerender a video": rerender,
    "Every eighth frame (fast)": every_eighth,
    TEXT: text_to_video,
    TEXT_TRANSFORMER: text_to_video_transformer,
    "Control video": control_video,
    EDIT: edit,
    "Long clip in chunks": chunks,
    REFERENCE: reference,
}

# The demo model cannot stand in for the models of these, so their pictures show the graphs.
SHOWN_AS_GRAPHS = (REFERENCE, TRANSFORMER, STEADY_TRANSFORMER, EDIT, TEXT, TEXT_TRANSFORMER)


def build(object_info: dict) -> dict[str, dict]:
    """Return every example workflow by the name of its file."""
    return {f"{name}.json": _draw(name, object_info) for name in EXAMPLES}


def _draw(name: str, object_info: dict) -> dict:
    graph = Graph(object_info)
    EXAMPLES[name](graph)
    return graph.workflow(name)


def as_text(workflow: dict) -> str:
    """Return the text of a workflow file."""
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


def read_object_info(source: str) -> dict:
    """Read what ComfyUI says about its nodes, from a server or from a file."""
    if source.startswith("http"):
        with urllib.request.urlopen(f"{source.rstrip('/')}/object_info") as answer:
            return json.load(answer)
    return json.loads(Path(source).read_text())


def main() -> None:
    """Write the files of all example workflows."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    FOLDER.mkdir(exist_ok=True)
    for name, workflow in build(read_object_info(sys.argv[1])).items():
        (FOLDER / name).write_text(as_text(workflow))
        print(FOLDER / name)


if __name__ == "__main__":
    main()
