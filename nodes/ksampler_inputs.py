"""Inputs that the stock KSampler has, for the nodes that do its work frame by frame."""

import comfy.samplers
from comfy_api.latest import io

from ..hosts.frame_noise import FRAME_NOISE
from .noise import FRAME_NOISE_TOOLTIP


def seed_input():
    """The random seed."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="The random seed that the noise is drawn from.",
    )


def steps_input(tooltip: str):
    """The number of steps."""
    return io.Int.Input("steps", default=20, min=1, max=10000, tooltip=tooltip)


def cfg_input(default: float):
    """How closely to follow the prompt."""
    return io.Float.Input(
        "cfg",
        default=default,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        tooltip="How closely to follow the prompt; 1 ignores the negative prompt.",
    )


def sampler_inputs(sampler: str | None = None, scheduler: str | None = None, more: str = ""):
    """The sampling algorithm and its schedule. sampler, scheduler: the defaults, or None.

    more: a sentence about the sampler.
    """
    return [
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            default=sampler,
            tooltip=f"The sampling algorithm. {more}".strip(),
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default=scheduler,
            tooltip="How noise is taken away over the steps.",
        ),
    ]


def prompt_inputs() -> list:
    """What to paint, and what to avoid."""
    of_clip = "one prompt for all frames or one per frame."
    return [
        io.Conditioning.Input("positive", tooltip=f"What to paint; {of_clip}"),
        io.Conditioning.Input("negative", tooltip=f"What to avoid; {of_clip}"),
    ]


def noise_inputs(denoise: float) -> list:
    """How much is repainted, and from which noise. denoise: the default."""
    return [
        io.Float.Input(
            "denoise",
            default=denoise,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How much each frame is repainted. A lower value keeps more of it.",
        ),
        io.Combo.Input(
            "frame_noise",
            options=list(FRAME_NOISE),
            default=FRAME_NOISE[0],
            tooltip=FRAME_NOISE_TOOLTIP,
        ),
    ]
