"""Other nodes that cannot work together with cross-frame attention, or only in part.

Each is recognised by what it leaves on a MODEL or in conds, or by its guider, and refused by name
before anything is sampled. Everything else is expected to work; the table in docs/compatibility.md
says what is tested.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import BadInputError
from ..model.kinds import other_counts
from ..model.owners import module_of, owner_of
from ..model.settings import KEY
from ..rows.patches import functions_in, owners_of_uncut_rows

PER_STEP = "all frames per step"
FRAME_BY_FRAME = "frame by frame"
IN_BATCHES = "all frames per step, in several batches"
EVERYWHERE = frozenset({PER_STEP, FRAME_BY_FRAME, IN_BATCHES})


@dataclass(frozen=True)
class Neighbour:
    """Another node that is incompatible in some ways of working.

    found: whether a guider uses it. refused: the ways of working in which it is refused. problem,
    fix: the texts of the error. input: the name of our input through which it comes.
    """

    name: str
    found: Callable[[Any], bool]
    refused: frozenset[str]
    problem: str
    fix: str
    input: str = "model"


def made_by(owner: str) -> Callable[[Any], bool]:
    """Return a check whether a MODEL has a patch that was defined in class `owner`."""

    def found(guider) -> bool:
        return any(
            getattr(function, "__qualname__", "").startswith(f"{owner}.")
            for function in _patches(guider.model_options)
        )

    return found


def _patches(model_options: dict) -> Iterator[object]:
    """Yield every patch function in model options."""
    options = model_options.get("transformer_options", {})
    for functions in options.get("patches", {}).values():
        yield from functions
    for replacements in options.get("patches_replace", {}).values():
        yield from replacements.values()
    for name in ("sampler_pre_cfg_function", "sampler_post_cfg_function"):
        yield from model_options.get(name, [])


def wrapped_by(key: str) -> Callable[[Any], bool]:
    """Return a check whether a MODEL has a wrapper with this key."""

    def found(guider) -> bool:
        # ComfyUI moves wrappers from the MODEL into its options when a sampling starts.
        options = guider.model_options.get("transformer_options", {})
        kinds = [*guider.model_patcher.wrappers.values(), *options.get("wrappers", {}).values()]
        return any(key in wrappers for wrappers in kinds)

    return found


def _names_inside(guider) -> Iterator[str]:
    """Yield the names of other packs' functions between the batching of conds and the model."""
    options = guider.model_options.get("transformer_options", {})
    places = [options, guider.model_options.get("model_function_wrapper")]
    for function in functions_in([*places, guider.model_patcher.wrappers], skip=(KEY,)):
        if not module_of(function).startswith(("comfy.", "comfy_extras.")):
            yield f"{module_of(function)} {getattr(function, '__qualname__', '')}"
            yield owner_of(function)


def controlled_by(kind: str) -> Callable[[Any], bool]:
    """Return a check whether a guider's conds have a ControlNet of this class in a chain."""

    def found(guider) -> bool:
        controls = [
            cond.get("control") for conds in guider.original_conds.values() for cond in conds
        ]
        while controls:
            control = controls.pop()
            if control is not None:
                if type(control).__name__ == kind:
                    return True
                controls.append(control.previous_controlnet)
        return False

    return found


