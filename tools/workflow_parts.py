"""Parts that all example workflows have: prompts, ControlNet, latents, sampler, video file.

Nodes get the same keys in every workflow; places, sources and titles are the workflow's own.
"""

from workflow_graph import Graph
from workflow_models import Family

Box = tuple[int, int, int, int]  # x, y, width, height
Output = tuple[str, str]  # key of a node, name of its output


def add_models(graph: Graph, place: tuple[int, int], family: Family) -> None:
    """Add `checkpoint` and `controlnet`."""
    x, y = place
    graph.node(
        "checkpoint",
        "CheckpointLoaderSimple",
        (x, y, 340, 100),
        model=family.checkpoint,
        ckpt_name=family.checkpoint["name"],
    )
    graph.node(
        "controlnet",
        "ControlNetLoader",
        (x, y + 160, 340, 60),
        model=family.controlnet,
        control_net_name=family.controlnet["name"],
    )


def add_prompts(
    graph: Graph,
    clip: Output,
    x: int,
    height: int,
    *,
    positive: tuple,
    negative: tuple,
    title: str = "Prompt",
) -> None:
    """Add `positive` and `negative`; each is given as (y, text)."""
    for key, name, (y, text) in (
        ("positive", title, positive),
        ("negative", "Negative prompt", negative),
    ):
        graph.node(
            key,
            "CLIPTextEncode",
            (x, y, 340, height),
            {"clip": clip},
            extra={"title": name},
            text=text,
        )


def add_controlnet(
    graph: Graph, box: Box, network: Output, image: Output, key: str = "shapes", **more
) -> None:
    """Add `shapes`, which gives both prompts the ControlNet."""
    inputs = {
        "positive": ("positive", "CONDITIONING"),
        "negative": ("negative", "CONDITIONING"),
        "control_net": network,
        "image": image,
    }
    graph.node(key, "ControlNetApplyAdvanced", box, inputs, **more)


def add_latents(
    graph: Graph, box: Box, vae: Output, key: str = "latents", images: str = "frames"
) -> None:
    """Add `latents`, the encoded `frames`."""
    graph.node(key, "VAEEncode", box, {"pixels": (images, "IMAGE"), "vae": vae})


def add_sampler(
    graph: Graph,
    key: str,
    kind: str,
    box: Box,
    model: str,
    inputs: dict[str, Output] | None = None,
    **more,
) -> None:
    """Add a sampler on the MODEL of a node, with the prompts of `shapes` and the `latents`.

    inputs: what it takes instead of these, or besides.
    """
    usual = {
        "model": (model, "MODEL"),
        "positive": ("shapes", "positive"),
        "negative": ("shapes", "negative"),
        "latent_image": ("latents", "LATENT"),
    }
    graph.node(key, kind, box, {**usual, **(inputs or {})}, **more)


def add_decoder(graph: Graph, key: str, box: Box, sampler: str, vae: Output) -> None:
    """Add the frames that a sampler has painted."""
    graph.node(key, "VAEDecode", box, {"samples": (sampler, "LATENT"), "vae": vae})


def add_video_file(graph: Graph, box: Box, prefix: str) -> None:
    """Add `save`, which writes `video`."""
    graph.node(
        "save",
        "SaveVideo",
        box,
        {"video": ("video", "VIDEO")},
        filename_prefix=prefix,
        format="auto",
        codec="auto",
    )
