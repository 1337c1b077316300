"""Test whether the guidance between model and sampler treats the frames of a clip alike.

A guider, its cfg functions and the wrappers around them get predictions for a batch of rows and
combine them into one. Most of them work on each row by itself. Some weigh rows by their number,
look at means over all rows, or keep something from one call to the next. These would give another
result frame by frame. No list can name them all, so they are tried on made-up rows and predictions,
once with all rows together and once row after row. Both must give the same result.

The model is not run. Everything is tried on copies (see `rebuild.py`), so that no trace is left.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInputError
from ..model.owners import innermost, owner_of
from ..model.rebuild import Rebuilding
from ..model.settings import KEY
from ..noise.row_noise import RowNoise
from ..rows.held_tensors import holding
from ..rows.patches import GUIDANCE, functions_in, places_of_guidance, rows_of

ROWS = 6  # how many rows of a clip are tried at most
LEVELS = 100  # at how many noise levels they are tried at most
TOLERANCE = 1e-4  # of the standard deviation; differences in rounding are far below
# Attributes of a guider that its arithmetic does not change and that are too large to copy.
_WHOLE = frozenset(
    {"conds", "original_conds", "model_options", "model_patcher", "inner_model", "loaded_models"}
)


@dataclass(frozen=True)
class Trial:
    """Travels in place of a run; the pack's wrapper then returns its predictions."""

    def predictions(self, conds: Sequence, x: Tensor, timestep: Tensor) -> list[Tensor]:
        """Return a made-up prediction of x, (rows, ...), for each cond index.

        Each row is computed by itself.
        """
        made = []
        level = timestep.view(-1, *[1] * (x.ndim - 1))
        clean = x / (1 + level)  # (rows, channels, height, width), as in `_levels`
        for index, cond in enumerate(conds):
            if cond is None:
                made.append(torch.zeros_like(x))
                continue
            generator = torch.Generator().manual_seed(index)
            pattern = torch.randn(x.shape[1:], generator=generator).to(x)
            # It has another form for each index, so that no guidance can make them cancel out.
            made.append(clean + 0.3 * torch.tanh(clean * (1 + index)) + pattern * (0.5 + index))
        return made


