"""The node that finds the motion in a clip."""

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from ..hosts.comfy.page.graph import show
from ..motion import BUILT_IN, METHODS
from .common import CATEGORY, MotionType


class CrossFrameMotion(io.ComfyNode):
    """IMAGE -> CROSS_FRAME_MOTION, keyframes and pictures of the motion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameMotion",
            display_name="Cross-Frame Motion",
            category=CATEGORY,
            search_aliases=["optical flow", "keyframes", "RAFT", "motion estimation"],
            description=(
                "Finds out what moves where in the source video, and which frames show something "
                "new. Nodes that keep a moving thing the same from frame to frame need it."
            ),
            inputs=[
                io.Image.Input(
                    "source",
                    tooltip="The video that is edited: at least 2 frames, in order, in the shape "
                    "that goes into VAE Encode.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=BUILT_IN,
                    tooltip="'built in' needs nothing else. 'RAFT' asks a network for the motion, "
                    "and needs a flow_model.",
                ),
                io.Custom("OPTICAL_FLOW").Input(
                    "flow_model",
                    optional=True,
                    tooltip="Only for 'RAFT': from Load Optical Flow Model.",
                ),
            ],
            outputs=[
                MotionType.Output(
                    display_name="motion",
                    tooltip="What moves where, between any two frames, and where that is certain.",
                ),
                io.String.Output(
                    display_name="keyframes",
                    tooltip="The frames that show enough new things, for example '0, 24, 48': the "
                    "first one, and each of which the last of them shows less than half.",
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The motion to the next frame. The colour is the direction, white "
                    "stands still, and where it is dark the motion is not certain and not used.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, source, method: str, flow_model=None) -> io.NodeOutput:
        from ..hosts.comfy.motion import clip_motion

        with named("CrossFrameMotion"):
            motion, keyframes, preview = clip_motion(source, method, flow_model)
        listed = ", ".join(map(str, keyframes))
        show(cls, f"keyframes: {listed}")
        return io.NodeOutput(motion, listed, preview)


NODES = [CrossFrameMotion]
