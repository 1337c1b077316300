"""The workflows that paint every frame twice, or only every eighth one."""

from workflows import parts
from workflows.graph import Graph
from workflows.models import SD15, links

RERENDER_START = f"""## Rerender a video

Paints a video anew as *Rerender A Video* does. Every frame is painted, earlier results are laid
over it along the motion of the video, and it is painted again, pulled to that picture.

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
{links(SD15.checkpoint, SD15.controlnet)}

Any SD1.5 checkpoint with an SD1.5 ControlNet will do.

**3.** Write the style you want in *Prompt*.

**4.** Run. *Trim* takes the first 2 seconds; for more, set a longer duration (0 is the whole
video). The sizes in *Scale frames* must divide by 8.
"""

RERENDER_NOTE = """### Two passes

1. *Cross-Frame Motion* finds out what moves where. Where its *preview* is dark, nothing is taken
from earlier frames.
2. *Cross-Frame Attention* lets frames look at the **first** and the **previous** one. *layers*
**up, loose** binds shapes less.
3. *Cross-Frame Rerender* paints frame after frame. It takes about one and a half times as long as
one pass.

- Things that move leave traces? Lower *pixel_fusion_strength*.
- Colours drift? AdaIN acts in the last fifth of the steps; let it begin earlier (*adain_start*).
"""

EIGHTH_START = f"""## Paint every eighth frame

Only every eighth frame is painted, all of them together. The frames between are carried along the
motion of the video. So the model paints an eighth of the frames.

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
{links(SD15.checkpoint, SD15.controlnet)}

**3.** Write the style you want in *Prompt*.

**4.** Run. *Trim* takes the first 4 seconds; for more, set a longer duration (0 is the whole
video). The sizes in *Scale frames* must divide by 8.
"""

EIGHTH_NOTE = """### Keyframes

1. *Cross-Frame Motion* finds out what moves where in the whole video.
2. *Cross-Frame Keyframes* picks every eighth frame, and the motion between these.
3. They look at one another (*Cross-Frame Attention*) and are mixed along the motion
(*Cross-Frame Fusion*), so that they fit together.
4. *Cross-Frame Propagate* makes the frames between them.

- Things look torn between keyframes? Lower *every*, or name frames in *keyframes*.
"""


def rerender(graph: Graph) -> None:
    """Draw the workflow that paints every frame twice."""
    graph.note("Start here", RERENDER_START)
    start = parts.video_and_models(graph, SD15, duration=2.0)
    source, frames, checkpoint, controlnet, prompts = start
    with graph.column():
        with graph.group("4. Motion and one look"):
            motion = graph.node("CrossFrameMotion", source=frames)
            attention = graph.node("CrossFrameAttention", model=checkpoint["MODEL"])
        with graph.group("5. Keep the shapes"):
            edges = graph.node("Canny", image=frames)
            prompts = parts.keep_shapes(graph, prompts, controlnet, edges, strength=0.8)
    with graph.group("6. Paint"):
        painted = graph.node(
            "CrossFrameRerender",
            model=attention,
            vae=checkpoint["VAE"],
            images=frames,
            **prompts,
            seed=1,
            denoise=0.75,
            motion=motion["motion"],
        )
        graph.note("What it does", RERENDER_NOTE)
    parts.result(graph, "rerender", painted["IMAGE"], source)


def every_eighth(graph: Graph) -> None:
    """Draw the workflow that paints keyframes and carries them to all other frames."""
    graph.note("Start here", EIGHTH_START)
    start = parts.video_and_models(graph, SD15, duration=4.0)
    source, frames, checkpoint, controlnet, prompts = start
    with graph.group("4. Keyframes"):
        with graph.column():
            motion = graph.node("CrossFrameMotion", source=frames)
            keys = graph.node("CrossFrameKeyframes", source=frames, motion=motion["motion"])
            graph.note("What it does", EIGHTH_NOTE)
        with graph.column():
            model = checkpoint["MODEL"]
            attention = graph.node("CrossFrameAttention", model=model, references="keyframes")
            fusion = graph.node("CrossFrameFusion", model=attention, motion=keys["motion"])
    with graph.group("5. Keep the shapes"):
        edges = graph.node("Canny", image=keys["images"])
        prompts = parts.keep_shapes(graph, prompts, controlnet, edges, strength=0.8)
    with graph.group("6. Paint"):
        latents = graph.node("VAEEncode", pixels=keys["images"], vae=checkpoint["VAE"])
        latents = parts.one_noise(graph, latents)
        inputs = {"model": fusion, **prompts, "latent_image": latents}
        sampled = graph.node("KSampler", **inputs, **parts.SAMPLING, denoise=0.6)
        images = graph.node("VAEDecode", samples=sampled["LATENT"], vae=checkpoint["VAE"])
        spread = graph.node(
            "CrossFramePropagate",
            images=images,
            source=frames,
            motion=motion["motion"],
            keyframes=keys["keyframes"],
        )
    parts.result(graph, "every eighth", spread, source)
