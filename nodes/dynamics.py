"""The nodes that make a moving clip out of one picture's latent."""

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from ..hosts.comfy.page.graph import show
from ..hosts.frame_noise import FRAME_NOISE
from ..latents.dynamics import READINGS
from ..motion.field import EVEN, PACES
from .common import CATEGORY, MotionType
from .ksampler_inputs import sampler_inputs, seed_input, steps_input


class CrossFrameMotionField(io.ComfyNode):
    """A shift, a zoom and a turn per frame -> CROSS_FRAME_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameMotionField",
            display_name="Cross-Frame Motion Field",
            category=CATEGORY,
            search_aliases=["camera motion", "pan", "zoom", "motion field", "Text2Video-Zero"],
            description=(
                "Makes up a motion for a clip that does not exist yet: the whole picture shifts, "
                "zooms and turns. Cross-Frame Dynamics makes frames that move in this way."
            ),
            inputs=[
                io.Int.Input("frames", default=8, min=2, max=9999, tooltip="The number of frames."),
                io.Int.Input(
                    "width", default=512, min=8, max=16384, tooltip="The width of the frames."
                ),
                io.Int.Input(
                    "height", default=512, min=8, max=16384, tooltip="The height of the frames."
                ),
                io.Float.Input(
                    "x",
                    default=12.0,
                    min=-9999.0,
                    max=9999.0,
                    step=0.1,
                    tooltip="How many pixels the picture moves to the right from frame to frame. "
                    "Below 0 it moves to the left.",
                ),
                io.Float.Input(
                    "y",
                    default=0.0,
                    min=-9999.0,
                    max=9999.0,
                    step=0.1,
                    tooltip="How many pixels the picture moves down from frame to frame. Below 0 "
                    "it moves up.",
                ),
                io.Float.Input(
                    "zoom",
                    default=1.0,
                    min=0.5,
                    max=2.0,
                    step=0.001,
                    round=0.0001,
                    tooltip="By which factor the picture grows from frame to frame, about its "
                    "centre. 1.02 comes 2 % closer, 0.98 goes away.",
                ),
                io.Float.Input(
                    "turn",
                    default=0.0,
                    min=-180.0,
                    max=180.0,
                    step=0.1,
                    tooltip="By how many degrees the picture turns clockwise from frame to frame, "
                    "about its centre. Below 0 it turns the other way.",
                ),
                io.Combo.Input(
                    "pace",
                    options=list(PACES),
                    default=EVEN,
                    optional=True,
                    advanced=True,
                    tooltip="How fast it moves along its way. The way is the same for all but "
                    "'there and back', which goes half of it and returns.",
                ),
                io.Custom("CURVE").Input(
                    "curve",
                    optional=True,
                    advanced=True,
                    extra_dict={"forceInput": True},  # else the page puts a curve of its own in
                    tooltip="From a Curve Editor: how far along its way the picture is, from 0 to "
                    "1, over the time of the clip. It counts instead of pace.",
                ),
            ],
            outputs=[
                MotionType.Output(
                    display_name="motion", tooltip="What moves where, between any two frames."
                ),
                io.String.Output(
                    display_name="keyframes",
                    tooltip="The frames that show enough new things, for example '0, 24': the "
                    "first one, and each of which the last of them shows less than half.",
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The motion to the next frame. The colour is the direction, white "
                    "stands still, and where it is dark the other frame shows nothing of this one.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        frames: int,
        width: int,
        height: int,
        x: float,
        y: float,
        zoom: float,
        turn: float,
        pace: str = EVEN,
        curve=None,
    ) -> io.NodeOutput:
        from ..hosts.comfy.motion_field import made_motion

        with named("CrossFrameMotionField"):
            motion, preview = made_motion(frames, (height, width), (x, y), zoom, turn, pace, curve)
        listed = ", ".join(map(str, motion.keyframes))
        show(cls, f"keyframes: {listed}")
        return io.NodeOutput(motion, listed, preview)


class CrossFrameDynamics(io.ComfyNode):
    """A noisy LATENT of one frame and a motion -> LATENT of all frames at an earlier step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameDynamics",
            display_name="Cross-Frame Dynamics",
            category=CATEGORY,
            search_aliases=["Text2Video-Zero", "text to video", "motion dynamics", "animate"],
            description=(
                "Makes the frames of a clip out of one picture that is still half noise: copies "
                "of it move along a motion and get new noise. A second sampler then paints all "
                "frames together from the earlier step on (Text2Video-Zero)."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model that both samplers use; its noise levels are looked up.",
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="One frame, from a KSampler (Advanced) that ends at from_step and "
                    "returns with leftover noise.",
                ),
                MotionType.Input(
                    "motion",
                    tooltip="Where things move, from Cross-Frame Motion Field or Cross-Frame "
                    "Motion. It says how many frames there are.",
                ),
                seed_input(),
                steps_input("The number of steps of the samplers."),
                *sampler_inputs("ddim", "ddim_uniform", "Choose that of the samplers."),
                io.Int.Input(
                    "from_step",
                    default=3,
                    min=1,
                    max=10000,
                    tooltip="The step at which the first sampler has ended (its end_at_step). The "
                    "later it is, the more the frames have in common.",
                ),
                io.Int.Input(
                    "to_step",
                    default=1,
                    min=0,
                    max=10000,
                    tooltip="The earlier step from which the second sampler goes on (its "
                    "start_at_step). The earlier it is, the more each frame is painted anew.",
                ),
                io.Latent.Input(
                    "earlier_latent",
                    optional=True,
                    tooltip="The same frame from a KSampler (Advanced) that ends at to_step. It "
                    "then is the first frame, as in the published method. If nothing is connected, "
                    "the first frame gets new noise as the others do.",
                ),
                io.Combo.Input(
                    "frame_noise",
                    options=list(FRAME_NOISE),
                    default=FRAME_NOISE[0],
                    optional=True,
                    advanced=True,
                    tooltip="Whether the new noise is the same for every frame, which flickers "
                    "less. In the published method it is different.",
                ),
                io.Combo.Input(
                    "reading",
                    options=list(READINGS),
                    default=READINGS[0],
                    optional=True,
                    advanced=True,
                    tooltip="How the latent is moved. 'nearest' moves by whole cells (8 pixels in "
                    "most models), as published. 'smooth' also moves by less.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="LATENT",
                    tooltip="All frames, for a KSampler (Advanced) with add_noise off that starts "
                    "at to_step.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        latent,
        motion,
        seed: int,
        steps: int,
        sampler_name: str,
        scheduler: str,
        from_step: int,
        to_step: int,
        earlier_latent=None,
        frame_noise: str = FRAME_NOISE[0],
        reading: str = READINGS[0],
    ) -> io.NodeOutput:
        from ..hosts.comfy.dynamics import Steps, moving_frames

        with named("CrossFrameDynamics"):
            chosen = Steps(steps, sampler_name, scheduler, from_step, to_step)
            frames = moving_frames(
                model, latent, motion, chosen, seed, frame_noise, reading, earlier_latent
            )
        return io.NodeOutput(frames)


NODES = [CrossFrameMotionField, CrossFrameDynamics]
