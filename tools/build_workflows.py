"""Write the example workflows, with every node as a real ComfyUI describes it.

Run:  python tools/build_workflows.py http://127.0.0.1:8188
or:   python tools/build_workflows.py object_info.json     (what that server has at /object_info)

What the files hold is the same whichever supported version of ComfyUI it is made with: the
nodes' sockets up to the last one used, and the widgets that are set here.
"""

import json
import sys
import urllib.request
import uuid
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"
CORE = {"cnr_id": "comfy-core", "ver": "0.14.1"}  # the oldest version that has these nodes
PACK = {"cnr_id": "crossframe", "ver": "0.1.0"}
HIGHLIGHT = {"color": "#223", "bgcolor": "#335"}
NOTE = {"color": "#432", "bgcolor": "#653"}
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")

CHECKPOINT = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors",
    "directory": "checkpoints",
}
CONTROLNET = {
    "name": "control_v11p_sd15_canny_fp16.safetensors",
    "url": "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
    "control_v11p_sd15_canny_fp16.safetensors",
    "directory": "controlnet",
}

START_NOTE = f"""## Restyle a video

Paints a video anew in the style of your prompt. **Cross-Frame Attention** keeps the frames
alike, so that the result does not flicker.

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
- [{CHECKPOINT["name"]}]({CHECKPOINT["url"]}) in *models/checkpoints*
- [{CONTROLNET["name"]}]({CONTROLNET["url"]}) in *models/controlnet*

Any SD1.5 checkpoint with an SD1.5 ControlNet will do, or SDXL with SDXL.

**3.** Write the style you want in *Prompt*.

**4.** Run. *Trim* takes the first 2 seconds; for more, set a longer duration (0 is the whole
video). The sizes in *Scale frames* must divide by 8.
"""

ATTENTION_NOTE = """### Keep one look

While a frame is painted, the model looks at the **first** frame and the **previous** one
instead of at the frame itself.

- Still flickering? Try *layers* **all**.
- Out of memory? Set *frames_per_batch* to a small number. The result is the same.
- To compare, select the node and press Ctrl+B (bypass).
"""

KSAMPLER_NOTE = """### All frames at once

KSampler takes every step for all frames together; its preview shows the first frame.

Lower *denoise* stays closer to the video, higher follows the prompt more.
"""

FRAME_BY_FRAME_NOTE = """### Frame by frame

Finishes one frame after another; the preview shows each. Its memory grows with the steps, not
with the length of the video.

*frame_noise*: the **same** noise keeps texture in place; with **different** noise the frames
are those of KSampler.
"""


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
        described = _inputs(info)
        sockets = [name for name, (kind, _, _) in described.items() if kind not in WIDGET_TYPES]
        sockets += [name for name in inputs if name not in sockets]
        for slot, name in enumerate(sockets):
            kind, _, optional = described[name]
            socket = {"name": name, "type": kind, "link": None}
            if optional:
                socket["shape"] = 7  # drawn as a ring
            if kind in WIDGET_TYPES:
                socket["widget"] = {"name": name}
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


def _widget_values(kind: str, info: dict, values: dict, inputs: dict) -> list:
    """Values of a node's widgets in the page's order."""
    stored = []
    values = dict(values)
    for name, (type_, options, optional) in _inputs(info).items():
        if type_ not in WIDGET_TYPES or (optional and name not in values):
            continue
        if name not in values and name not in inputs and "default" not in options:
            raise ValueError(f"{kind}: '{name}' needs a value")
        stored.append(values.pop(name, options.get("default")))
        if options.get("control_after_generate"):
            stored.append("fixed")  # the page's own widget: what becomes of the seed
        if options.get("video_upload"):
            stored.append("image")  # the page's own widget: the upload button
    if values:
        raise ValueError(f"{kind} has no widgets {sorted(values)}")
    return stored


def restyle(object_info: dict, frame_by_frame: bool) -> dict:
    """The workflow that paints a video anew, with either sampler."""
    graph = Graph(object_info)
    graph.note("start", "Start here", (0, 0, 340, 400), START_NOTE)
    _add_video(graph)
    _add_models_and_prompt(graph)
    _add_shapes(graph)
    _add_attention(graph)
    _add_sampler(graph, frame_by_frame)
    _add_result(graph)
    return graph.workflow(_name(frame_by_frame))