NEIGHBOURS = (
    Neighbour(
        "Context Windows",
        lambda guider: "context_handler" in guider.model_options,
        EVERYWHERE,
        "Context Windows hide which frames of the clip are run.",
        "Remove the Context Windows node and set frames_per_batch instead.",
    ),
    Neighbour(
        "MultiGPU",
        lambda guider: bool(guider.model_patcher.get_additional_models_with_key("multigpu")),
        EVERYWHERE,
        "it is spread over several GPUs, which run the conds of a step in separate threads.",
        "Remove the MultiGPU node.",
    ),
    Neighbour(
        "AnimateDiff-Evolved",
        wrapped_by("ADE"),
        EVERYWHERE,
        "AnimateDiff's motion modules already connect the frames with each other and regroup them.",
        "Use either AnimateDiff or cross-frame attention for a clip.",
    ),
    Neighbour(
        "HyperTile",
        made_by("HyperTile"),
        EVERYWHERE,
        "HyperTile cuts the frames into tiles of random size, which have no counterparts in "
        "other frames.",
        "Remove the HyperTile node.",
    ),
    Neighbour(
        "FluxKVCache",
        made_by("FluxKVCache"),
        EVERYWHERE,
        "Flux KV Cache keeps keys of reference pictures from one model call for the next, which is "
        "about other frames.",
        "Remove the Flux KV Cache node.",
    ),
    Neighbour(
        "EasyCache",
        wrapped_by("easycache"),
        frozenset({FRAME_BY_FRAME, IN_BATCHES}),
        "EasyCache skips model calls and keeps one result per cond, not one per frame.",
        "Remove EasyCache, or sample all frames per step in one batch (a stock sampler node, "
        "frames_per_batch 0).",
    ),
    Neighbour(
        "LazyCache",
        wrapped_by("lazycache"),
        frozenset({FRAME_BY_FRAME}),
        "LazyCache skips different steps in each frame, so frames have no steps in common.",
        "Remove LazyCache, or use a stock sampler node, which decides for all frames at once.",
    ),
    Neighbour(
        "a cache of another pack",
        lambda guider: any("cache" in name.lower() for name in _names_inside(guider)),
        frozenset({IN_BATCHES}),
        "a cache of another pack (TeaCache, DeepCache, ...) keeps the result of one model call for "
        "the next call, but with several batches the next call is about other frames.",
        "Set frames_per_batch to 0, or remove the cache.",
    ),
    Neighbour(
        "PerpNegGuider",
        lambda guider: type(guider).__name__ == "Guider_PerpNeg",
        frozenset({FRAME_BY_FRAME}),
        "PerpNegGuider weighs the prompts by all frames of the clip together.",
        "Use SamplerCustomAdvanced, which samples all frames at every step.",
    ),
    Neighbour(
        "Self-Attention Guidance",
        made_by("SelfAttentionGuidance"),
        frozenset({IN_BATCHES}),
        "Self-Attention Guidance looks at only one model call.",
        "Set frames_per_batch to 0, or remove Self-Attention Guidance.",
    ),
    Neighbour(
        "Advanced-ControlNet's reference",
        controlled_by("ReferenceAdvanced"),
        frozenset({FRAME_BY_FRAME, IN_BATCHES}),
        "a reference of Advanced-ControlNet runs the model twice in every call.",
        "Sample all frames per step in one batch (a stock sampler node, frames_per_batch 0), or "
        "use Cross-Frame Attention's own references.",
        "positive",
    ),
)


def check_neighbours(guider, way: str, clip: int) -> None:
    """Refuse a guider with a node that is incompatible with a way of working.

    way: PER_STEP, FRAME_BY_FRAME or IN_BATCHES. clip: the number of frames in the clip. Raises
    BadInputError.
    """
    for neighbour in NEIGHBOURS:
        if way in neighbour.refused and neighbour.found(guider):
            raise BadInputError(neighbour.input, neighbour.problem, neighbour.fix)
    if way == PER_STEP:
        return
    for owner in _holders_of_rows(guider, clip):
        raise BadInputError(
            "model",
            f"{owner} holds numbers that may be one row for each of the {clip} frames, or "
            "something else of which there are equally many. So it is not known which of them "
            "belong to the frames that are run.",
            f"Sample all frames per step in one batch (a stock sampler node, frames_per_batch "
            f"{clip}), or remove {owner}.",
        )


def _holders_of_rows(guider, clip: int) -> list[str]:
    counts = other_counts(guider.model_patcher)
    options = guider.model_options
    wrappers = guider.model_patcher.wrappers
    inside = {**options.get("transformer_options", {}), "wrappers of the model": wrappers}
    return owners_of_uncut_rows({**options, "transformer_options": inside}, clip, counts)


def needs_one_batch(guider, clip: int) -> bool:
    """Return whether a node on the guider's MODEL must see the whole clip in one model call."""
    listed = any(n.found(guider) for n in NEIGHBOURS if IN_BATCHES in n.refused)
    return listed or bool(_holders_of_rows(guider, clip))
