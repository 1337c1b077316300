"""What travels with a MODEL through ComfyUI's options.

There is one slot, in `transformer_options`, and one type in it. ComfyUI copies dicts there at every
call, but no other objects, so that what is put in reaches every wrapper and every attn1 patch.
"""

from dataclasses import dataclass, replace
from typing import Any

from .settings import KEY, Settings


@dataclass(frozen=True)
class Carried:
    """What is in the slot.

    settings: the user's choice; there from the CrossFrameAttention node on. run: the `ComfyRun`
    of a sampling in progress. evaluation: the `ComfyEvaluation` of the model call in progress.
    trial: a `Trial`, instead of a run, while guidance is tried without the model. Their types are
    those of rooms further down, so that this one does not import them.
    """

    settings: Settings
    run: Any = None
    evaluation: Any = None
    trial: Any = None


def carried_in(transformer_options: dict) -> Carried | None:
    """Return what transformer options carry; None without cross-frame attention."""
    carried: Carried | None = transformer_options.get(KEY)
    return carried


def carried_by(model_options: dict) -> Carried | None:
    """Return what model options carry; None without cross-frame attention."""
    return carried_in(model_options.get("transformer_options", {}))


def settings_of(model_options: dict) -> Settings:
    """Return the settings that model options carry. Raises LookupError if there are none."""
    carried = carried_by(model_options)
    if carried is None:
        raise LookupError("these model options carry no cross-frame attention")
    return carried.settings


def run_of(model_options: dict) -> Any:
    """Return the run that model options carry, if a sampling is in progress."""
    carried = carried_by(model_options)
    return None if carried is None else carried.run


def carrying(model_options: dict, **changes: Any) -> dict:
    """Return model options that carry something else; the given ones stay as they are.

    changes: fields of `Carried`. Raises KeyError without cross-frame attention.
    """
    options = model_options["transformer_options"]
    carried: Carried = options[KEY]
    options = {**options, KEY: replace(carried, **changes)}
    return {**model_options, "transformer_options": options}
