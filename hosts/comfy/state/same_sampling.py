"""Check whether a state fits what is about to be sampled, and say why if it does not."""

from typing import NamedTuple

from ....attention.noise_levels import first_difference, told_apart
from ..errors import BadInputError
from ..model.settings import count_by_block
from .comfy_state import Origin

SAME_CHECKPOINT = "Use the same checkpoint."
SAME_SETTINGS = "Make both with the same settings."


class Pair(NamedTuple):
    """Something that must be the same in the state and in this run, and the texts if it is not.

    made, now: its values in the state and in this run. problem: a sentence with gaps for both.
    fix: what the user can do.
    """

    made: str
    now: str
    problem: str
    fix: str


def check_origin(made: Origin, now: Origin) -> None:
    """Raise BadInputError, which shows both values, if a state does not fit this sampling."""
    for pair in (*_of_model(made, now), *_of_sampling(made, now), *_of_attention(made, now)):
        if pair.made != pair.now:
            problem = pair.problem.format(pair.made, pair.now)
            raise BadInputError("state", problem, pair.fix)


def _of_model(made: Origin, now: Origin) -> list[Pair]:
    return [
        Pair(
            made.model,
            now.model,
            "it was made with a model of the kind {}, but the model of this run is of the kind {}.",
            SAME_CHECKPOINT,
        ),
        Pair(
            "" if made.same_weights(now) else "other",
            "",
            "it was made with another checkpoint's weights.",
            SAME_CHECKPOINT,
        ),
        Pair(
            made.dtype,
            now.dtype,
            "it was computed in {}, but this run computes in {}.",
            "Start ComfyUI with the same precision.",
        ),
        Pair(
            _size(made.latent),
            _size(now.latent),
            "it was made with latents of {}, but the latents of this run have {}.",
            "Use frames of one size.",
        ),
    ]


def _of_sampling(made: Origin, now: Origin) -> list[Pair]:
    place = first_difference(made.sigmas, now.sigmas)
    levels = ("", "")
    if place is not None and len(made.sigmas) == len(now.sigmas):
        levels = told_apart(made.sigmas[place], now.sigmas[place])
    return [
        Pair(
            str(max(len(made.sigmas) - 1, 0)),
            str(max(len(now.sigmas) - 1, 0)),
            "it was made with {} steps, but this run has {} steps.",
            "Set the same number of steps.",
        ),
        Pair(
            levels[0],
            levels[1],
            f"its noise levels are not those of this run: number {(place or 0) + 1} is {{}} in "
            "the state and {} in this run.",
            "Set the same scheduler and denoise.",
        ),
        Pair(
            made.sampler,
            now.sampler,
            "it was made with the sampler {}, but this run uses the sampler {}.",
            "Choose the same sampler.",
        ),
    ]


def _of_attention(made: Origin, now: Origin) -> list[Pair]:
    parts = [_part(made.part), _part(now.part)]
    if first_difference(made.part, now.part) is None:
        parts[0] = parts[1]
    return [
        Pair(
            _blocks(made.layers),
            _blocks(now.layers),
            "it was made with the layers {}, but this run has the layers {}.",
            SAME_SETTINGS,
        ),
        Pair(
            _channels(made.layers),
            _channels(now.layers),
            "its layers have {} channels, but the layers of this run have {}.",
            SAME_SETTINGS,
        ),
        Pair(
            parts[0],
            parts[1],
            "it was made with cross-frame attention {}, but in this run it acts {}.",
            SAME_SETTINGS,
        ),
        Pair(
            _fusion(made.fusion),
            _fusion(now.fusion),
            "it was made {}, but this run is made {}.",
            SAME_SETTINGS,
        ),
        Pair(
            _prompts(made.guidance),
            _prompts(now.guidance),
            "it was made with {}, but this run has {}.",
            "Use as many prompts, and set cfg to 1 in both or in neither.",
        ),
    ]


def _size(latent: tuple[int, ...]) -> str:
    channels, *_, height, width = latent
    return f"{width} x {height} with {channels} channels"


def _blocks(layers: tuple[tuple, ...]) -> str:
    """Write how many layers there are in each block of a U-Net, or a transformer's layer set."""
    if not layers:
        return "none (without cross-frame attention)"
    if all(len(layer) == 1 for layer in layers):
        return ", ".join(f"'{name}'" for (name,) in layers)
    return count_by_block(layers)


def _channels(layers: tuple[tuple, ...]) -> str:
    return ", ".join(str(layer[3]) for layer in layers if len(layer) > 3)


def _part(part: tuple[float, float]) -> str:
    return f"from {part[0]:g} to {part[1]:g} of the denoising"


def _fusion(fusion: tuple) -> str:
    if not fusion:
        return "without fusion"
    first, last, start, end, to = fusion
    return f"with frames fused to {to} by {first:g} to {last:g} {_part((start, end))}"


def _prompts(guidance: tuple[tuple[str, int], ...]) -> str:
    """Write the numbers of prompts, e.g. "1 positive prompt and 2 negative prompts"."""
    return " and ".join(
        f"{count} {name} prompt{'' if count == 1 else 's'}" for name, count in guidance
    )
