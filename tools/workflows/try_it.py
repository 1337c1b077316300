"""The workflow that shows cross-frame attention with nothing to download."""

from workflows import parts
from workflows.graph import Graph, Node

SAMPLING = {
    "seed": 1,
    "steps": 16,
    "cfg": 1.5,
    "sampler_name": "ddim",
    "scheduler": "normal",
    "denoise": 1.0,
}

START_NOTE = """## See what it does

Nothing to download: a tiny model and a clip come with the pack. **Just run it**; it takes a
minute or two, even without a graphics card.

The clip is painted twice from the same prompt:
- **left**: every frame on its own, as image models do. The colours jump.
- **right**: the same sampler behind **Cross-Frame Attention** and **Cross-Frame Fusion**. The
colours stay.

Change the *Prompt*. The model knows moods (warm, cold, pastel, neon, dark), colours and the
words background, discs, squares and triangles: *a dark drawing with red discs*. What the prompt
leaves open, the model makes up, in every frame anew if nothing holds it.

With your own video and checkpoint the graph is the same: open *Video restyle*.
"""

MEASURE_NOTE = """### Numbers, too

*Cross-Frame Consistency* follows every point through the source clip and looks how much its
colour changes in the painted one. Lower is steadier; 0 is perfect.

Try other settings and compare: bypass the fusion (Ctrl+B), or give the attention other
*references* and fewer *layers*.
"""


def try_it(graph: Graph) -> None:
    """Draw the plain branch, and the cross-frame branch below it."""
    graph.note("Start here", START_NOTE)
    with graph.column():
        with graph.group("1. Clip"):
            clip = graph.node("CrossFrameDemoClip")
            source = graph.node("GetVideoComponents", video=clip)
            title = "Scale to what the model wants"
            how = {"upscale_method": "area", "crop": "disabled"}
            frames = parts.scale(graph, title, source["images"], (64, 64), **how)
        with graph.group("2. Model"):
            model = graph.node("CrossFrameDemoModel")
    with graph.group("3. Prompt and shapes"):
        prompts = parts.prompts(graph, model["CLIP"], "a neon drawing", "")
        net = model["CONTROL_NET"]
        prompts = parts.keep_shapes(graph, prompts, net, frames, "Keep the shapes")
        latents = graph.node("VAEEncode", pixels=frames, vae=model["VAE"])
    title = "4. Hold every place still"
    fusion = parts.hold_still(graph, title, model["MODEL"], frames, layers="all")
    usual = {**prompts, "latent_image": latents}
    with graph.column():
        with graph.group("5. Each frame on its own"):
            plain = _paint(graph, model, frames, model=model["MODEL"], **usual)
        with graph.group("6. With cross-frame attention and fusion"):
            steady = _paint(graph, model, frames, model=fusion, **usual)
    with graph.group("7. Result"):
        title = "Left plain, right steady"
        beside = graph.node("ImageStitch", title, image1=plain, image2=steady, spacing_width=2)
        how = {"upscale_method": "nearest-exact", "scale_by": 4.0}
        large = graph.node("ImageScaleBy", "Enlarge", image=beside, **how)
        parts.save_video(graph, "crossframe try it", images=large, fps=source["fps"])
    graph.note("About the numbers", MEASURE_NOTE)


def _paint(graph: Graph, demo: Node, frames: Node, **inputs: parts.Link) -> Node:
    """Paint the frames of one branch, and measure how steady they are."""
    with graph.column():
        sampled = graph.node("KSampler", **inputs, **SAMPLING)
    with graph.column():
        images = graph.node("VAEDecode", samples=sampled, vae=demo["VAE"])
        graph.node("CrossFrameConsistency", edited=images, source=frames)
    return images
