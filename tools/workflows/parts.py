"""Parts that example workflows share: models, prompts, a clip's frames, ControlNet, the result.

Prompts go from part to part as a dictionary of the inputs that samplers have for them.
"""

from typing import NamedTuple

from workflows.graph import Graph, Node, Output
from workflows.models import Family, Transformer

SAMPLING = {
    "seed": 1,
    "steps": 20,
    "cfg": 7.0,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
}
STYLE = "watercolor painting, soft washes of color, paper texture"
Link = Node | Output
Prompts = dict[str, Link]


class Start(NamedTuple):
    """What the workflows that paint a video anew begin with.

    source: the components of the video. frames: its frames in the size that is painted.
    """

    source: Node
    frames: Node
    checkpoint: Node
    controlnet: Node
    prompts: Prompts


def load_checkpoint(graph: Graph, family: Family) -> Node:
    """Load a family's checkpoint."""
    file = family.checkpoint
    return graph.node("CheckpointLoaderSimple", download=(file,), ckpt_name=file["name"])


def models(graph: Graph, family: Family) -> tuple[Node, Node]:
    """Load checkpoint and ControlNet, in a group."""
    file = family.controlnet
    with graph.group("2. Models"):
        checkpoint = load_checkpoint(graph, family)
        inputs = {"download": (file,), "control_net_name": file["name"]}
        controlnet = graph.node("ControlNetLoader", **inputs)
    return checkpoint, controlnet


def load_transformer(graph: Graph, family: Transformer) -> tuple[Node, Node, Node]:
    """Load a diffusion transformer, its text encoders and its VAE."""
    file = family.model
    inputs = {"unet_name": file["name"], "weight_dtype": "default"}
    model = graph.node("UNETLoader", download=(file,), **inputs)
    names = [file["name"] for file in family.encoders]
    kind, keys = "CLIPLoader", ["clip_name"]
    if len(names) > 1:
        kind, keys = "DualCLIPLoader", ["clip_name1", "clip_name2"]
    inputs = {**dict(zip(keys, names, strict=True)), "type": family.kind, "device": "default"}
    clip = graph.node(kind, download=family.encoders, **inputs)
    vae = graph.node("VAELoader", download=(family.vae,), vae_name=family.vae["name"])
    return model, clip, vae


def prompt(graph: Graph, clip: Link, text: str, title: str = "Prompt") -> Node:
    """Encode one prompt."""
    return graph.node("CLIPTextEncode", title, clip=clip, text=text)


def prompts(graph: Graph, clip: Link, positive: str, negative: str) -> Prompts:
    """Encode what to paint and what not."""
    return {
        "positive": prompt(graph, clip, positive),
        "negative": prompt(graph, clip, negative, "Negative prompt"),
    }


def one_prompt(graph: Graph, clip: Link, text: str, title: str = "Prompt") -> Prompts:
    """Encode what to paint, for a model that paints with cfg 1, which heeds no other prompt."""
    positive = prompt(graph, clip, text, title)
    return {
        "positive": positive,
        "negative": graph.node("ConditioningZeroOut", conditioning=positive),
    }


def style(graph: Graph, clip: Link) -> Prompts:
    """Add the prompts of the workflows that paint a video anew, in a group."""
    with graph.group("3. Style"):
        return prompts(graph, clip, STYLE, "photo, blurry, text, watermark")


def video_and_models(graph: Graph, family: Family, duration: float) -> Start:
    """Begin a workflow that paints a video anew: its frames, the models and the prompts.

    duration: how many seconds of the video are painted.
    """
    with graph.group("1. Video"):
        video = graph.node("LoadVideo", file="my_video.mp4")
        source, frames = cut(graph, video, family.size, duration=duration)
    with graph.column():
        checkpoint, controlnet = models(graph, family)
        prompts = style(graph, checkpoint["CLIP"])
    return Start(source, frames, checkpoint, controlnet, prompts)


def cut(
    graph: Graph, video: Link, size: tuple[int, int], title: str = "Trim", **times: float
) -> tuple[Node, Node]:
    """Cut a piece out of a video; return its components, and its frames in a size."""
    trimmed = graph.node("Video Slice", title, video=video, **times)
    components = graph.node("GetVideoComponents", video=trimmed)
    return components, scale(graph, "Scale frames", components["images"], size)


def scale(graph: Graph, title: str, image: Link, size: tuple[int, int], **other: str) -> Node:
    """Scale images; what does not fit is cut off at the edges, if nothing else is said."""
    width, height = size
    how = {"upscale_method": "lanczos", "crop": "center", **other}
    return graph.node("ImageScale", title, image=image, width=width, height=height, **how)


def keep_shapes(
    graph: Graph, prompts: Prompts, controlnet: Link, image: Link, title: str | None = None, **more
) -> Prompts:
    """Give both prompts the ControlNet."""
    inputs = {**prompts, "control_net": controlnet, "image": image, **more}
    node = graph.node("ControlNetApplyAdvanced", title, **inputs)
    return {"positive": node["positive"], "negative": node["negative"]}


STEADY_NOTE = """### Hold every place still

1. *Cross-Frame Motion* finds out what moves where in your video, and which frames show something
new: the **keyframes**. Its *preview* is dark where the motion is not certain.
2. *Cross-Frame Attention* gives all frames the look of the keyframes.
3. *Cross-Frame Fusion* mixes each frame with the first one and the keyframes around it, along the
motion.

- All seeds look alike, or new things borrow the look of others? Bypass *Cross-Frame Attention*.
- Soft or doubled detail? Lower *end_strength* or *end_percent* of the fusion.
- Out of memory? Name fewer *keyframes* in both nodes; they are run in one batch.
- To compare, select a node and press Ctrl+B (bypass).
"""


def hold_still(graph: Graph, title: str, model: Link, frames: Link, **look: object) -> Node:
    """Let frames look at keyframes, and fuse them along the motion, in a group.

    look: inputs of the attention.
    """
    with graph.group(title):
        with graph.column():
            motion = graph.node("CrossFrameMotion", source=frames)
            graph.note("What it does", STEADY_NOTE)
        with graph.column():
            shared = {"references": "keyframes", "keyframes": motion["keyframes"], **look}
            attention = graph.node("CrossFrameAttention", model=model, **shared)
            return graph.node("CrossFrameFusion", model=attention, motion=motion["motion"])


def one_noise(graph: Graph, latents: Link) -> Node:
    """Let a stock sampler start all frames from one noise."""
    return graph.node("LatentBatchSeedBehavior", "One noise for all frames", samples=latents)


def result(graph: Graph, name: str, images: Link, source: Node) -> None:
    """Write the painted frames with the sound of their source, in a group."""
    with graph.group("7. Result"):
        sound = {"audio": source["audio"], "fps": source["fps"]}
        save_video(graph, name, images=images, **sound)


def save_video(graph: Graph, name: str, **components: Link) -> None:
    """Make a video of its components, and write it."""
    video = graph.node("CreateVideo", **components)
    how = {"format": "auto", "codec": "auto"}
    graph.node("SaveVideo", video=video, filename_prefix=f"video/{name}", **how)
