"""The workflow that paints new pictures with the look of a reference picture."""

from workflow_graph import HIGHLIGHT, Graph
from workflow_models import SD15, links
from workflow_parts import add_decoder, add_latents, add_prompts, add_sampler

REFERENCE = "Reference picture"
SAMPLING = {
    "steps": 20,
    "cfg": 7.0,
    "sampler_name": "dpmpp_2m",
    "scheduler": "karras",
    "denoise": 1.0,
    "frame_noise": "different per frame",
}

START_NOTE = f"""## The look of a reference picture

Paints new pictures whose colours, brush and material come from a picture of yours.

**1.** Choose the picture in *Load Image*.

**2.** Get the model, if it is not there yet; any SD1.5 checkpoint will do:
{links(SD15, SD15.checkpoint)}

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


def reference(object_info: dict) -> dict:
    """The reference above, the new picture below."""
    graph = Graph(object_info)
    graph.note("start", "Start here", (0, 0, 340, 440), START_NOTE)
    _add_picture(graph)
    _add_model(graph)
    _add_prompts(graph)
    _add_samplers(graph)
    return graph.workflow(REFERENCE)


def _add_picture(graph: Graph) -> None:
    graph.node("load", "LoadImage", (400, 0, 300, 320), image="reference.png")
    graph.node(
        "frames",
        "ImageScale",
        (400, 380, 300, 150),
        {"image": ("load", "IMAGE")},
        extra={"title": "Scale"},
        upscale_method="lanczos",
        width=SD15.side,
        height=SD15.side,
        crop="center",
    )
    graph.group("1. Reference", "load", "frames")


def _add_model(graph: Graph) -> None:
    graph.node(
        "checkpoint",
        "CheckpointLoaderSimple",
        (760, 0, 340, 100),
        model=SD15.checkpoint,
        ckpt_name=SD15.checkpoint["name"],
    )
    graph.node(
        "attention",
        "CrossFrameAttention",
        (760, 160, 340, 310),
        {"model": ("checkpoint", "MODEL")},
        extra=HIGHLIGHT,
        references="first",
    )
    graph.note("strength", "How strongly", (760, 530, 340, 220), STRENGTH_NOTE)
    graph.group("2. Model", "checkpoint", "attention", "strength")


def _add_prompts(graph: Graph) -> None:
    add_prompts(
        graph,
        ("checkpoint", "CLIP"),
        1160,
        120,
        positive=(0, "an oil painting of a harbour, thick brush strokes"),
        negative=(360, "blurry, text, watermark"),
        title="Prompt: reference",
    )
    graph.node(
        "new",
        "CLIPTextEncode",
        (1160, 180, 340, 120),
        {"clip": ("checkpoint", "CLIP")},
        extra={"title": "Prompt: new"},
        text="an oil painting of a mountain village, thick brush strokes",
    )
    add_latents(graph, (1160, 540, 340, 60), ("checkpoint", "VAE"))
    graph.node(
        "empty",
        "EmptyLatentImage",
        (1160, 660, 340, 110),
        width=SD15.side,
        height=SD15.side,
        batch_size=1,
    )
    graph.group("3. Prompts and sizes", "positive", "new", "negative", "latents", "empty")


def _add_samplers(graph: Graph) -> None:
    prompts = {"negative": ("negative", "CONDITIONING")}
    add_sampler(
        graph,
        "look",
        "CrossFrameKSampler",
        (1560, 0, 360, 600),
        "attention",
        {**prompts, "positive": ("positive", "CONDITIONING")},
        extra={**HIGHLIGHT, "title": "Look at the reference"},
        seed=1,
        **SAMPLING,
        reference_only=True,
    )
    graph.note("about looking", "What it does", (1560, 660, 360, 200), LOOK_NOTE)
    graph.group("4. Look", "look", "about looking")
    add_sampler(
        graph,
        "paint",
        "CrossFrameKSampler",
        (1980, 0, 360, 540),
        "attention",
        {
            **prompts,
            "positive": ("new", "CONDITIONING"),
            "latent_image": ("empty", "LATENT"),
            "state": ("look", "state"),
        },
        extra={**HIGHLIGHT, "title": "Paint"},
        seed=1,
        **SAMPLING,
    )
    add_decoder(graph, "images", (1980, 600, 360, 60), "paint", ("checkpoint", "VAE"))
    graph.node(
        "save",
        "SaveImage",
        (1980, 720, 360, 340),
        {"images": ("images", "IMAGE")},
        filename_prefix="reference picture",
    )
    graph.group("5. Paint", "paint", "images", "save")
