"""The workflows that paint a video with a diffusion transformer (DiT): anew, or by instruction."""

from workflows import parts
from workflows.graph import Graph
from workflows.models import KONTEXT, Z_IMAGE_TURBO, links

INSTRUCTION = (
    "Change this to a watercolor painting with soft washes of color and paper texture, while "
    "maintaining the original composition"
)
SIZE = (1024, 576)
# Frames of transformers keep more of their own content when they look at themselves, too.
LOOK = {"references": "first + previous", "include_self": True, "layers": "up"}
# Steps, cfg, sampler and scheduler of ComfyUI's own templates.
RESTYLING = {
    "seed": 1,
    "steps": 8,
    "cfg": 1.0,
    "sampler_name": "res_multistep",
    "scheduler": "simple",
    "denoise": 0.6,
}
EDITING = {
    "seed": 1,
    "steps": 20,
    "cfg": 1.0,
    "sampler_name": "euler",
    "scheduler": "simple",
    "denoise": 1.0,
}

RESTYLE_NOTE = f"""## Restyle a video with a DiT

Paints a video anew in the style of your prompt, in 8 steps. **Cross-Frame Attention** lets every
frame look at the first and the previous one, so that they keep one look.

**1.** Choose your video in *Load Video*.

**2.** Get the four files, if they are not there yet:
{links(*Z_IMAGE_TURBO.files)}

**3.** Write the style you want in *Prompt*.

**4.** Run. *Trim* takes the first 2 seconds; for more, set a longer duration (0 is the whole
video). The sizes in *Scale frames* must divide by 16.
"""

EDIT_NOTE = f"""## Edit a video by an instruction

Changes every frame as your instruction says. Every frame is its own reference picture, and
**Cross-Frame Attention** keeps the frames alike.

**1.** Choose your video in *Load Video*.

**2.** Get the four files, if they are not there yet:
{links(*KONTEXT.files)}

**3.** Write in *Instruction* what to change, and what to keep.

**4.** Run. *Trim* takes the first second; for more, set a longer duration (0 is the whole
video).
"""

ATTENTION_NOTE = """### Keep one look

While a frame is painted, the model looks at the **first** frame, the **previous** one and the
frame itself.

- Frames still differ? Turn *include_self* off, or try *layers* **all**.
- Out of memory? Set *frames_per_batch* to a small number. The result is the same.
- To compare, select the node and press Ctrl+B (bypass).
"""

CONTROL_NOTE = """### One hint per frame

The ControlNet gets the edges of all frames and gives each frame its own. Two things must hold:
*cfg* is 1, and the edges have the size of the frames.
"""

RESTYLE_SAMPLER_NOTE = """### All frames at once

KSampler takes every step for all frames together. They all start from **one noise**, which
keeps texture in place.

Lower *denoise* stays closer to the video, higher follows the prompt more.

Cross-Frame KSampler in its place finishes one frame after another, but keeps gigabytes for
every step.
"""

REFERENCE_NOTE = """### Every frame is its own reference

*Cross-Frame VAE Encode* makes one latent of every frame. *Each frame's reference* gets them all,
and the model sees the one that belongs to the frame it paints.
"""

EDIT_SAMPLER_NOTE = """### From noise to picture

*denoise* stays at 1: the video comes in as a reference, not as a beginning. The latent tells
only the size and the number of frames.

All frames start from **one noise**, which keeps texture in place.
"""

SCALE_NOTE = """### Size

*FluxKontextImageScale* takes the size nearest to your video's shape among those that the model
knows, about one megapixel. For less memory, put *Upscale Image* (ImageScale) in its place, with
sizes that divide by 16.
"""


def restyle_transformer(graph: Graph) -> None:
    """Draw the workflow that paints a video anew with Z-Image-Turbo and its ControlNet."""
    graph.note("Start here", RESTYLE_NOTE)
    with graph.group("1. Video"):
        video = graph.node("LoadVideo", file="my_video.mp4")
        source, frames = parts.cut(graph, video, SIZE, duration=2.0)
    with graph.column():
        with graph.group("2. Models"):
            model, clip, vae = parts.load_transformer(graph, Z_IMAGE_TURBO)
            file = Z_IMAGE_TURBO.control
            control = graph.node("ModelPatchLoader", download=(file,), name=file["name"])
        with graph.group("3. Style"):
            prompts = parts.one_prompt(graph, clip, parts.STYLE)
    with graph.column():
        with graph.group("4. Keep the shapes"):
            edges = graph.node("Canny", image=frames, low_threshold=0.1, high_threshold=0.32)
            inputs = {"model": model, "model_patch": control, "vae": vae, "image": edges}
            held = graph.node("QwenImageDiffsynthControlnet", **inputs, strength=1.0)
            graph.note("About hints", CONTROL_NOTE)
        with graph.group("5. Keep one look"):
            shifted = graph.node("ModelSamplingAuraFlow", model=held, shift=3.0)
            attention = graph.node("CrossFrameAttention", model=shifted, **LOOK)
            graph.note("What it does", ATTENTION_NOTE)
    with graph.group("6. Paint"):
        latents = graph.node("CrossFrameVAEEncode", pixels=frames, vae=vae)
        latents = parts.one_noise(graph, latents)
        inputs = {"model": attention, **prompts, "latent_image": latents}
        sampled = graph.node("KSampler", **inputs, **RESTYLING)
        graph.note("About the sampler", RESTYLE_SAMPLER_NOTE)
        images = graph.node("VAEDecode", samples=sampled, vae=vae)
    parts.result(graph, "restyle", images, source)


def edit(graph: Graph) -> None:
    """Draw the workflow that changes every frame by an instruction, with Flux.1 Kontext."""
    graph.note("Start here", EDIT_NOTE)
    with graph.group("1. Video"):
        video = graph.node("LoadVideo", file="my_video.mp4")
        trimmed = graph.node("Video Slice", "Trim", video=video, duration=1.0)
        source = graph.node("GetVideoComponents", video=trimmed)
        frames = graph.node("FluxKontextImageScale", image=source["images"])
        graph.note("About the size", SCALE_NOTE)
    with graph.column():
        with graph.group("2. Models"):
            model, clip, vae = parts.load_transformer(graph, KONTEXT)
        with graph.group("3. Instruction"):
            prompts = parts.one_prompt(graph, clip, INSTRUCTION, "Instruction")
    with graph.group("4. Every frame its own reference"):
        latents = graph.node("CrossFrameVAEEncode", pixels=frames, vae=vae)
        inputs = {"conditioning": prompts["positive"], "latent": latents}
        positive = graph.node("ReferenceLatent", "Each frame's reference", **inputs)
        positive = graph.node("FluxGuidance", conditioning=positive, guidance=2.5)
        graph.note("About references", REFERENCE_NOTE)
    with graph.group("5. Keep one look"):
        attention = graph.node("CrossFrameAttention", model=model, **LOOK)
        graph.note("What it does", ATTENTION_NOTE)
    with graph.group("6. Paint"):
        start = parts.one_noise(graph, latents)
        inputs = {"model": attention, **prompts, "positive": positive, "latent_image": start}
        sampled = graph.node("KSampler", **inputs, **EDITING)
        graph.note("About the sampler", EDIT_SAMPLER_NOTE)
        images = graph.node("VAEDecode", samples=sampled, vae=vae)
    parts.result(graph, "edit", images, source)
