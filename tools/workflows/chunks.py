"""The workflow that paints a long clip in chunks; each goes on from the state of the one before."""

from dataclasses import dataclass

from workflows import parts
from workflows.graph import Graph, Node
from workflows.models import SD15, links

SECONDS = 2.0

START_NOTE = f"""## A long clip in chunks

A clip that is too long to be held in memory at once is painted piece by piece. The *state* that
goes from one sampler to the next makes the pieces one clip: the frames are exactly those of
one run.

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
{links(SD15.checkpoint, SD15.controlnet)}

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


@dataclass(frozen=True)
class Chunk:
    """A chunk that is painted: its sound and frame rate, its sampler, its images."""

    source: Node
    sampler: Node
    images: Node


def chunks(graph: Graph) -> None:
    """Draw two chunks, one above the other, and the video of both."""
    with graph.column():
        graph.note("Start here", START_NOTE)
        graph.note("Going on", MORE_NOTE)
    with graph.column():
        with graph.group("1. Video"):
            video = graph.node("LoadVideo", file="my_video.mp4")
        checkpoint, controlnet = parts.models(graph, SD15)
    with graph.column():
        prompts = parts.style(graph, checkpoint["CLIP"])
        with graph.group("4. Keep one look"):
            attention = graph.node("CrossFrameAttention", model=checkpoint["MODEL"])

    def chunk(number: int, **state: parts.Link) -> Chunk:
        """Cut out, paint and decode one chunk; from the second on, after the one before."""
        with graph.group(f"{number + 4}. Chunk {number}"):
            with graph.column():
                times = {"start_time": SECONDS * (number - 1), "duration": SECONDS}
                title = f"Trim: chunk {number}"
                source, frames = parts.cut(graph, video, SD15.size, title, **times)
            with graph.column():
                edges = graph.node("Canny", image=frames)
                shapes = parts.keep_shapes(graph, prompts, controlnet, edges, strength=0.8)
                latents = graph.node("VAEEncode", pixels=frames, vae=checkpoint["VAE"])
            with graph.column():
                inputs = {"model": attention, **shapes, "latent_image": latents, **state}
                settings = {**parts.SAMPLING, "denoise": 0.6}
                sampler = graph.node("CrossFrameKSampler", **inputs, **settings)
                vae = checkpoint["VAE"]
                images = graph.node("VAEDecode", samples=sampler["LATENT"], vae=vae)
        return Chunk(source, sampler, images)

    with graph.column():
        first = chunk(1)
        second = chunk(2, state=first.sampler["state"])
    with graph.group("7. Result"):
        images = graph.node("BatchImagesNode", images=[first.images, second.images])
        sounds = {"audio1": first.source["audio"], "audio2": second.source["audio"]}
        audio = graph.node("AudioConcat", **sounds)
        parts.save_video(graph, "long clip", images=images, audio=audio, fps=first.source["fps"])
