"""The node for prompts that change along a clip."""

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from ..hosts.comfy.prompts import BETWEEN
from .common import CATEGORY

EXAMPLE = "0: a calm sea in the morning\n16: a stormy sea in the evening"


class CrossFramePrompts(io.ComfyNode):
    """CLIP and lines of text -> CONDITIONING with one row per frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFramePrompts",
            display_name="Cross-Frame Prompts",
            category=CATEGORY,
            search_aliases=["prompt schedule", "prompt travel", "batch prompt", "prompt per frame"],
            description="Encodes prompts that change along a clip: one row for every frame.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the checkpoint."),
                io.String.Input(
                    "text",
                    default=EXAMPLE,
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="One line for each change: the number of a frame, a colon and the "
                    "prompt from there on. The first frame is 0.",
                ),
                io.Int.Input(
                    "frames",
                    default=32,
                    min=1,
                    max=9999,
                    tooltip="The number of frames in the clip.",
                ),
                io.Combo.Input(
                    "between",
                    options=list(BETWEEN),
                    default=BETWEEN[0],
                    tooltip="'hold' keeps a prompt until the next one. 'blend' goes evenly from "
                    "one to the next.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip="One prompt per frame, for any sampler under Cross-Frame Attention.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip, text: str, frames: int, between: str) -> io.NodeOutput:
        from ..hosts.comfy.prompts import prompts_along

        with named("CrossFramePrompts"):
            return io.NodeOutput(prompts_along(clip, text, frames, between))


NODES = [CrossFramePrompts]
