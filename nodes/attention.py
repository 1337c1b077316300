"""The node that gives a MODEL cross-frame attention."""

from comfy_api.latest import io

from ..attention import LAYER_SETS, PRECISIONS, REFERENCES
from ..hosts.comfy.errors import named
from ..hosts.comfy.model.settings import BANK_DEVICES
from .common import CATEGORY, SEARCH_ALIASES, StateType, first_frame_input


class CrossFrameAttention(io.ComfyNode):
    """MODEL -> MODEL with cross-frame attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameAttention",
            display_name="Cross-Frame Attention",
            category=CATEGORY,
            search_aliases=SEARCH_ALIASES,
            description=(
                "Makes the frames of a batch look at other frames of the clip while they are "
                "painted, so that a video keeps one look instead of flickering. Works with "
                "every sampler node: the latent batch is the clip, in order."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A model that paints images: Stable Diffusion, SDXL, SD3.5, Flux, "
                    "Qwen-Image, Z-Image, ... It is not changed; the effect is on the output.",
                ),
                io.Combo.Input(
                    "references",
                    options=list(REFERENCES),
                    default="first + previous",
                    tooltip="Which frames every frame looks at. 'first' holds the look of the "
                    "first frame. 'previous' follows gradual change but can drift. Together "
                    "they do both. 'keyframes' are painted together and looked at by all frames.",
                ),
                io.Boolean.Input(
                    "include_self",
                    default=False,
                    tooltip="Also let every frame look at itself. Frames keep more of their "
                    "own content and less of the shared look.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(LAYER_SETS),
                    default="up",
                    tooltip="Which part of the model looks at other frames. 'up' sets colours "
                    "and texture; 'all' binds frames most strongly, shapes included. In Flux, "
                    "Qwen-Image and other transformers 'up' is the later part (the single blocks, "
                    "or the last two thirds) and 'mid + up' all but the first sixth. 'up, loose' "
                    "is the outer part of 'up': shapes are bound less.",
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
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Where in the denoising this node stops acting. 1 is the end, which is "
                    "the clean picture.",
                ),
                io.Int.Input(
                    "frames_per_batch",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="How many frames the model works on at once. The result is the same. "
                    "0 chooses the fastest number that fits in memory. Lower it if memory runs "
                    "out. CrossFrame's own samplers always take one frame at a time.",
                ),
                io.Combo.Input(
                    "bank_device",
                    options=list(BANK_DEVICES),
                    default="with the model",
                    optional=True,
                    advanced=True,
                    tooltip="Where the hidden states of earlier frames are kept. System memory "
                    "leaves the graphics card to the model, but it takes time to move them "
                    "there and back. Frame by frame they can take gigabytes.",
                ),
                io.Combo.Input(
                    "bank_precision",
                    options=list(PRECISIONS),
                    default=PRECISIONS[0],
                    optional=True,
                    advanced=True,
                    tooltip="How exactly the hidden states of earlier frames are kept. 'int8 per "
                    "token' takes half the memory of fp16 and changes the frames by less than "
                    "you can see.",
                ),
                io.String.Input(
                    "scene_starts",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Frames at which a new scene begins, e.g. 40, 95 (the first frame "
                    "of the video is 0). Such a frame is painted on its own, and counts as the "
                    "first one for those after it.",
                ),
                StateType.Input(
                    "state",
                    optional=True,
                    tooltip="What earlier frames or a reference picture have left. It comes from a "
                    "CrossFrame sampler. The frames are then painted to match them.",
                ),
                first_frame_input(),
                io.String.Input(
                    "keyframes",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="With the references 'keyframes': which frames these are, e.g. 0, 24, "
                    "48 (the first frame of the video is 0). If it is empty, the first, the middle "
                    "and the last frame of every scene are taken.",
                ),
                io.Float.Input(
                    "first_weight",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How much the first frame counts beside the others that a frame looks "
                    "at; with 'keyframes', each of them. 2 is as if it were there twice, 0 as "
                    "if it were not there.",
                ),
                io.Float.Input(
                    "previous_weight",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How much the previous frame counts beside the others that a frame "
                    "looks at.",
                ),
                io.Float.Input(
                    "self_weight",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How much the frame itself counts if include_self is on.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL",
                    tooltip="The model with cross-frame attention, for any sampler node.",
                )
            ],
        )

    @classmethod
    def execute(cls, **inputs) -> io.NodeOutput:
        from ..hosts.comfy.attach import Choice, attach

        model = inputs.pop("model")
        with named("CrossFrameAttention"):
            return io.NodeOutput(attach(model, Choice(**inputs)))


NODES = [CrossFrameAttention]
