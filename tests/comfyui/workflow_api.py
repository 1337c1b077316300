"""Turn a workflow as the page saves it into the prompt that the page would queue."""

from workflows.graph import WIDGET_TYPES

PAGE_ONLY = ("Note", "MarkdownNote")
MUTED, BYPASSED = 2, 4  # values of a node's mode


def api_prompt(workflow: dict, object_info: dict) -> dict:
    """Return the API form of a UI-format workflow.

    object_info: what the server says about its nodes at /object_info. Raises ValueError for
    a node that the server does not know, and for bypassed nodes.
    """
    links = {link[0]: link for link in workflow["links"]}
    nodes = [node for node in workflow["nodes"] if _runs(node)]
    ids = {node["id"] for node in nodes}
    prompt = {}
    for node in nodes:
        if node["type"] not in object_info or node["mode"] == BYPASSED:
            raise ValueError(f"cannot convert node {node['id']} ({node['type']})")
        inputs = widget_values(node, object_info[node["type"]])
        for socket in node["inputs"]:
            _, origin, slot, *_ = links.get(socket["link"], (None, None, None))
            if origin in ids:
                inputs[socket["name"]] = [str(origin), slot]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _runs(node: dict) -> bool:
    return node["type"] not in PAGE_ONLY and node["mode"] != MUTED


def widget_values(node: dict, info: dict) -> dict:
    """The values of a node's widgets by name; defaults where the workflow has none."""
    widgets = _widgets(info)
    values = {name: options["default"] for name, options in widgets if "default" in options}
    stored = dict(zip(_places(widgets), node["widgets_values"]))
    stored.pop(None, None)
    return {**values, **stored}


def set_widget(node: dict, info: dict, name: str, value) -> None:
    """Do what a user does who types a value into a node."""
    node["widgets_values"][_places(_widgets(info)).index(name)] = value


def _widgets(info: dict) -> list[tuple[str, dict]]:
    """The inputs of a node that have a widget, in order: name, options."""
    widgets = []
    for group in ("required", "optional"):
        for name, (kind, *rest) in info["input"].get(group, {}).items():
            options = rest[0] if rest else {}
            kind = "COMBO" if isinstance(kind, list) else kind
            if kind in WIDGET_TYPES and not options.get("forceInput"):
                widgets.append((name, options))
    return widgets


def _places(widgets: list[tuple[str, dict]]) -> list[str | None]:
    """The names of widgets where the page stores their values.

    None stands for widgets that the page adds: one after a seed, for what becomes of it,
    and one for the upload button.
    """
    places: list[str | None] = []
    for name, options in widgets:
        places.append(name)
        added = ("control_after_generate", "image_upload", "video_upload", "audio_upload")
        places += [None for key in added if options.get(key)]
    return places
