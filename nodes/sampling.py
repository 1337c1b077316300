"""The nodes that sample a clip frame by frame."""

from dataclasses import fields

from comfy_api.latest import io

from ..hosts.comfy.errors import named
from .common import CATEGORY, FRAME_BY_FRAME_ALIASES
from .continuation import continuation, continuation_inputs, given_state, report, state_output
from .ksampler_inputs import (
    cfg_input,
    noise_inputs,
    prompt_inputs,
    sampler_inputs,
    seed_input,
    steps_input,
)

SWITCH = ["enable", "disable"]
LATENT_TOOLTIP = "The clip: one latent per frame, in order."


def stage_inputs() -> list:
    """The inputs that KSamplerAdvanced has and KSampler has not."""
    return [
        io.Combo.Input(
            "add_noise",
            options=SWITCH,
            default="enable",
            optional=True,
            advanced=True,
            tooltip="'disable' adds no noise before the first step. Use it for a second sampler, "
            "which goes on with the noisy latents of a first one. It does not change the noise "
            "that the sampling algorithm adds later: frame_noise decides whether frames share it.",
        ),
        io.Int.Input(
            "start_at_step",
            default=0,
            min=0,
            max=10000,
            optional=True,
            advanced=True,
            tooltip="The step to begin with, counted from 0. If denoise is below 1, only the steps "
            "that it leaves are counted. A second sampler begins where the first one has ended.",
        ),
        io.Int.Input(
            "end_at_step",
            default=10000,
            min=0,
            max=10000,
            optional=True,
            advanced=True,
            tooltip="End before this step. A second sampler then begins with it. If the value is "
            "the number of steps or more, all steps that are left are painted.",
        ),
        io.Combo.Input(
            "return_with_leftover_noise",
            options=SWITCH[::-1],
            default="disable",
            optional=True,
            advanced=True,
            tooltip="Only if end_at_step comes before the last step. 'enable' leaves the noise of "
            "that step in the latents, for a second sampler. 'disable' takes all of it away.",
        ),
    ]


class CrossFrameKSampler(io.ComfyNode):
    """KSampler and KSamplerAdvanced, frame by frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameKSampler",
            display_name="Cross-Frame KSampler (frame by frame)",
            category=CATEGORY,
            search_aliases=FRAME_BY_FRAME_ALIASES,
            description=(
                "A KSampler that finishes the frames of a clip one after another. Each frame looks "
                "at earlier frames. The Cross-Frame Attention node on its model says which ones. "
                "The frames are the same as a KSampler's, but you see them finished one by one. "
                "It remembers more, and its memory grows with steps, not with frames."
            ),
            inputs=[
                io.Model.Input("model", tooltip="A model from a Cross-Frame Attention node."),
                seed_input(),
                steps_input("The number of denoising steps for each frame."),
                cfg_input(8.0),
                *sampler_inputs(),
                *prompt_inputs(),
                io.Latent.Input("latent_image", tooltip=LATENT_TOOLTIP),
                *noise_inputs(1.0),
                *continuation_inputs(),
                *stage_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="The painted clip."),
                state_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, latent_image: dict, **inputs) -> io.NodeOutput:
        from ..hosts.comfy.orders.sampler_nodes import Stage, sample_ksampler

        with named("CrossFrameKSampler", sampler="sampler_name"):
            before = continuation(cls, inputs, output=1)
            resuming = cls if inputs.pop("resume", False) else None
            names = {field.name for field in fields(Stage)} & inputs.keys()
            stage = Stage(**{name: inputs.pop(name) for name in names})
            sampled = sample_ksampler(
                latent=latent_image,
                **inputs,
                continuation=before,
                resuming_node=resuming,
                stage=stage,
            )
        return io.NodeOutput(sampled.output, given_state(sampled), ui=report(cls, sampled))


class CrossFrameSampler(io.ComfyNode):
    """SamplerCustomAdvanced, frame by frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CrossFrameSampler",
            display_name="Cross-Frame Sampler (frame by frame)",
            category=CATEGORY,
            search_aliases=FRAME_BY_FRAME_ALIASES,
            description=(
                "A SamplerCustomAdvanced that finishes the frames of a clip one after another. "
                "The guider's model must come from a Cross-Frame Attention node."
            ),
            inputs=[
                io.Noise.Input(
                    "noise", tooltip="Noise for the clip; see also the Cross-Frame Noise node."
                ),
                io.Guider.Input(
                    "guider", tooltip="A guider on a model from a Cross-Frame Attention node."
                ),
                io.Sampler.Input("sampler", tooltip="The sampling algorithm."),
                io.Sigmas.Input("sigmas", tooltip="The noise levels of the steps."),
                io.Latent.Input("latent_image", tooltip=LATENT_TOOLTIP),
                *continuation_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="output", tooltip="The painted clip."),
                io.Latent.Output(
                    display_name="denoised_output",
                    tooltip="The model's last estimate of the clean clip, useful where the "
                    "sigmas end before zero.",
                ),
                state_output(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, noise, guider, sampler, sigmas, latent_image, **inputs) -> io.NodeOutput:
        from ..hosts.comfy.orders.sampler_nodes import sample_custom

        with named("CrossFrameSampler", model="guider"):
            before = continuation(cls, inputs, output=2)
            resuming = cls if inputs.pop("resume", False) else None
            sampled = sample_custom(noise, guider, sampler, sigmas, latent_image, before, resuming)
        latents = sampled.output, sampled.denoised
        return io.NodeOutput(*latents, given_state(sampled), ui=report(cls, sampled))


NODES = [CrossFrameKSampler, CrossFrameSampler]
