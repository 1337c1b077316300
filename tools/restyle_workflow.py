"""The workflows that paint a video anew, with either sampler and either family of models."""

from workflow_graph import HIGHLIGHT, Graph
from workflow_models import SD15, SDXL, Family, links
from workflow_parts import (
    add_controlnet,
    add_decoder,
    add_latents,
    add_models,
    add_prompts,
    add_sampler,
    add_video_file,
)


def start_note(family: Family) -> str:
    """What to do first."""
    other = "SDXL" if family is SD15 else "SD1.5"
    where = "*Video restyle (SDXL)*" if family is SD15 else "*Video restyle*"
    return f"""## Restyle a video

Paints a video anew in the style of your prompt. **Cross-Frame Attention** keeps the frames
alike, so that the result does not flicker.

**1.** Choose your video in *Load Video*.

**2.** Get the two models, if they are not there yet:
{links(family, family.checkpoint, family.controlnet)}

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


def restyles(object_info: dict) -> dict[str, dict]:
    """Every variant by its name."""
    variants = {
        "Video restyle": (SD15, False),
        "Video restyle (frame by frame)": (SD15, True),
        "Video restyle (SDXL)": (SDXL, False),
    }
    return {name: _restyle(object_info, name, *variant) for name, variant in variants.items()}


def _restyle(object_info: dict, name: str, family: Family, frame_by_frame: bool) -> dict:
    graph = Graph(object_info)
    graph.note("start", "Start here", (0, 0, 340, 400), start_note(family))
    _add_video(graph, family)
    _add_models_and_prompt(graph, family)
    _add_shapes(graph)
    _add_attention(graph)
    _add_sampler(graph, frame_by_frame)
    _add_result(graph)
    return graph.workflow(name)


def _add_video(graph: Graph, family: Family) -> None:
    graph.node("load", "LoadVideo", (400, 0, 300, 310), file="my_video.mp4")
    graph.node(
        "trim",
        "Video Slice",
        (400, 370, 300, 120),
        {"video": ("load", "VIDEO")},
        extra={"title": "Trim"},
        duration=2.0,
    )
    graph.node("parts", "GetVideoComponents", (400, 550, 300, 100), {"video": ("trim", "VIDEO")})
    graph.node(
        "frames",
        "ImageScale",
        (400, 710, 300, 150),
        {"image": ("parts", "images")},
        extra={"title": "Scale frames"},
        upscale_method="lanczos",
        width=family.size[0],
        height=family.size[1],
        crop="center",
    )
    graph.group("1. Video", "load", "trim", "parts", "frames")


def _add_models_and_prompt(graph: Graph, family: Family) -> None:
    add_models(graph, (760, 0), family)
    graph.group("2. Models", "checkpoint", "controlnet")
    add_prompts(
        graph,
        ("checkpoint", "CLIP"),
        760,
        180,
        positive=(370, "watercolor painting, soft washes of color, paper texture"),
        negative=(610, "photo, blurry, text, watermark"),
    )
    graph.group("3. Style", "positive", "negative")


def _add_shapes(graph: Graph) -> None:
    graph.node("edges", "Canny", (1160, 660, 340, 90), {"image": ("frames", "IMAGE")})
    add_controlnet(
        graph,
        (1160, 810, 340, 200),
        ("controlnet", "CONTROL_NET"),
        ("edges", "IMAGE"),
        strength=0.8,
    )
    graph.group("5. Keep the shapes", "edges", "shapes")


def _add_attention(graph: Graph) -> None:
    graph.node(
        "attention",
        "CrossFrameAttention",
        (1160, 0, 340, 310),
        {"model": ("checkpoint", "MODEL")},
        extra=HIGHLIGHT,
    )
    graph.note("about attention", "What it does", (1160, 370, 340, 170), ATTENTION_NOTE)
    graph.group("4. Keep one look", "attention", "about attention")


def _add_sampler(graph: Graph, frame_by_frame: bool) -> None:
    add_latents(graph, (1560, 0, 360, 60), ("checkpoint", "VAE"))
    inputs = {}
    if not frame_by_frame:  # the pack's own sampler has this built in
        graph.node(
            "noise",
            "LatentBatchSeedBehavior",
            (1560, 120, 360, 60),
            {"samples": ("latents", "LATENT")},
            extra={"title": "One noise for all frames"},
        )
        inputs["latent_image"] = ("noise", "LATENT")
    add_sampler(
        graph,
        "sampler",
        "CrossFrameKSampler" if frame_by_frame else "KSampler",
        (1560, 120, 360, 540) if frame_by_frame else (1560, 240, 360, 310),
        "attention",
        inputs,
        extra=HIGHLIGHT if frame_by_frame else None,
        seed=1,
        steps=20,
        cfg=7.0,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=0.6,
    )
    below = 710 if frame_by_frame else 610
    add_decoder(graph, "images", (1560, below + 240, 360, 60), "sampler", ("checkpoint", "VAE"))
    text = FRAME_BY_FRAME_NOTE if frame_by_frame else KSAMPLER_NOTE
    graph.note("about sampler", "About the sampler", (1560, below, 360, 180), text)
    nodes = ["latents", "noise", "sampler", "about sampler", "images"]
    graph.group("6. Paint", *(node for node in nodes if node != "noise" or not frame_by_frame))


def _add_result(graph: Graph) -> None:
    graph.node(
        "video",
        "CreateVideo",
        (1980, 0, 320, 120),
        {
            "images": ("images", "IMAGE"),
            "audio": ("parts", "audio"),
            "fps": ("parts", "fps"),
        },
    )
    add_video_file(graph, (1980, 180, 320, 340), "video/restyle")
    graph.group("7. Result", "video", "save")
