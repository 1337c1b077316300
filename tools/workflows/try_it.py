"""The workflows that show what the pack does with nothing to download."""

from typing import NamedTuple

from workflows import parts
from workflows.graph import Graph, Node, Output

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


REPAINT_NOTE = """## Two more ways to paint a video

Nothing to download: a tiny model and a clip come with the pack. **Just run it**; it takes two or
three minutes without a graphics card.

- **left**: *Cross-Frame Rerender* paints frame after frame. Each frame is painted, earlier results
are laid over it along the motion, and it is painted again, pulled to that picture.
- **right**: only every fourth frame is painted, all of them together. *Cross-Frame Propagate*
carries them along the motion to the frames between.

With your own video and checkpoint the graphs are *Rerender a video* and *Every eighth frame
(fast)*.
"""

REPAINTED_NOTE = """### Numbers, too

*Cross-Frame Consistency* measures how steady both clips are. Lower is steadier; 0 is perfect.

- Set *pixel_fusion_strength* of *Cross-Frame Rerender* to 0, and every frame is painted once.
- Raise *every* of *Cross-Frame Keyframes*: fewer frames are painted, and more of what comes in
between two of them is torn.
"""


class Demo(NamedTuple):
    """What the workflows with the demo model begin with. For frames, see `parts.Start`."""

    source: Node
    frames: Node
    model: Node


def try_it(graph: Graph) -> None:
    """Draw the plain branch, and the cross-frame branch below it."""
    graph.note("Start here", START_NOTE)
    source, frames, model = _demo(graph)
    with graph.group("3. Prompt and shapes"):
        prompts = parts.prompts(graph, model["CLIP"], "a neon drawing", "")
        prompts = _keep_shapes(graph, prompts, model, frames)
        latents = graph.node("VAEEncode", pixels=frames, vae=model["VAE"])
    title = "4. Hold every place still"
    fusion = parts.hold_still(graph, title, model["MODEL"], frames, layers="all")
    usual = {**prompts, "latent_image": latents}
    with graph.column():
        with graph.group("5. Each frame on its own"):
            plain = _paint(graph, model, frames, model=model["MODEL"], **usual)
        with graph.group("6. With cross-frame attention and fusion"):
            steady = _paint(graph, model, frames, model=fusion, **usual)
    title = "Left plain, right steady"
    _side_by_side(graph, 7, title, (plain, steady), source, "crossframe try it")
    graph.note("About the numbers", MEASURE_NOTE)


def try_repainting(graph: Graph) -> None:
    """Draw the branch with two passes, and the one with keyframes below it."""
    graph.note("Start here", REPAINT_NOTE)
    source, frames, model = _demo(graph)
    with graph.group("3. Prompt and motion"):
        prompts = parts.prompts(graph, model["CLIP"], "a neon drawing", "")
        motion = graph.node("CrossFrameMotion", source=frames)
    with graph.column():
        with graph.group("4. Every frame, in two passes"):
            rerendered = _rerender(graph, model, frames, prompts, motion)
        with graph.group("5. Every fourth frame"):
            spread = _every_fourth(graph, model, frames, prompts, motion)
    title = "Left two passes, right every fourth"
    _side_by_side(graph, 6, title, (rerendered, spread), source, "crossframe repaint")
    graph.note("About the numbers", REPAINTED_NOTE)


def _demo(graph: Graph) -> Demo:
    """Load the demo clip and the demo model, in a column."""
    with graph.column():
        with graph.group("1. Clip"):
            clip = graph.node("CrossFrameDemoClip")
            source = graph.node("GetVideoComponents", video=clip)
            title = "Scale to what the model wants"
            how = {"upscale_method": "area", "crop": "disabled"}
            frames = parts.scale(graph, title, source["images"], (64, 64), **how)
        with graph.group("2. Model"):
            model = graph.node("CrossFrameDemoModel")
    return Demo(source, frames, model)


def _keep_shapes(
    graph: Graph, prompts: parts.Prompts, model: Node, images: parts.Link
) -> parts.Prompts:
    return parts.keep_shapes(graph, prompts, model["CONTROL_NET"], images, "Keep the shapes")


def _rerender(
    graph: Graph, model: Node, frames: Node, prompts: parts.Prompts, motion: Node
) -> Output:
    """Paint every frame in two passes, and measure how steady the clip is."""
    with graph.column():
        attention = graph.node("CrossFrameAttention", model=model["MODEL"], layers="all")
        prompts = _keep_shapes(graph, prompts, model, frames)
    with graph.column():
        inputs = {"vae": model["VAE"], "images": frames, **prompts, "motion": motion["motion"]}
        painted = graph.node("CrossFrameRerender", model=attention, **inputs, **SAMPLING)
    with graph.column():
        graph.node("CrossFrameConsistency", edited=painted["IMAGE"], source=frames)
    return painted["IMAGE"]


def _every_fourth(
    graph: Graph, model: Node, frames: Node, prompts: parts.Prompts, motion: Node
) -> Node:
    """Paint every fourth frame, make the others, and measure how steady the clip is."""
    with graph.column():
        clip = {"source": frames, "motion": motion["motion"]}
        keys = graph.node("CrossFrameKeyframes", **clip, every=4)
        prompts = _keep_shapes(graph, prompts, model, keys["images"])
        latents = graph.node("VAEEncode", pixels=keys["images"], vae=model["VAE"])
        latents = parts.one_noise(graph, latents)
    with graph.column():
        look = {"references": "keyframes", "layers": "all"}
        attention = graph.node("CrossFrameAttention", model=model["MODEL"], **look)
        fusion = graph.node("CrossFrameFusion", model=attention, motion=keys["motion"])
        inputs = {"model": fusion, **prompts, "latent_image": latents}
        sampled = graph.node("KSampler", **inputs, **SAMPLING)
    with graph.column():
        images = graph.node("VAEDecode", samples=sampled, vae=model["VAE"])
        numbers = keys["keyframes"]
        spread = graph.node("CrossFramePropagate", images=images, **clip, keyframes=numbers)
        graph.node("CrossFrameConsistency", edited=spread, source=frames)
    return spread


def _side_by_side(
    graph: Graph,
    number: int,
    title: str,
    clips: tuple[parts.Link, parts.Link],
    source: Node,
    name: str,
) -> None:
    """Write a video of two clips, one beside the other, in a group with a number."""
    with graph.group(f"{number}. Result"):
        beside = graph.node("ImageStitch", title, image1=clips[0], image2=clips[1], spacing_width=2)
        how = {"upscale_method": "nearest-exact", "scale_by": 4.0}
        large = graph.node("ImageScaleBy", "Enlarge", image=beside, **how)
        parts.save_video(graph, name, images=large, fps=source["fps"])


def _paint(graph: Graph, demo: Node, frames: Node, **inputs: parts.Link) -> Node:
    """Paint the frames of one branch, and measure how steady they are."""
    with graph.column():
        sampled = graph.node("KSampler", **inputs, **SAMPLING)
    with graph.column():
        images = graph.node("VAEDecode", samples=sampled, vae=demo["VAE"])
        graph.node("CrossFrameConsistency", edited=images, source=frames)
    return images
