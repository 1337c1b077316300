"""The node that encodes a clip so that every frame has a latent of its own."""

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from .common import CATEGORY


class CrossFrameVAEEncode(io.ComfyNode):
    """IMAGE -> LATENT, one latent per frame with every VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameVAEEncode",
            display_name="Cross-Frame VAE Encode",
            category=CATEGORY,
            search_aliases=["vae encode frames", "encode video frames", "one latent per frame"],
            description=(
                "Encodes a clip so that every frame has a latent of its own, with every VAE. The "
                "VAEs of Qwen-Image, Anima, Wan and Krea 2 were made for video: in VAE Encode, "
                "they turn a batch of images into one video and compress it over time."
            ),
            inputs=[
                io.Image.Input("pixels", tooltip="The frames of the clip, in order."),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="LATENT",
                    tooltip="The clip: one latent per frame, in order. VAE Decode turns it back "
                    "into one image per frame.",
                )
            ],
        )

    @classmethod
    def execute(cls, pixels, vae) -> io.NodeOutput:
        from ..hosts.comfy.encoding import encode_frames

        with named("CrossFrameVAEEncode"):
            return io.NodeOutput({"samples": encode_frames(pixels, vae)})


NODES = [CrossFrameVAEEncode]
