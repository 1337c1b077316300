"""The nodes that give the small models and the clip which come with the pack."""

from comfy_api.latest import InputImpl, io

from ..hosts.comfy.demo.files import (
    ARCHITECTURES,
    CLIP_FILE,
    DIT_FOLDER,
    FOLDER,
    U_NET,
    check_exists,
)
from ..hosts.comfy.errors import named
from .common import CATEGORY


class CrossFrameDemoModel(io.ComfyNode):
    """The name of an architecture -> MODEL, CLIP, VAE and CONTROL_NET of a demo model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameDemoModel",
            display_name="Cross-Frame Demo Model",
            category=CATEGORY,
            search_aliases=[
                "demo model",
                "example model",
                "tiny model",
                "tiny flux",
                "no download",
            ],
            description=(
                "A tiny model that comes with the pack, to see what cross-frame attention does "
                "without any download. It paints coloured shapes in pictures of 64 x 64 pixels, "
                "in seconds even without a graphics card, and works with the stock nodes like "
                "any checkpoint. There is one built like Stable Diffusion and one built like Flux."
            ),
            inputs=[
                io.Combo.Input(
                    "architecture",
                    options=list(ARCHITECTURES),
                    default=U_NET,
                    optional=True,
                    tooltip="The kind of model. 'U-Net' is built like Stable Diffusion and takes "
                    "the video through Apply ControlNet. 'DiT' is built like Flux and takes it "
                    "through InstructPixToPixConditioning, as Flux Canny does.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="The tiny model, for a Cross-Frame Attention node or a sampler.",
                ),
                io.Clip.Output(
                    display_name="CLIP",
                    tooltip="Reads prompts, for CLIP Text Encode. It knows moods (warm, cold, "
                    "pastel, neon, dark), colours, and background, discs, squares, triangles.",
                ),
                io.Vae.Output(
                    display_name="VAE",
                    tooltip="For VAE Encode and VAE Decode; its latents have half the "
                    "picture's width and height.",
                ),
                io.ControlNet.Output(
                    display_name="CONTROL_NET",
                    tooltip="For Apply ControlNet; its hint is the video itself, as it is. The DiT "
                    "has none: give the video to InstructPixToPixConditioning.",
                ),
            ],
        )

    @classmethod
    def execute(cls, architecture: str = U_NET) -> io.NodeOutput:
        from ..hosts.comfy.demo.architectures import load_demo

        with named("CrossFrameDemoModel"):
            return io.NodeOutput(*load_demo(architecture, FOLDER, DIT_FOLDER))


class CrossFrameDemoClip(io.ComfyNode):
    """Nothing -> VIDEO, the demo's source clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameDemoClip",
            display_name="Cross-Frame Demo Clip",
            category=CATEGORY,
            search_aliases=["demo video", "example video", "test clip"],
            description=(
                "A short clip of moving shapes that comes with the pack, for the Cross-Frame "
                "Demo Model. Scale it to 64 x 64 first."
            ),
            inputs=[],
            outputs=[
                io.Video.Output(
                    display_name="VIDEO", tooltip="The clip, as Load Video gives a video."
                )
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        with named("CrossFrameDemoClip"):
            check_exists(CLIP_FILE)
        return io.NodeOutput(InputImpl.VideoFromFile(str(CLIP_FILE)))


NODES = [CrossFrameDemoModel, CrossFrameDemoClip]
