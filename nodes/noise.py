"""The node that decides whether frames share their noise."""

from comfy_api.latest import io

from ..hosts.comfy.noise.clip_noise import clip_noise
from ..hosts.frame_noise import FRAME_NOISE
from .common import CATEGORY

FRAME_NOISE_TOOLTIP = (
    "'same for every frame' starts all frames from one noise, which keeps texture in place. "
    "'different per frame' draws noise as the stock samplers do for a batch."
)


class CrossFrameNoise(io.ComfyNode):
    """NOISE -> NOISE that is, or is not, the same for every frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameNoise",
            display_name="Cross-Frame Noise",
            category=CATEGORY,
            search_aliases=["same noise for every frame", "fixed noise", "one noise"],
            description=(
                "Gives every frame of a clip the same noise, for SamplerCustomAdvanced and "
                "Cross-Frame Sampler."
            ),
            inputs=[
                io.Noise.Input("noise", tooltip="Where the noise comes from, e.g. RandomNoise."),
                io.Combo.Input(
                    "frame_noise",
                    options=list(FRAME_NOISE),
                    default=FRAME_NOISE[0],
                    tooltip=FRAME_NOISE_TOOLTIP,
                ),
            ],
            outputs=[
                io.Noise.Output(
                    display_name="NOISE", tooltip="Noise for the whole clip, for a custom sampler."
                )
            ],
        )

    @classmethod
    def execute(cls, noise, frame_noise: str) -> io.NodeOutput:
        return io.NodeOutput(clip_noise(noise, frame_noise))


NODES = [CrossFrameNoise]
