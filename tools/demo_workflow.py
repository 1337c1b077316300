"""The workflow that shows cross-frame attention with nothing to download."""

from workflow_graph import HIGHLIGHT, Graph
from workflow_parts import (
    add_controlnet,
    add_decoder,
    add_latents,
    add_prompts,
    add_sampler,
    add_video_file,
)

TRY_IT = "1 - Try it (no downloads)"

START_NOTE = """## See what it does

Nothing to download: a tiny model and a clip come with the pack. **Just run it**; it takes a
minute or two, even without a graphics card.

The clip is painted twice from the same prompt:
- **left**: every frame on its own, as image models do. The colours jump.
- **right**: the same sampler behind **Cross-Frame Attention**. The colours stay.

Change the *Prompt*. The model knows moods (warm, cold, pastel, neon, dark), colours and the
words background, discs, squares and triangles: *a dark drawing with red discs*. What the prompt
leaves open, the model makes up, in every frame anew if nothing holds it.

With your own video and checkpoint the graph is the same: open *Video restyle*.
"""

ATTENTION_NOTE = """### The one difference

While a frame is painted, the model looks at the frames in *references* instead of at itself.

Try the settings and compare the numbers below: fewer *layers* bind less, *previous* drifts.
"""

MEASURE_NOTE = """### Numbers, too

*Cross-Frame Consistency* follows every point through the source clip and looks how much its
colour changes in the painted one. Lower is steadier; 0 is perfect.
"""


def try_it(object_info: dict) -> dict:
    """The plain branch and the cross-frame branch, side by side."""
    graph = Graph(object_info)
    graph.note("start", "Start here", (0, 0, 340, 440), START_NOTE)
    _add_clip_and_model(graph)
    _add_prompts_and_shapes(graph)
    _add_attention(graph)
    for branch, model, y in (("plain", "model", 0), ("steady", "attention", 460)):
        _add_branch(graph, branch, model, y)
    _add_result(graph)
    return graph.workflow(TRY_IT)


def _add_clip_and_model(graph: Graph) -> None:
    graph.node("clip", "CrossFrameDemoClip", (400, 0, 300, 60), extra=HIGHLIGHT)
    graph.node("parts", "GetVideoComponents", (400, 120, 300, 100), {"video": ("clip", "VIDEO")})
    graph.node(
        "frames",
        "ImageScale",
        (400, 280, 300, 150),
        {"image": ("parts", "images")},
        extra={"title": "Scale to what the model wants"},
        upscale_method="area",
        width=64,
        height=64,
        crop="disabled",
    )
    graph.group("1. Clip", "clip", "parts", "frames")
    graph.node("model", "CrossFrameDemoModel", (400, 600, 300, 110), extra=HIGHLIGHT)
    graph.group("2. Model", "model")


def _add_prompts_and_shapes(graph: Graph) -> None:
    add_prompts(
        graph, ("model", "CLIP"), 760, 130, positive=(0, "a neon drawing"), negative=(190, "")
    )
    add_controlnet(
        graph,
        (760, 380, 340, 200),
        ("model", "CONTROL_NET"),
        ("frames", "IMAGE"),
        extra={"title": "Keep the shapes"},
    )
    add_latents(graph, (760, 640, 340, 60), ("model", "VAE"))
    graph.group("3. Prompt and shapes", "positive", "negative", "shapes", "latents")


def _add_attention(graph: Graph) -> None:
    graph.node(
        "attention",
        "CrossFrameAttention",
        (1160, 460, 340, 310),
        {"model": ("model", "MODEL")},
        extra=HIGHLIGHT,
        references="first",
        layers="all",
    )
    graph.note("about attention", "What it does", (1160, 830, 340, 170), ATTENTION_NOTE)
    graph.group("4. Keep one look", "attention", "about attention")


def _add_branch(graph: Graph, branch: str, model: str, y: int) -> None:
    """The sampler of one branch, and what measures its frames."""
    add_sampler(
        graph,
        f"{branch} sampler",
        "KSampler",
        (1560, y, 320, 310),
        model,
        seed=1,
        steps=16,
        cfg=1.5,
        sampler_name="ddim",
        scheduler="normal",
        denoise=1.0,
    )
    add_decoder(
        graph, f"{branch} images", (1940, y, 300, 60), f"{branch} sampler", ("model", "VAE")
    )
    graph.node(
        f"{branch} consistency",
        "CrossFrameConsistency",
        (1940, y + 120, 300, 240),
        {"edited": (f"{branch} images", "IMAGE"), "source": ("frames", "IMAGE")},
    )
    title = "5. Each frame on its own" if branch == "plain" else "6. With cross-frame attention"
    graph.group(title, f"{branch} sampler", f"{branch} images", f"{branch} consistency")


def _add_result(graph: Graph) -> None:
    graph.node(
        "beside",
        "ImageStitch",
        (2300, 0, 300, 180),
        {"image1": ("plain images", "IMAGE"), "image2": ("steady images", "IMAGE")},
        extra={"title": "Left plain, right steady"},
        spacing_width=2,
    )
    graph.node(
        "large",
        "ImageScaleBy",
        (2300, 240, 300, 90),
        {"image": ("beside", "IMAGE")},
        extra={"title": "Enlarge"},
        upscale_method="nearest-exact",
        scale_by=4.0,
    )
    graph.node(
        "video",
        "CreateVideo",
        (2300, 390, 300, 120),
        {"images": ("large", "IMAGE"), "fps": ("parts", "fps")},
    )
    add_video_file(graph, (2300, 570, 300, 300), "video/crossframe try it")
    graph.note("about numbers", "About the numbers", (2660, 0, 300, 150), MEASURE_NOTE)
    graph.group("7. Result", "beside", "large", "video", "save")
