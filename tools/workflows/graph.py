"""A workflow in the page's own format, put together from what ComfyUI says about its nodes."""

import uuid
from typing import NamedTuple

from workflows.layout import HEIGHTS, WIDTH, Page, note_height

CORE = {"cnr_id": "comfy-core", "ver": "0.14.1"}  # the oldest version that has these nodes
PACK = {"cnr_id": "crossframe", "ver": "0.1.0"}
HIGHLIGHT = {"color": "#223", "bgcolor": "#335"}
COLORS = {
    "CrossFrameAttention": HIGHLIGHT,
    "CrossFrameDemoClip": HIGHLIGHT,
    "CrossFrameDemoModel": HIGHLIGHT,
    "CrossFrameFusion": HIGHLIGHT,
    "CrossFrameKSampler": HIGHLIGHT,
    "CrossFrameKeyframes": HIGHLIGHT,
    "CrossFrameMotion": HIGHLIGHT,
    "CrossFramePropagate": HIGHLIGHT,
    "CrossFrameRerender": HIGHLIGHT,
    "MarkdownNote": {"color": "#432", "bgcolor": "#653"},
}
AUTOGROW = "COMFY_AUTOGROW_V3"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")


class Node:
    """A node of a graph. Its outputs are taken by name, as in `checkpoint["CLIP"]`."""

    def __init__(self, written: dict, info: dict) -> None:
        self.written = written  # as it stands in the file
        self.info = info  # what ComfyUI says about its type

    def __getitem__(self, name: str) -> "Output":
        return Output(self, self.info["output_name"].index(name))


class Output(NamedTuple):
    """An output of a node, which inputs of other nodes can be linked to."""

    node: Node
    slot: int


