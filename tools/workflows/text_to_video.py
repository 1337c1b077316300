"""The workflows that paint a clip from a prompt with an image model, as Text2Video-Zero does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workflows import parts
from workflows.graph import Graph, Node
from workflows.models import SD15, Z_IMAGE_TURBO, links

WHAT_IT_DOES = """An image model paints a clip from your prompt, without a source video. It begins
one picture, copies what is settled early to all frames, moves the copies, and paints all of them
together."""

DEMO_START = f"""## A clip from a prompt

Nothing to download: a tiny model comes with the pack. **Just run it**; it takes about a minute
without a graphics card.

{WHAT_IT_DOES}

The tiny model has learned to paint what a picture shows it. Without one, as here, it paints
patterns, so watch how they move. With your checkpoint the graph is the same: open *Text to video*.

Change the motion in *Cross-Frame Motion Field*: *x* and *y* are pixels per frame, *zoom* is a
factor per frame, *turn* is in degrees per frame.
"""

SD15_START = f"""## A clip from a prompt

{WHAT_IT_DOES}

**1.** Get the model, if it is not there yet:
{links(SD15.checkpoint)}

Any SD1.5 checkpoint will do.

**2.** Write in *Prompt* what the clip should show.

**3.** Choose the motion in *Cross-Frame Motion Field*: *x* and *y* are pixels per frame, *zoom* is
a factor per frame, *turn* is in degrees per frame.

**4.** Run.
"""

Z_IMAGE_START = f"""## A clip from a prompt

{WHAT_IT_DOES}

**1.** Get the three files, if they are not there yet:
{links(Z_IMAGE_TURBO.model, *Z_IMAGE_TURBO.encoders, Z_IMAGE_TURBO.vae)}

**2.** Write in *Prompt* what the clip should show.

**3.** Choose the motion in *Cross-Frame Motion Field*: *x* and *y* are pixels per frame, *zoom* is
a factor per frame, *turn* is in degrees per frame.

**4.** Run.
"""

STEPS_NOTE = """### Three samplers, one schedule

All three have the same *steps*, *sampler_name* and *scheduler*, and so has *Cross-Frame Dynamics*.

1. *First steps* begins one picture and ends at **to_step**.
2. *A few more* goes on to **from_step**. What is settled there is what frames will share.
3. *Cross-Frame Dynamics* copies and moves it, and adds new noise up to **to_step**.
4. *All frames* paints from there to the end.

*Cross-Frame Fusion* holds the frames to the first one along the motion, as background smoothing
does. Give it a *foreground* mask, and what is in there moves freely.

- Frames should differ more? Lower *strength* and *end_strength* of the fusion, or bypass it.
- Frames differ too much without it? Raise *to_step*, and *start_at_step* of *All frames* with it.
"""


@dataclass(frozen=True)
class Clip:
    """What a clip from a prompt is made with.

    empty: makes the latent to begin from, out of the graph and the VAE. field: inputs of the motion
    field. sampling: inputs that all samplers share. to_step, from_step: see CrossFrameDynamics.
    layers: those of the attention. enlarged: by how much the frames are enlarged for the video.
    """

    empty: Callable[[Graph, parts.Link], Node]
    field: dict[str, Any]
    sampling: dict[str, Any]
    to_step: int
    from_step: int
    layers: str = "all"
    enlarged: float = 1.0
    name: str = "text to video"


def _encoded(graph: Graph, vae: parts.Link) -> Node:
    """Encode an empty picture, since the demo model's latents have a size of their own."""
    picture = graph.node("EmptyImage", width=64, height=64, batch_size=1)
    return graph.node("VAEEncode", pixels=picture, vae=vae)


def _of_size(width: int, height: int) -> Callable[[Graph, parts.Link], Node]:
    """Return a function that makes an empty latent for pictures of a size."""
    return lambda graph, vae: graph.node(
        "EmptyLatentImage", width=width, height=height, batch_size=1
    )