@dataclass(frozen=True)
class TrialClip:
    """The part of a clip that is tried.

    frames: the number of frames in the clip. rows: the places of the frames that are tried. x:
    made-up latents of these, (rows, channels, height, width). sigmas: noise levels, in the order of
    the sampling. numbers: the number of the noise draw that each row gets. seed: the seed of the
    sampling.
    """

    frames: int
    rows: tuple[int, ...]
    x: Tensor
    sigmas: Tensor
    numbers: tuple[int, ...]
    seed: int | None

    @classmethod
    def of(cls, latent: Tensor, sigmas: Tensor, numbers: Sequence[int], seed) -> "TrialClip":
        """Make up rows of a clip. latent: an example of a frame, (1, channels, height, width)."""
        frames = len(numbers)
        count = min(frames, ROWS)
        rows = tuple(round(i * (frames - 1) / max(count - 1, 1)) for i in range(count))
        generator = torch.Generator().manual_seed(0)
        x = torch.randn((count, *latent.shape[1:]), generator=generator)
        scale = torch.linspace(0.5, 2, count).view(-1, *[1] * (x.ndim - 1))
        steps = max(len(sigmas) - 1, 1)
        chosen = [i * steps // min(steps, LEVELS) for i in range(min(steps, LEVELS))]
        levels = sigmas[chosen].to(latent)
        x = (x * scale + scale).to(latent)
        return cls(frames, rows, x, levels, tuple(numbers[row] for row in rows), seed)


@dataclass(frozen=True)
class Verdict:
    """The result of a trial.

    cut: whether functions hold one row per frame, so that every frame needs its own row. untried:
    owners of functions that could not be tried, because they need more than made-up predictions.
    """

    cut: bool = False
    untried: tuple[str, ...] = ()


def check_guidance(guider, model_options: dict, clip: TrialClip) -> Verdict:
    """Refuse guidance that does not treat frames alike, and name its owner.

    guider: the guider while it samples. model_options: the options that it samples with. Raises
    BadInputError.
    """
    if clip.frames < 2:
        return Verdict()
    shared = _shared_with_patches(model_options)
    model_options = _with_only(model_options, lambda function: function not in shared)
    unknown = tuple(dict.fromkeys(map(owner_of, shared)))
    for cut in (False, True):
        if _mixes(guider, model_options, clip, cut) is False:
            return Verdict(cut or bool(shared), unknown)
    untried = [*unknown]
    for function in dict.fromkeys(_candidates(model_options)):
        alone = [
            _mixes(guider, _with_only(model_options, partial(is_, function)), clip, cut)
            for cut in (False, True)
        ]
        if all(alone):
            raise _refusal(owner_of(function))
        if False not in alone:
            untried.append(owner_of(function))
    if _mixes(guider, model_options, clip, True):
        raise _refusal(type(guider).__name__)
    return Verdict(True, tuple(untried) or (type(guider).__name__,))


def _refusal(owner: str) -> BadInputError:
    return BadInputError(
        "model",
        f"{owner} does not treat the frames of a clip alike: it weighs them by their number or "
        "by what the other frames are, but frame by frame it sees only one frame at a time.",
        f"Sample with a stock sampler node, where {owner} sees all frames at every step, or "
        f"remove {owner}.",
    )


def _candidates(model_options: dict) -> list[Callable]:
    """Return the functions and wrappers between model and sampler, except this pack's."""
    found = list(functions_in([model_options.get(name) for name in GUIDANCE]))
    wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
    for kind in ("predict_noise", "calc_cond_batch"):
        found += functions_in(wrappers.get(kind, {}), skip=(KEY,))
    return found


def _shared_with_patches(model_options: dict) -> list[Callable]:
    """Return functions between model and sampler that share data with patches of the model.

    They may read what a patch has seen inside the model, which is not run here.
    """
    inside = model_options.get("transformer_options", {})
    kept = {
        number
        for name in ("patches", "patches_replace")
        for patch in functions_in(inside.get(name, {}))
        for number in _kept_by(patch)
    }
    return [found for found in _candidates(model_options) if kept & _kept_by(found)]


def _kept_by(function: Callable) -> set[int]:
    """Return the ids of a function's closure cells and of the object that it is a method of."""
    owner = getattr(function, "__self__", None)
    cells = getattr(innermost(function), "__closure__", None) or ()
    return {id(cell) for cell in cells} | ({id(owner)} if owner is not None else set())


def _with_only(model_options: dict, wanted: Callable[[Callable], bool]) -> dict:
    """Return model options with only the wanted functions between model and sampler."""
    options = dict(model_options)
    for name in GUIDANCE:
        held = options.get(name)
        if isinstance(held, list):
            options[name] = [other for other in held if wanted(other)]
        elif held is not None and not wanted(held):
            del options[name]
    inside = dict(options.get("transformer_options", {}))
    wrappers = dict(inside.get("wrappers", {}))
    for kind in ("predict_noise", "calc_cond_batch"):
        wrappers[kind] = {
            key: [other for other in found if key == KEY or wanted(other)]
            for key, found in wrappers.get(kind, {}).items()
        }
    return {**options, "transformer_options": {**inside, "wrappers": wrappers}}


def _mixes(guider, model_options: dict, clip: TrialClip, cut: bool) -> bool | None:
    """Return whether rows give other results together than one by one; None if the trial fails.

    cut: whether functions hold only the rows of the frames that they are given.
    """
    try:
        together = _together(guider, model_options, clip, cut)
        alone = _one_after_another(guider, model_options, clip, cut)
    except _Remembers:
        return True
    except Exception:  # other packs' code, which may need something that is missing here
        return None
    if together.shape != alone.shape:
        return True
    tolerance = TOLERANCE * float(together.nan_to_num().std())
    return not torch.allclose(together, alone, rtol=0, atol=tolerance, equal_nan=True)


def _together(guider, model_options: dict, clip: TrialClip, cut: bool) -> Tensor:
    """Return the results of all rows in one batch, (levels, rows, channels, height, width)."""
    guider, options = _apart(guider, model_options)
    with _held(options, clip.rows, clip, cut):
        return _levels(guider, options, clip, clip.x, clip.numbers)


def _one_after_another(guider, model_options: dict, clip: TrialClip, cut: bool) -> Tensor:
    """Return the result of each row by itself, (levels, rows, channels, height, width)."""
    guider, options = _apart(guider, model_options)
    outcomes = []
    for place, row in enumerate(clip.rows):
        one = slice(place, place + 1)
        with _held(options, [row], clip, cut):
            outcomes.append(_levels(guider, options, clip, clip.x[one], clip.numbers[one]))
    return torch.cat(outcomes, dim=1)


class _Remembers(Exception):  # noqa: N818  (a sign within this file, not an error)
    """A function has replaced what looked like rows of the clip, so they are something else."""


@contextmanager
def _held(options: dict, rows: Sequence[int], clip: TrialClip, cut: bool) -> Iterator[None]:
    """Let functions hold only the rows of some frames, if `cut` says so.

    Raises _Remembers if a function replaces what it holds. A running average, for instance,
    may have as many rows as the clip after an earlier sampling, and belongs to that sampling.
    """
    places = places_of_guidance(options) if cut else []
    with holding(places, rows_of(rows, clip.frames)):
        held = [place.get() for place in places]
        yield
        if any(place.get() is not before for place, before in zip(places, held)):
            raise _Remembers


def _levels(guider, options: dict, clip: TrialClip, x: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return the guider's predictions for rows at each noise level, (levels, rows, ...)."""
    guider.model_options = options
    with RowNoise(lambda: numbers, x.shape, clip.seed).active():
        outcomes = [
            guider(x * (1 + sigma), sigma * x.new_ones(len(x)), options, clip.seed)
            for sigma in clip.sigmas
        ]
    return torch.stack(outcomes)


def _apart(guider, model_options: dict) -> tuple[Any, dict]:
    """Return copies of a guider and its model options, with a trial in place of the run."""
    copying = Rebuilding(torch.clone, apart=True)
    inside = model_options.get("transformer_options", {})
    options = {name: copying.of(model_options[name]) for name in GUIDANCE if name in model_options}
    patches = {name: copying.of(value) for name, value in inside.items() if name != KEY}
    carried = replace(inside[KEY], run=None, evaluation=None, trial=Trial())
    options = {**model_options, **options, "transformer_options": {**patches, KEY: carried}}
    twin = copy.copy(guider)
    for name, value in vars(guider).items():
        if name not in _WHOLE:
            setattr(twin, name, copying.of(value))
    return twin, options
