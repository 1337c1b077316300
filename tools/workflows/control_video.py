"""The workflow that paints a clip from a prompt along the edges of a video."""

from workflows import parts
from workflows.graph import Graph
from workflows.models import SD15, links

START_NOTE = f"""## Control video

Paints a new clip along the edges of a video, from noise, as Text2Video-Zero does with a
ControlNet. Nothing but the shapes is taken from the video.

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
{links(SD15.checkpoint, SD15.controlnet)}

Any SD1.5 checkpoint with an SD1.5 ControlNet will do.

**3.** Write in *Prompt* what the clip should show.

**4.** Run. *Trim* takes the first 2 seconds; for more, set a longer duration (0 is the whole
video). The sizes in *Scale frames* must divide by 8.
"""

NOTE = """### The first frame, everywhere

All frames start from **one noise** and look at the **first** frame, in **all** layers of the model.
*Cross-Frame ControlNet* lets the ControlNet's own layers do the same.

- Things that come in later borrow the look of others? Choose *references* **first + previous**.
- To compare, select *Cross-Frame ControlNet* and press Ctrl+B (bypass).
"""
SAMPLING = {"seed": 1, "steps": 20, "cfg": 9.0, "sampler_name": "ddim", "scheduler": "ddim_uniform"}


def control_video(graph: Graph) -> None:
    """Draw the workflow."""
    graph.note("Start here", START_NOTE)
    start = parts.video_and_models(graph, SD15, duration=2.0)
    with graph.column():
        with graph.group("4. Keep one look"):
            model = start.checkpoint["MODEL"]
            look = {"references": "first", "layers": "all"}
            attention = graph.node("CrossFrameAttention", model=model, **look)
            graph.note("What it does", NOTE)
        with graph.group("5. Keep the shapes"):
            edges = graph.node("Canny", image=start.frames)
            control = graph.node("CrossFrameControlNet", control_net=start.controlnet)
            prompts = parts.keep_shapes(graph, start.prompts, control, edges, strength=1.0)
    with graph.group("6. Paint"):
        latents = graph.node("VAEEncode", pixels=start.frames, vae=start.checkpoint["VAE"])
        latents = parts.one_noise(graph, latents)
        inputs = {"model": attention, **prompts, "latent_image": latents}
        sampled = graph.node("KSampler", **inputs, **SAMPLING, denoise=1.0)
        images = graph.node("VAEDecode", samples=sampled, vae=start.checkpoint["VAE"])
    parts.result(graph, "control video", images, start.source)
