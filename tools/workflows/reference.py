"""The workflow that paints new pictures with the look of a reference picture."""

from workflows import parts
from workflows.graph import Graph
from workflows.models import SD15, links

SHOWN = "an oil painting of a harbour, thick brush strokes"
NEW = "an oil painting of a mountain village, thick brush strokes"
SAMPLING = {**parts.SAMPLING, "denoise": 1.0, "frame_noise": "different per frame"}

START_NOTE = f"""## The look of a reference picture

Paints new pictures whose colours, brush and material come from a picture of yours.

**1.** Choose the picture in *Load Image*.

**2.** Get the model, if it is not there yet; any SD1.5 checkpoint will do:
{links(SD15.checkpoint)}

**3.** Say in *Prompt: reference* what the picture shows, and in *Prompt: new* what to paint.

**4.** Run. Set *batch_size* higher for several pictures at once; all look at the reference.

The same *state* goes into the graphs for videos: connect it to the sampler there, and the whole
clip takes the look of the picture (the sizes and sampler settings must be equal).
"""

LOOK_NOTE = """### Look, do not paint

This sampler has *reference_only* on: at every step the model sees the picture with that step's
noise, and keeps what its self-attention layers hold. That is the **state**.

Both samplers need the same steps, sampler, scheduler and denoise, and latents of one size.
"""

STRENGTH_NOTE = """### How strongly

- *layers*: **up** takes colours and texture over, **all** more of everything, shapes included.
- *end_percent*: lower it, e.g. to **0.6**, and the last steps are the prompt's own; raise
  *start_percent*, and the layout is.
- *include_self*: on, new pictures keep more of their own.
"""


def reference(graph: Graph) -> None:
    """Draw the sampler that looks at the reference, and the one that paints."""
    side = SD15.side
    graph.note("Start here", START_NOTE)
    with graph.group("1. Reference"):
        picture = graph.node("LoadImage", image="reference.png")
        scaled = parts.scale(graph, "Scale", picture["IMAGE"], (side, side))
    with graph.group("2. Model"):
        checkpoint = parts.load_checkpoint(graph, SD15)
        model = checkpoint["MODEL"]
        attention = graph.node("CrossFrameAttention", model=model, references="first")
        graph.note("How strongly", STRENGTH_NOTE)
    with graph.group("3. Prompts and sizes"):
        clip, vae = checkpoint["CLIP"], checkpoint["VAE"]
        shown = parts.prompt(graph, clip, SHOWN, "Prompt: reference")
        new = parts.prompt(graph, clip, NEW, "Prompt: new")
        negative = parts.prompt(graph, clip, "blurry, text, watermark", "Negative prompt")
        latents = graph.node("VAEEncode", pixels=scaled, vae=vae)
        empty = graph.node("EmptyLatentImage", width=side, height=side, batch_size=1)
    usual = {"model": attention, "negative": negative, **SAMPLING}
    with graph.group("4. Look"):
        inputs = {**usual, "positive": shown, "latent_image": latents, "reference_only": True}
        look = graph.node("CrossFrameKSampler", "Look at the reference", **inputs)
        graph.note("What it does", LOOK_NOTE)
    with graph.group("5. Paint"):
        inputs = {**usual, "positive": new, "latent_image": empty, "state": look["state"]}
        painted = graph.node("CrossFrameKSampler", "Paint", **inputs)
        images = graph.node("VAEDecode", samples=painted["LATENT"], vae=vae)
        graph.node("SaveImage", images=images, filename_prefix="reference picture")