def _add_video(graph: Graph) -> None:
    graph.node("load", "LoadVideo", (400, 0, 300, 310), file="my_video.mp4")
    graph.node(
        "trim",
        "Video Slice",
        (400, 370, 300, 120),
        {"video": ("load", "VIDEO")},
        extra={"title": "Trim"},
        duration=2.0,
    )
    graph.node("parts", "GetVideoComponents", (400, 550, 300, 100), {"video": ("trim", "VIDEO")})
    graph.node(
        "frames",
        "ImageScale",
        (400, 710, 300, 150),
        {"image": ("parts", "images")},
        extra={"title": "Scale frames"},
        upscale_method="lanczos",
        width=768,
        height=432,
        crop="center",
    )
    graph.group("1. Video", "load", "trim", "parts", "frames")


def _add_models_and_prompt(graph: Graph) -> None:
    graph.node(
        "checkpoint",
        "CheckpointLoaderSimple",
        (760, 0, 340, 100),
        model=CHECKPOINT,
        ckpt_name=CHECKPOINT["name"],
    )
    graph.node(
        "controlnet",
        "ControlNetLoader",
        (760, 160, 340, 60),
        model=CONTROLNET,
        control_net_name=CONTROLNET["name"],
    )
    graph.group("2. Models", "checkpoint", "controlnet")
    for key, title, y, text in (
        ("positive", "Prompt", 370, "watercolor painting, soft washes of color, paper texture"),
        ("negative", "Negative prompt", 610, "photo, blurry, text, watermark"),
    ):
        graph.node(
            key,
            "CLIPTextEncode",
            (760, y, 340, 180),
            {"clip": ("checkpoint", "CLIP")},
            extra={"title": title},
            text=text,
        )
    graph.group("3. Style", "positive", "negative")


def _add_shapes(graph: Graph) -> None:
    graph.node("edges", "Canny", (1160, 580, 340, 90), {"image": ("frames", "IMAGE")})
    graph.node(
        "shapes",
        "ControlNetApplyAdvanced",
        (1160, 730, 340, 200),
        {
            "positive": ("positive", "CONDITIONING"),
            "negative": ("negative", "CONDITIONING"),
            "control_net": ("controlnet", "CONTROL_NET"),
            "image": ("edges", "IMAGE"),
        },
        strength=0.8,
    )
    graph.group("5. Keep the shapes", "edges", "shapes")


def _add_attention(graph: Graph) -> None:
    graph.node(
        "attention",
        "CrossFrameAttention",
        (1160, 0, 340, 230),
        {"model": ("checkpoint", "MODEL")},
        extra=HIGHLIGHT,
    )
    graph.note("about attention", "What it does", (1160, 290, 340, 170), ATTENTION_NOTE)
    graph.group("4. Keep one look", "attention", "about attention")


def _add_sampler(graph: Graph, frame_by_frame: bool) -> None:
    graph.node(
        "latents",
        "VAEEncode",
        (1560, 0, 360, 60),
        {"pixels": ("frames", "IMAGE"), "vae": ("checkpoint", "VAE")},
    )
    graph.node(
        "sampler",
        "CrossFrameKSampler" if frame_by_frame else "KSampler",
        (1560, 120, 360, 310),
        {
            "model": ("attention", "MODEL"),
            "positive": ("shapes", "positive"),
            "negative": ("shapes", "negative"),
            "latent_image": ("latents", "LATENT"),
        },
        extra=HIGHLIGHT if frame_by_frame else None,
        seed=1,
        steps=20,
        cfg=7.0,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=0.6,
    )
    graph.node(
        "images",
        "VAEDecode",
        (1560, 730, 360, 60),
        {"samples": ("sampler", "LATENT"), "vae": ("checkpoint", "VAE")},
    )
    text = FRAME_BY_FRAME_NOTE if frame_by_frame else KSAMPLER_NOTE
    graph.note("about sampler", "About the sampler", (1560, 490, 360, 180), text)
    graph.group("6. Paint", "latents", "sampler", "about sampler", "images")


def _add_result(graph: Graph) -> None:
    graph.node(
        "video",
        "CreateVideo",
        (1980, 0, 320, 120),
        {
            "images": ("images", "IMAGE"),
            "audio": ("parts", "audio"),
            "fps": ("parts", "fps"),
        },
    )
    graph.node(
        "save",
        "SaveVideo",
        (1980, 180, 320, 340),
        {"video": ("video", "VIDEO")},
        filename_prefix="video/restyle",
        format="auto",
        codec="auto",
    )
    graph.group("7. Result", "video", "save")


def _name(frame_by_frame: bool) -> str:
    return "Video restyle (frame by frame)" if frame_by_frame else "Video restyle"


def build(object_info: dict) -> dict[str, dict]:
    """Return every example workflow by the name of its file."""
    return {f"{_name(each)}.json": restyle(object_info, each) for each in (False, True)}


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
