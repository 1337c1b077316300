"""The node that fuses the frames of a clip along their motion."""

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from ..latents.fusion import FUSED_TO
from .common import CATEGORY, MotionType


class CrossFrameFusion(io.ComfyNode):
    """MODEL and motion -> MODEL whose frames are mixed along the motion at every step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameFusion",
            display_name="Cross-Frame Fusion",
            category=CATEGORY,
            search_aliases=["pixel-aware fusion", "shape-aware fusion", "flow-guided fusion"],
            description=(
                "Keeps the colour of every place in a video steady: while frames are painted, each "
                "is mixed with others where the source video shows the same thing. Works with "
                "every image model, with and without Cross-Frame Attention."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A model that paints images, with or without Cross-Frame Attention. "
                    "It is not changed; the effect is on the output.",
                ),
                MotionType.Input(
                    "motion",
                    tooltip="The motion of the source video, from Cross-Frame Motion.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the other frames is mixed in at the start, when colours "
                    "and large shapes are settled, where the motion is certain. 1 takes them over.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the denoising this node begins to act. 0 is the start, which "
                    "is full noise.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the denoising this node stops acting. 1 is the end, which is "
                    "the clean picture.",
                ),
                io.Combo.Input(
                    "to",
                    options=list(FUSED_TO),
                    default=FUSED_TO[0],
                    tooltip="Which frames a frame is mixed with. 'keyframes': the first one and "
                    "those right before and after it. 'first + previous': the first frame of the "
                    "scene and the one before it. The earliest one that shows a place decides.",
                ),
                io.String.Input(
                    "keyframes",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Which frames are keyframes, e.g. 0, 24, 48. If it is empty, they are "
                    "those that Cross-Frame Motion has found.",
                ),
                io.Float.Input(
                    "end_strength",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="How much of the other frames is mixed in at the end, when detail is "
                    "settled. In between, the strength changes evenly.",
                ),
                io.Mask.Input(
                    "foreground",
                    optional=True,
                    advanced=True,
                    tooltip="What is not mixed, in one mask for all frames or one per frame. Only "
                    "the background is then held, as in Text2Video-Zero's background smoothing.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="The model with fusion, for any sampler node.",
                )
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        from ..hosts.comfy.attach import ChosenFusion, attach_fusion

        model = inputs.pop("model")
        with named("CrossFrameFusion"):
            return io.NodeOutput(attach_fusion(model, ChosenFusion(**inputs)))


NODES = [CrossFrameFusion]
