"""The workflows that paint a video anew, with either sampler and either family of models."""

from workflows import parts
from workflows.graph import Graph
from workflows.models import SD15, Family, links

ONE_LOOK = """**Cross-Frame Attention** keeps the frames
alike, so that the result does not flicker."""
ONE_PLACE = """**Cross-Frame Attention** gives
all frames the look of a few keyframes, and **Cross-Frame Fusion** holds every place to it,
wherever it moves."""


def start_note(family: Family, steady: bool) -> str:
    """Say what to do first."""
    other = "SDXL" if family is SD15 else "SD1.5"
    name = "Steady restyle" if steady else "Video restyle"
    where = f"*{name} (SDXL)*" if family is SD15 else f"*{name}*"
    return f"""## Restyle a video

Paints a video anew in the style of your prompt. {ONE_PLACE if steady else ONE_LOOK}

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
{links(family.checkpoint, family.controlnet)}

Any {family.name} checkpoint with an {family.name} ControlNet will do. For {other} open {where}.

**3.** Write the style you want in *Prompt*.

**4.** Run. *Trim* takes the first 2 seconds; for more, set a longer duration (0 is the whole
video). The sizes in *Scale frames* must divide by 8.
"""


ATTENTION_NOTE = """### Keep one look

While a frame is painted, the model looks at the **first** frame and the **previous** one
instead of at the frame itself.

- Still flickering? Try *layers* **all**.
- Out of memory? Set *frames_per_batch* to a small number. The result is the same.
- To compare, select the node and press Ctrl+B (bypass).
"""

KSAMPLER_NOTE = """### All frames at once

KSampler takes every step for all frames together; its preview shows the first frame. They all
start from **one noise**, which keeps texture in place.

Lower *denoise* stays closer to the video, higher follows the prompt more.
"""

FRAME_BY_FRAME_NOTE = """### Frame by frame

Finishes one frame after another; the preview shows each. Its memory grows with the steps, not
with the length of the video.

*frame_noise*: the **same** noise for every frame keeps texture in place. The frames are those of
*Video restyle*.
"""


def restyle(
    graph: Graph, family: Family, frame_by_frame: bool = False, steady: bool = False
) -> None:
    """Draw the workflow for a family of models and one of the samplers.

    steady: whether frames are also fused along the motion of the video.
    """
    graph.note("Start here", start_note(family, steady))
    start = parts.video_and_models(graph, family, duration=2.0)
    source, frames, checkpoint, controlnet, prompts = start
    if steady:
        attention = parts.hold_still(
            graph, "4. Hold every place still", checkpoint["MODEL"], frames
        )
    with graph.column():
        if not steady:
            with graph.group("4. Keep one look"):
                attention = graph.node("CrossFrameAttention", model=checkpoint["MODEL"])
                graph.note("What it does", ATTENTION_NOTE)
        with graph.group("5. Keep the shapes"):
            edges = graph.node("Canny", image=frames)
            prompts = parts.keep_shapes(graph, prompts, controlnet, edges, strength=0.8)
    with graph.group("6. Paint"):
        latents = graph.node("VAEEncode", pixels=frames, vae=checkpoint["VAE"])
        if not frame_by_frame:  # the pack's own sampler has this built in
            latents = parts.one_noise(graph, latents)
        kind = "CrossFrameKSampler" if frame_by_frame else "KSampler"
        inputs = {"model": attention, **prompts, "latent_image": latents}
        sampled = graph.node(kind, **inputs, **parts.SAMPLING, denoise=0.6)
        graph.note("About the sampler", FRAME_BY_FRAME_NOTE if frame_by_frame else KSAMPLER_NOTE)
        images = graph.node("VAEDecode", samples=sampled["LATENT"], vae=checkpoint["VAE"])
    parts.result(graph, "restyle", images, source)
