"""A workflow in the page's own format, put together from what ComfyUI says about its nodes."""

import uuid

CORE = {"cnr_id": "comfy-core", "ver": "0.14.1"}  # the oldest version that has these nodes
PACK = {"cnr_id": "crossframe", "ver": "0.1.0"}
HIGHLIGHT = {"color": "#223", "bgcolor": "#335"}
NOTE = {"color": "#432", "bgcolor": "#653"}
AUTOGROW = "COMFY_AUTOGROW_V3"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")


class Graph:
    """A workflow in the making, in the page's own format (version 0.4)."""

    def __init__(self, object_info: dict) -> None:
        self._info = object_info
        self._nodes: dict[str, dict] = {}
        self._links: list[list] = []
        self._groups: list[dict] = []

    def node(
        self,
        key: str,
        kind: str,
        box: tuple[int, int, int, int],
        inputs: dict[str, tuple[str, str]] | None = None,
        model: dict | None = None,
        extra: dict | None = None,
        **values,
    ) -> None:
        """Add a node.

        key: its name here. box: x, y, width, height. inputs: for each input that is
        connected the (key, output) it comes from. model: the file its loader wants. extra:
        more fields, e.g. a title. values: of its widgets, the others get their defaults.
        """
        info = self._info[kind]
        node = {
            **_frame(len(self._nodes) + 1, kind, box),
            "inputs": [],
            "outputs": [],
            **(extra or {}),
            "properties": {
                **(PACK if kind.startswith("CrossFrame") else CORE),
                "Node name for S&R": kind,
                **({"models": [model]} if model else {}),
            },
            "widgets_values": _widget_values(kind, info, values, inputs or {}),
        }
        self._nodes[key] = node
        self._connect(node, info, inputs or {})

    def note(self, key: str, title: str, box: tuple[int, int, int, int], text: str) -> None:
        """Add a note in Markdown."""
        self._nodes[key] = {
            **_frame(len(self._nodes) + 1, "MarkdownNote", box),
            "inputs": [],
            "outputs": [],
            "title": title,
            "properties": {},
            "widgets_values": [text],
            **NOTE,
        }

    def group(self, title: str, *keys: str) -> None:
        """Draw a box around nodes."""
        edges = [(*self._nodes[key]["pos"], *self._nodes[key]["size"]) for key in keys]
        left = min(x for x, _, _, _ in edges) - 20
        top = min(y for _, y, _, _ in edges) - 90  # the node's title, then the group's own
        right = max(x + width for x, _, width, _ in edges) + 20
        bottom = max(y + height for _, y, _, height in edges) + 20
        self._groups.append(
            {
                "id": len(self._groups) + 1,
                "title": title,
                "bounding": [left, top, right - left, bottom - top],
                "color": "#3f789e",
                "font_size": 24,
                "flags": {},
            }
        )

    def workflow(self, name: str) -> dict:
        """Return the workflow, ready to be written as JSON."""
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"crossframe/{name}")),
            "revision": 0,
            "last_node_id": len(self._nodes),
            "last_link_id": len(self._links),
            "nodes": list(self._nodes.values()),
            "links": self._links,
            "groups": self._groups,
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _connect(self, node: dict, info: dict, inputs: dict[str, tuple[str, str]]) -> None:
        """Give a node its sockets: all inputs without a widget, then widgets that are linked."""
        described = {**_inputs(info), **_grown(info, inputs)}
        sockets = [
            name
            for name, (kind, _, _) in described.items()
            if kind not in WIDGET_TYPES and kind != AUTOGROW
        ]
        sockets += [name for name in inputs if name not in sockets]
        for slot, name in enumerate(sockets):
            kind, _, optional = described[name]
            socket = {"name": name, "type": kind, "link": None}
            if optional:
                socket["shape"] = 7  # drawn as a ring
            if kind in WIDGET_TYPES:
                socket["widget"] = {"name": name}
            if "." in name:
                socket["label"] = name.partition(".")[2]
            if name in inputs:
                socket["link"] = self._link(*inputs[name], node["id"], slot, kind)
            node["inputs"].append(socket)

    def _link(self, key: str, output: str, target: int, target_slot: int, kind: str) -> int:
        origin = self._nodes[key]
        info = self._info[origin["type"]]
        slot = info["output_name"].index(output)
        outputs = zip(info["output_name"], info["output"])
        for name, type_ in list(outputs)[len(origin["outputs"]) : slot + 1]:
            origin["outputs"].append({"name": name, "type": type_, "links": None})
        if origin["outputs"][slot]["type"] != kind:
            raise ValueError(f"{origin['type']}.{output} is no {kind}")
        link = len(self._links) + 1
        origin["outputs"][slot]["links"] = [*(origin["outputs"][slot]["links"] or []), link]
        self._links.append([link, origin["id"], slot, target, target_slot, kind])
        return link


def _frame(number: int, kind: str, box: tuple[int, int, int, int]) -> dict:
    """What every node has; nodes are added in an order that they can run in."""
    return {
        "id": number,
        "type": kind,
        "pos": list(box[:2]),
        "size": list(box[2:]),
        "flags": {},
        "order": number - 1,
        "mode": 0,
    }


def _inputs(info: dict) -> dict[str, tuple[str, dict, bool]]:
    """The inputs of a node in order: type, options, whether optional."""
    found = {}
    for group in ("required", "optional"):
        for name, (kind, *rest) in info["input"].get(group, {}).items():
            kind = "COMBO" if isinstance(kind, list) else kind
            found[name] = (kind, rest[0] if rest else {}, group == "optional")
    return found


def _grown(info: dict, inputs: dict) -> dict[str, tuple[str, dict, bool]]:
    """The sockets of inputs that grow with what is connected; the page names them so."""
    found = {}
    for name, (kind, options, _) in _inputs(info).items():
        if kind != AUTOGROW:
            continue
        template = options["template"]
        ((type_, *_),) = template["input"]["required"].values()
        for number in range(sum(other.startswith(f"{name}.") for other in inputs)):
            found[f"{name}.{template['prefix']}{number}"] = (type_, {}, False)
    return found


def _widget_values(kind: str, info: dict, values: dict, inputs: dict) -> list:
    """Values of a node's widgets in the page's order; of optional ones, up to the last set here."""
    stored = []
    values = dict(values)
    for name, (type_, options, optional) in _inputs(info).items():
        if type_ not in WIDGET_TYPES or (optional and not values):
            continue
        if name not in values and name not in inputs and "default" not in options:
            raise ValueError(f"{kind}: '{name}' needs a value")
        stored.append(values.pop(name, options.get("default")))
        if options.get("control_after_generate"):
            stored.append("fixed")  # the page's own widget: what becomes of the seed
        if options.get("video_upload") or options.get("image_upload"):
            stored.append("image")  # the page's own widget: the upload button
    if values:
        raise ValueError(f"{kind} has no widgets {sorted(values)}")
    return stored
