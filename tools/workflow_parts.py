"""Parts that all example workflows have: prompts, ControlNet, latents, sampler, video file.

Nodes get the same keys in every workflow; places, sources and titles are the workflow's own.
"""

from workflow_graph import Graph

Box = tuple[int, int, int, int]  # x, y, width, height
Output = tuple[str, str]  # key of a node, name of its output


def add_prompts(
    graph: Graph, clip: Output, x: int, height: int, *, positive: tuple, negative: tuple
) -> None:
    """Add `positive` and `negative`; each is given as (y, text)."""
    for key, title, (y, text) in (
        ("positive", "Prompt", positive),
        ("negative", "Negative prompt", negative),
    ):
        graph.node(
            key,
            "CLIPTextEncode",
            (x, y, 340, height),
            {"clip": clip},
            extra={"title": title},
            text=text,
        )


def add_controlnet(graph: Graph, box: Box, network: Output, image: Output, **more) -> None:
    """Add `shapes`, which gives both prompts the ControlNet."""
    inputs = {
        "positive": ("positive", "CONDITIONING"),
        "negative": ("negative", "CONDITIONING"),
        "control_net": network,
        "image": image,
    }
    graph.node("shapes", "ControlNetApplyAdvanced", box, inputs, **more)


def add_latents(graph: Graph, box: Box, vae: Output) -> None:
    """Add `latents`, the encoded `frames`."""
    graph.node("latents", "VAEEncode", box, {"pixels": ("frames", "IMAGE"), "vae": vae})


def add_sampler(graph: Graph, key: str, kind: str, box: Box, model: str, **more) -> None:
    """Add a sampler on the MODEL of a node, with the prompts of `shapes` and the `latents`."""
    inputs = {
        "model": (model, "MODEL"),
        "positive": ("shapes", "positive"),
        "negative": ("shapes", "negative"),
        "latent_image": ("latents", "LATENT"),
    }
    graph.node(key, kind, box, inputs, **more)


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