DEMO_CLIP = Clip(
    _encoded,
    {"frames": 16, "width": 64, "height": 64, "x": 1.0, "y": 0.0, "turn": 1.5},
    {"steps": 16, "cfg": 1.5, "sampler_name": "ddim", "scheduler": "normal"},
    4,
    8,
    enlarged=4.0,
    name="crossframe text to video",
)
SD15_CLIP = Clip(
    _of_size(512, 512),
    {"frames": 16, "width": 512, "height": 512, "x": 12.0, "y": 0.0},
    {"steps": 25, "cfg": 7.5, "sampler_name": "ddim", "scheduler": "ddim_uniform"},
    1,
    3,
)
Z_IMAGE_CLIP = Clip(
    _of_size(1024, 576),
    {"frames": 16, "width": 1024, "height": 576, "x": 24.0, "y": 0.0},
    {"steps": 9, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"},
    1,
    3,
    layers="mid + up",
)
PROMPT = "a sailing boat on the sea, small waves, evening light, oil painting"


def try_text_to_video(graph: Graph) -> None:
    """Draw the workflow with the demo model."""
    graph.note("Start here", DEMO_START)
    with graph.column():
        with graph.group("1. Model"):
            model = graph.node("CrossFrameDemoModel")
        with graph.group("2. What to paint"):
            prompts = parts.prompts(graph, model["CLIP"], "a warm drawing", "")
    _paint(graph, model["MODEL"], model["VAE"], prompts, DEMO_CLIP)


def text_to_video(graph: Graph) -> None:
    """Draw the workflow with SD1.5."""
    graph.note("Start here", SD15_START)
    with graph.column():
        with graph.group("1. Model"):
            checkpoint = parts.load_checkpoint(graph, SD15)
        with graph.group("2. What to paint"):
            negative = "blurry, text, watermark"
            prompts = parts.prompts(graph, checkpoint["CLIP"], PROMPT, negative)
    _paint(graph, checkpoint["MODEL"], checkpoint["VAE"], prompts, SD15_CLIP)


def text_to_video_transformer(graph: Graph) -> None:
    """Draw the workflow with Z-Image-Turbo."""
    graph.note("Start here", Z_IMAGE_START)
    with graph.column():
        with graph.group("1. Models"):
            model, clip, vae = parts.load_transformer(graph, Z_IMAGE_TURBO)
            shifted = graph.node("ModelSamplingAuraFlow", model=model, shift=3.0)
        with graph.group("2. What to paint"):
            prompts = parts.one_prompt(graph, clip, PROMPT)
    _paint(graph, shifted, vae, prompts, Z_IMAGE_CLIP)


def _paint(
    graph: Graph, model: parts.Link, vae: parts.Link, prompts: parts.Prompts, clip: Clip
) -> None:
    """Draw everything after the models and prompts."""
    with graph.group("3. Motion and one look"):
        motion = graph.node("CrossFrameMotionField", **clip.field)
        look = {"references": "first", "layers": clip.layers}
        attention = graph.node("CrossFrameAttention", model=model, **look)
    with graph.column():
        with graph.group("4. One picture, half painted"):
            empty = clip.empty(graph, vae)
            earlier, later = _first_frame(graph, attention, prompts, empty, clip)
        graph.note("About the steps", STEPS_NOTE)
    with graph.group("5. Frames that move"):
        schedule = {key: clip.sampling[key] for key in ("steps", "sampler_name", "scheduler")}
        frames = graph.node(
            "CrossFrameDynamics",
            model=model,
            latent=later,
            motion=motion["motion"],
            earlier_latent=earlier,
            seed=1,
            **schedule,
            from_step=clip.from_step,
            to_step=clip.to_step,
        )
    with graph.group("6. Paint"):
        how = {"strength": 0.6, "end_strength": 0.6, "end_percent": 1.0}
        fusion = graph.node("CrossFrameFusion", model=attention, motion=motion["motion"], **how)
        inputs = {"model": fusion, **prompts, "latent_image": frames}
        sampled = _sampler(graph, "All frames", inputs, clip, (clip.to_step, 10000))
        images = graph.node("VAEDecode", samples=sampled, vae=vae)
    with graph.group("7. Result"):
        if clip.enlarged != 1:
            how = {"upscale_method": "nearest-exact", "scale_by": clip.enlarged}
            images = graph.node("ImageScaleBy", "Enlarge", image=images, **how)
        parts.save_video(graph, clip.name, images=images, fps=8.0)


def _first_frame(
    graph: Graph, model: Node, prompts: parts.Prompts, empty: Node, clip: Clip
) -> tuple[Node, Node]:
    """Begin one picture from an empty latent; return its latents at both steps."""
    inputs = {"model": model, **prompts}
    part = (0, clip.to_step)
    earlier = _sampler(graph, "First steps", {**inputs, "latent_image": empty}, clip, part)
    part = (clip.to_step, clip.from_step)
    later = _sampler(graph, "A few more", {**inputs, "latent_image": earlier}, clip, part)
    return earlier, later


def _sampler(
    graph: Graph, title: str, inputs: dict[str, parts.Link], clip: Clip, part: tuple[int, int]
) -> Node:
    """Take some steps of the schedule. part: where they start and end."""
    start, end = part
    return graph.node(
        "KSamplerAdvanced",
        title,
        **inputs,
        **clip.sampling,
        noise_seed=1,
        add_noise="disable" if start else "enable",
        start_at_step=start,
        end_at_step=end,
        return_with_leftover_noise="disable" if end > clip.sampling["steps"] else "enable",
    )
