"""Take the pictures of the page: one of each node for its help, others of whole graphs.

Run:  python tools/build_pictures.py http://127.0.0.1:8188     (a server with this pack)

The script needs a Chromium (see `tests/comfyui/browser.py`).
"""

import io
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "comfyui"))

from browser import Page, browser, open_page
from build_workflows import FOLDER, SHOWN_AS_GRAPHS, read_object_info
from PIL import Image

ROOT = FOLDER.parent
NODES = ROOT / "web" / "docs" / "images"
GRAPH = ROOT / "docs" / "first-graph.png"
MARGIN = 12
TITLE = 30
THUMBNAIL = (1200, 750)


def main() -> None:
    """Take all pictures."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    address = sys.argv[1].rstrip("/").removeprefix("http://")
    kinds = [
        kind
        for kind, info in read_object_info(f"http://{address}").items()
        if info["category"] == "CrossFrame"
    ]
    with browser() as started, open_page(started, address) as page:
        page.page.evaluate("app.canvas.show_info = false")
        NODES.mkdir(parents=True, exist_ok=True)
        for number, kind in enumerate(kinds, start=1):
            node_picture(page, kind, number).save(NODES / f"{kind}.png", optimize=True)
        graph_picture(page, "Video restyle").save(GRAPH, optimize=True)
        for name in SHOWN_AS_GRAPHS:
            thumbnail = graph_picture(page, name)
            thumbnail.thumbnail(THUMBNAIL)
            thumbnail.save(FOLDER / f"{name}.jpg", quality=88)


def node_picture(page: Page, kind: str, number: int) -> Image.Image:
    """Take the picture of a node, as it comes out of the search.

    number: its id, which no node has had before. The page would give a new node of an old id the
    old node's values.
    """
    page.page.evaluate(
        """([kind, number]) => {
            app.graph.clear();
            app.graph.last_node_id = number;
            const node = LiteGraph.createNode(kind);
            app.graph.add(node);
            node.setSize([Math.max(node.size[0], 300), node.size[1]]);
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [400 - node.pos[0], 200 - node.pos[1]];
            app.canvas.setDirty(true, true);
        }""",
        [kind, number],
    )
    page.settle()
    (node,) = page.nodes()
    width, height = node["size"]
    return _shot(
        page,
        400 - MARGIN,
        200 - TITLE - 20 - MARGIN,  # the pack's badge stands above the title
        width + 2 * MARGIN,
        height + TITLE + 20 + 2 * MARGIN,
    )


def graph_picture(page: Page, name: str) -> Image.Image:
    """Take the picture of a whole workflow."""
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    page.page.set_viewport_size({"width": 3200, "height": 1600})
    page.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.settle()
    left, top, right, bottom = page.page.evaluate(
        """() => {
            const boxes = [
                ...app.graph._nodes.map(n => [n.pos[0], n.pos[1] - 30, ...n.size]),
                ...app.graph._groups.map(g => [...g.pos, ...g.size]),
            ];
            const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]));
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [100 - left, 100 - top];
            app.canvas.setDirty(true, true);
            return [left, top, Math.max(...boxes.map(b => b[0] + b[2])),
                    Math.max(...boxes.map(b => b[1] + b[3] + 30))];
        }"""
    )
    page.settle()
    return _shot(page, 100 - MARGIN, 100 - MARGIN, right - left + 2 * MARGIN, bottom - top)


def _shot(page: Page, x: float, y: float, width: float, height: float) -> Image.Image:
    clip = {"x": x, "y": y, "width": width, "height": height}
    return Image.open(io.BytesIO(page.page.screenshot(clip=clip)))


if __name__ == "__main__":
    main()
