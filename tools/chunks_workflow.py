"""The workflow that paints a long clip in chunks; each goes on from the state of the one before."""

from workflow_graph import HIGHLIGHT, Graph
from workflow_models import SD15, Family, links
from workflow_parts import (
    add_controlnet,
    add_decoder,
    add_latents,
    add_models,
    add_prompts,
    add_sampler,
    add_video_file,
)

CHUNKS = "Long clip in chunks"
SECONDS = 2.0
PARTS = ("trim", "parts", "frames", "edges", "shapes", "latents", "sampler", "images")

START_NOTE = f"""## A long clip in chunks

A clip that is too long to be held in memory at once is painted piece by piece. The *state* that
goes from one sampler to the next makes the pieces one clip: the frames are exactly those of
one run.

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
{links(SD15, SD15.checkpoint, SD15.controlnet)}

**3.** Write the style you want in *Prompt*, and run. Two chunks of {SECONDS:.0f} seconds are
painted and joined.
"""

MORE_NOTE = """### More chunks

Select group 6, copy it (Ctrl+C) and paste it with its connections (Ctrl+Shift+V). Then
- *Trim*: *start_time* is where the chunk before ended,
- sampler: *state* comes from the sampler before,
- connect its images to the next free socket of *Batch Images*, and its sound to one more
  *Concatenate Audio*.

All samplers must have the **same settings, seed included**: each frame's noise goes by its number.

### Tomorrow, or on another machine

Connect **Cross-Frame Save State** to the last sampler, and begin the next graph with
**Cross-Frame Load State**.

### A scene cut between chunks?

Set *anchor* of the second sampler to **start anew**.

No sound in your video? Remove *Concatenate Audio* if it complains.
"""


def chunks(object_info: dict) -> dict:
    """Two chunks, one above the other, and the video of both."""
    graph = Graph(object_info)
    graph.note("start", "Start here", (0, 0, 340, 380), START_NOTE)
    graph.note("more", "Going on", (0, 440, 340, 560), MORE_NOTE)
    graph.node("load", "LoadVideo", (400, 0, 300, 310), file="my_video.mp4")
    graph.group("1. Video", "load")
    add_models(graph, (400, 440), SD15)
    graph.group("2. Models", "checkpoint", "controlnet")
    add_prompts(
        graph,
        ("checkpoint", "CLIP"),
        760,
        120,
        positive=(0, "watercolor painting, soft washes of color, paper texture"),
        negative=(180, "photo, blurry, text, watermark"),
    )
    graph.group("3. Style", "positive", "negative")
    graph.node(
        "attention",
        "CrossFrameAttention",
        (760, 440, 340, 310),
        {"model": ("checkpoint", "MODEL")},
        extra=HIGHLIGHT,
    )
    graph.group("4. Keep one look", "attention")
    _add_chunk(graph, 1, 0, SD15)
    _add_chunk(graph, 2, 760, SD15)
    _add_result(graph)
    return graph.workflow(CHUNKS)


def _add_chunk(graph: Graph, number: int, y: int, family: Family) -> None:
    """Cut out, paint and decode one chunk; from the second on, after the one before."""
    keys = [f"{part} {number}" for part in PARTS]
    trim, parts, frames, edges, shapes, latents, sampler, images = keys
    graph.node(
        trim,
        "Video Slice",
        (1160, y, 300, 120),
        {"video": ("load", "VIDEO")},
        extra={"title": f"Trim: chunk {number}"},
        start_time=SECONDS * (number - 1),
        duration=SECONDS,
    )
    graph.node(parts, "GetVideoComponents", (1160, y + 180, 300, 100), {"video": (trim, "VIDEO")})
    graph.node(
        frames,
        "ImageScale",
        (1160, y + 340, 300, 150),
        {"image": (parts, "images")},
        extra={"title": "Scale frames"},
        upscale_method="lanczos",
        width=family.size[0],
        height=family.size[1],
        crop="center",
    )
    graph.node(edges, "Canny", (1520, y, 320, 90), {"image": (frames, "IMAGE")})
    add_controlnet(
        graph,
        (1520, y + 150, 320, 200),
        ("controlnet", "CONTROL_NET"),
        (edges, "IMAGE"),
        shapes,
        strength=0.8,
    )
    add_latents(graph, (1520, y + 410, 320, 60), ("checkpoint", "VAE"), latents, frames)
    inputs = {
        "positive": (shapes, "positive"),
        "negative": (shapes, "negative"),
        "latent_image": (latents, "LATENT"),
    }
    if number > 1:
        inputs["state"] = (f"sampler {number - 1}", "state")
    add_sampler(
        graph,
        sampler,
        "CrossFrameKSampler",
        (1900, y, 340, 540),
        "attention",
        inputs,
        extra=HIGHLIGHT,
        seed=1,
        steps=20,
        cfg=7.0,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=0.6,
    )
    add_decoder(graph, images, (1900, y + 600, 340, 60), sampler, ("checkpoint", "VAE"))
    graph.group(f"{number + 4}. Chunk {number}", *keys)


def _add_result(graph: Graph) -> None:
    graph.node(
        "join",
        "BatchImagesNode",
        (2300, 0, 320, 80),
        {f"images.image{i}": (f"images {i + 1}", "IMAGE") for i in range(2)},
    )
    graph.node(
        "sound",
        "AudioConcat",
        (2300, 140, 320, 80),
        {f"audio{i}": (f"parts {i}", "audio") for i in (1, 2)},
    )
    graph.node(
        "video",
        "CreateVideo",
        (2300, 280, 320, 120),
        {"images": ("join", "IMAGE"), "audio": ("sound", "AUDIO"), "fps": ("parts 1", "fps")},
    )
    add_video_file(graph, (2300, 460, 320, 340), "video/long clip")
    graph.group("7. Result", "join", "sound", "video", "save")
