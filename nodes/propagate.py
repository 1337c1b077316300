"""The nodes that paint a part of a clip's frames and carry them to all others."""

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from .common import CATEGORY, MotionType


class CrossFrameKeyframes(io.ComfyNode):
    """Frames and motion of a clip -> those of its keyframes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameKeyframes",
            display_name="Cross-Frame Keyframes",
            category=CATEGORY,
            search_aliases=["every nth frame", "select frames", "keyframes"],
            description=(
                "Picks keyframes out of a video, so that only these have to be painted. "
                "Cross-Frame Propagate then makes the frames between them."
            ),
            inputs=[
                io.Image.Input("source", tooltip="All frames of the video, in order."),
                MotionType.Input(
                    "motion", tooltip="The motion of these frames, from Cross-Frame Motion."
                ),
                io.Int.Input(
                    "every",
                    default=8,
                    min=1,
                    max=9999,
                    tooltip="Every how many frames there is a keyframe. The first and the last "
                    "frame are always keyframes.",
                ),
                io.String.Input(
                    "keyframes",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Which frames are keyframes, e.g. 0, 24, 48. If it is empty, they are "
                    "chosen by 'every'.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The keyframes, to be painted."),
                MotionType.Output(
                    display_name="motion",
                    tooltip="The motion between keyframes, for nodes that paint them.",
                ),
                io.String.Output(
                    display_name="keyframes",
                    tooltip="The numbers of the keyframes, for Cross-Frame Propagate.",
                ),
            ],
        )

    @classmethod
    def execute(cls, source, motion, every: int, keyframes: str = "") -> io.NodeOutput:
        from ..hosts.comfy.propagate import pick_keyframes

        with named("CrossFrameKeyframes"):
            images, chosen, numbers = pick_keyframes(source, motion, every, keyframes)
        return io.NodeOutput(images, chosen, ", ".join(map(str, numbers)))


class CrossFramePropagate(io.ComfyNode):
    """Painted keyframes -> all frames of the clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFramePropagate",
            display_name="Cross-Frame Propagate",
            category=CATEGORY,
            search_aliases=["EbSynth", "interpolate keyframes", "propagate style", "tweening"],
            description=(
                "Makes all frames of a video out of painted keyframes: they are carried along the "
                "motion of the source. No model is run between keyframes."
            ),
            inputs=[
                io.Image.Input(
                    "images", tooltip="The painted keyframes, one picture for each, in order."
                ),
                io.Image.Input(
                    "source", tooltip="All frames of the source video, in order, as they were."
                ),
                MotionType.Input(
                    "motion", tooltip="The motion of the source, from Cross-Frame Motion."
                ),
                io.String.Input(
                    "keyframes",
                    default="",
                    optional=True,
                    tooltip="The numbers of the keyframes in the source, from Cross-Frame "
                    "Keyframes. If it is empty, they are those that Cross-Frame Motion has found.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="IMAGE",
                    tooltip="All frames. Keyframes are exactly as they were painted.",
                )
            ],
        )

    @classmethod
    def execute(cls, images, source, motion, keyframes: str = "") -> io.NodeOutput:
        from ..hosts.comfy.propagate import propagate

        with named("CrossFramePropagate"):
            return io.NodeOutput(propagate(images, source, motion, keyframes))


NODES = [CrossFrameKeyframes, CrossFramePropagate]
