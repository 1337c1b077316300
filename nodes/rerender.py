"""The node that paints a clip as Rerender A Video does."""

from dataclasses import fields

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from .common import CATEGORY, MotionType
from .continuation import report
from .ksampler_inputs import (
    cfg_input,
    noise_inputs,
    prompt_inputs,
    sampler_inputs,
    seed_input,
    steps_input,
)


def part_inputs(name: str, start: float, end: float, what: str) -> list:
    """The two inputs for a part of the steps. what: what happens there, as a sentence."""
    limits = {"min": 0.0, "max": 1.0, "step": 0.01, "optional": True, "advanced": True}
    return [
        io.Float.Input(
            f"{name}_start",
            default=start,
            **limits,
            tooltip=f"{what} This is where it begins: 0 is the first step that is taken, 1 is the "
            "end.",
        ),
        io.Float.Input(
            f"{name}_end",
            default=end,
            **limits,
            tooltip=f"Where this ends. Set it to {name}_start to switch this off.",
        ),
    ]


class CrossFrameRerender(io.ComfyNode):
    """A KSampler for whole clips: two passes on every frame, held to earlier results."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameRerender",
            display_name="Cross-Frame Rerender (two passes)",
            category=CATEGORY,
            search_aliases=["rerender a video", "two pass video", "pixel fusion", "AdaIN"],
            description=(
                "Paints a video as Rerender A Video does: every frame after the first is painted, "
                "earlier results are laid over it along the motion, and it is painted again, "
                "pulled to that picture. Put Cross-Frame Attention on its model."
            ),
            inputs=[
                io.Model.Input("model", tooltip="A model from a Cross-Frame Attention node."),
                io.Vae.Input("vae", tooltip="The VAE of the model; pictures are fused with it."),
                io.Image.Input("images", tooltip="The frames of the source video, in order."),
                *prompt_inputs(),
                seed_input(),
                steps_input("The number of denoising steps of one pass."),
                cfg_input(7.5),
                *sampler_inputs("ddim", "ddim_uniform", "The method was published with ddim."),
                *noise_inputs(0.75),
                MotionType.Input(
                    "motion",
                    optional=True,
                    tooltip="The motion of the images, from Cross-Frame Motion. Without it, shape "
                    "fusion and pixel fusion must be off.",
                ),
                io.Latent.Input(
                    "latent_image",
                    optional=True,
                    tooltip="The latents to start from, with a mask if there is one. If nothing is "
                    "connected, the images are encoded.",
                ),
                *part_inputs(
                    "shape_fusion",
                    0.0,
                    0.1,
                    "Shape fusion: in these steps, the large shapes of the scene's first frame are "
                    "taken over along the motion.",
                ),
                *part_inputs(
                    "adain",
                    0.8,
                    1.0,
                    "AdaIN: in these steps, colours and contrasts of each frame are matched to "
                    "those of the scene's first frame.",
                ),
                *part_inputs(
                    "pixel_fusion",
                    0.5,
                    0.8,
                    "Pixel fusion: in these steps of a second pass, the frame is pulled to earlier "
                    "results that the motion brings along.",
                ),
                io.Float.Input(
                    "pixel_fusion_strength",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="How strongly the second pass is pulled to earlier results. 0 leaves "
                    "the second pass out.",
                ),
                io.Boolean.Input(
                    "keep_colors",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Start from the images as they are. If it is off, their colours are "
                    "first matched to those of the first painted frame.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="While sampling, keep finished frames on disk, with what later frames "
                    "need. After Cancel, an error or a crash, queue the same graph again. It goes "
                    "on with the next frame.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="The painted clip."),
                io.Image.Output(display_name="IMAGE", tooltip="The pictures of the painted clip."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, resume: bool = False, **inputs) -> io.NodeOutput:
        from ..hosts.comfy.rerender.node import ChosenStages, sample_rerender

        names = {field.name for field in fields(ChosenStages)} & inputs.keys()
        chosen = ChosenStages(**{name: inputs.pop(name) for name in names})
        with named("CrossFrameRerender", sampler="sampler_name", pixels="images"):
            painted = sample_rerender(
                chosen=chosen, resuming_node=cls if resume else None, **inputs
            )
        sampled = painted.sampled
        return io.NodeOutput(sampled.output, painted.pictures, ui=report(cls, sampled))


NODES = [CrossFrameRerender]
