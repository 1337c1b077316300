"""The node that lets a ControlNet take part in cross-frame attention."""

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from .common import CATEGORY


class CrossFrameControlNet(io.ComfyNode):
    """CONTROL_NET -> CONTROL_NET whose self-attention looks at other frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameControlNet",
            display_name="Cross-Frame ControlNet",
            category=CATEGORY,
            search_aliases=["ControlNet attention", "Text2Video-Zero"],
            description=(
                "Lets the self-attention of a ControlNet look at other frames, as that of the "
                "model does. References, layers and the part of the denoising are those of "
                "Cross-Frame Attention on the MODEL."
            ),
            inputs=[
                io.ControlNet.Input(
                    "control_net",
                    tooltip="A ControlNet of SD1.5, SD2 or SDXL. It is not changed; the effect is "
                    "on the output.",
                )
            ],
            outputs=[
                io.ControlNet.Output(
                    display_name="CONTROL_NET",
                    tooltip="For Apply ControlNet, together with a MODEL from Cross-Frame "
                    "Attention whose layers are 'all' or 'mid + up'.",
                )
            ],
        )

    @classmethod
    def execute(cls, control_net) -> io.NodeOutput:
        from ..hosts.comfy.run.control_attention import attending

        with named("CrossFrameControlNet"):
            return io.NodeOutput(attending(control_net))


NODES = [CrossFrameControlNet]