class Graph(Page):
    """A workflow in the making, in the page's own format (version 0.4)."""

    def __init__(self, object_info: dict) -> None:
        super().__init__()
        self._info = object_info
        self._nodes: list[dict] = []
        self._links: list[list] = []

    def node(
        self, kind: str, /, title: str | None = None, download: tuple[dict, ...] = (), **inputs
    ) -> Node:
        """Add a node below the one before.

        download: the files that its loader wants. inputs: for each input that is linked an
        output (or a node that has only one, or a list for sockets that grow); for widgets their
        values. Other widgets have their defaults.
        """
        info = self._info[kind]
        links = _links(info, inputs)
        values = {name: value for name, value in inputs.items() if not _is_link(value)}
        properties = {
            **(PACK if kind.startswith("CrossFrame") else CORE),
            "Node name for S&R": kind,
            **({"models": [*download]} if download else {}),
        }
        widgets = _widget_values(kind, info, values, links)
        node = self._add(kind, HEIGHTS[kind], title, properties, widgets)
        self._connect(node, info, links)
        return Node(node, info)

    def note(self, title: str, text: str) -> None:
        """Add a note in Markdown."""
        self._add("MarkdownNote", note_height(text), title, {}, [text])

    def workflow(self, name: str) -> dict:
        """Return the workflow, ready to be written as JSON."""
        groups = self._lay_out()
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"crossframe/{name}")),
            "revision": 0,
            "last_node_id": len(self._nodes),
            "last_link_id": len(self._links),
            "nodes": self._nodes,
            "links": self._links,
            "groups": groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _add(
        self, kind: str, height: int, title: str | None, properties: dict, widgets: list
    ) -> dict:
        """Add what every node has; nodes are added in an order that they can run in."""
        node = {
            "id": len(self._nodes) + 1,
            "type": kind,
            "pos": [],
            "size": [WIDTH, height],
            "flags": {},
            "order": len(self._nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            **({"title": title} if title else {}),
            **COLORS.get(kind, {}),
            "properties": properties,
            "widgets_values": widgets,
        }
        self._nodes.append(node)
        self._stand(node)
        return node

    def _connect(self, node: dict, info: dict, links: dict[str, Output]) -> None:
        """Give a node its sockets: all inputs without a widget, then widgets that are linked."""
        described = {**_inputs(info), **_grown(info, links)}
        sockets = [
            name
            for name, (kind, _, _) in described.items()
            if kind not in WIDGET_TYPES and kind != AUTOGROW
        ]
        sockets += [name for name in links if name not in sockets]
        for slot, name in enumerate(sockets):
            kind, _, optional = described[name]
            socket = {"name": name, "type": kind, "link": None}
            if optional:
                socket["shape"] = 7  # drawn as a ring
            if kind in WIDGET_TYPES:
                socket["widget"] = {"name": name}
            if "." in name:
                socket["label"] = name.partition(".")[2]
            if name in links:
                socket["link"] = self._link(links[name], node["id"], slot, kind)
            node["inputs"].append(socket)

    def _link(self, output: Output, target: int, target_slot: int, kind: str) -> int:
        origin, slot = output.node.written, output.slot
        info = output.node.info
        outputs = zip(info["output_name"], info["output"])
        for name, type_ in list(outputs)[len(origin["outputs"]) : slot + 1]:
            origin["outputs"].append({"name": name, "type": type_, "links": None})
        if origin["outputs"][slot]["type"] != kind:
            raise ValueError(f"{origin['type']}.{origin['outputs'][slot]['name']} is no {kind}")
        link = len(self._links) + 1
        origin["outputs"][slot]["links"] = [*(origin["outputs"][slot]["links"] or []), link]
        self._links.append([link, origin["id"], slot, target, target_slot, kind])
        return link


def _is_link(value: object) -> bool:
    return isinstance(value, (Node, Output, list))


def _links(info: dict, inputs: dict) -> dict[str, Output]:
    """The outputs among what a node is given, by the names of its sockets."""
    found = {}
    for name, value in inputs.items():
        if isinstance(value, list):
            prefix = info["input"]["required"][name][1]["template"]["prefix"]
            found |= {f"{name}.{prefix}{i}": _output(item) for i, item in enumerate(value)}
        elif _is_link(value):
            found[name] = _output(value)
    return found


def _output(value: Node | Output) -> Output:
    """An output as it is, or the only one of a node."""
    if isinstance(value, Output):
        return value
    (name,) = value.info["output_name"]
    return value[name]


def _inputs(info: dict) -> dict[str, tuple[str, dict, bool]]:
    """The inputs of a node in order: type, options, whether optional."""
    found = {}
    for group in ("required", "optional"):
        for name, (kind, *rest) in info["input"].get(group, {}).items():
            kind = "COMBO" if isinstance(kind, list) else kind
            found[name] = (kind, rest[0] if rest else {}, group == "optional")
    return found


def _grown(info: dict, links: dict) -> dict[str, tuple[str, dict, bool]]:
    """The sockets of inputs that grow with what is connected; the page names them so."""
    found = {}
    for name, (kind, options, _) in _inputs(info).items():
        if kind == AUTOGROW:
            ((type_, *_),) = options["template"]["input"]["required"].values()
            found |= {key: (type_, {}, False) for key in links if key.startswith(f"{name}.")}
    return found


def _widget_values(kind: str, info: dict, values: dict, links: dict) -> list:
    """Values of a node's widgets in the page's order; of optional ones, up to the last set here."""
    stored = []
    values = dict(values)
    for name, (type_, options, optional) in _inputs(info).items():
        if type_ not in WIDGET_TYPES or (optional and not values):
            continue
        if name not in values and name not in links and "default" not in options:
            raise ValueError(f"{kind}: '{name}' needs a value")
        stored.append(values.pop(name, options.get("default")))
        if options.get("control_after_generate"):
            stored.append("fixed")  # the page's own widget: what becomes of the seed
        if options.get("video_upload") or options.get("image_upload"):
            stored.append("image")  # the page's own widget: the upload button
    if values:
        raise ValueError(f"{kind} has no widgets {sorted(values)}")
    return stored
