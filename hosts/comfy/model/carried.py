"""What travels with a MODEL through ComfyUI's options.

There is one slot, in `transformer_options`, and it holds one type. ComfyUI copies the dicts there
at every call, but no other objects, so the same object reaches every wrapper and every attn1 patch.
"""

from dataclasses import dataclass, replace
from typing import Any

from .settings import KEY, Settings


@dataclass(frozen=True)
class Carried:
    """The content of the slot.

    settings: the user's choice, present from the CrossFrameAttention node on. run: the `ComfyRun`
    of a sampling in progress. evaluation: the `ComfyEvaluation` of the model call in progress.
    trial: a `Trial`, instead of a run, while guidance is tried without the model. model_pass: what
    the attention of a transformer does in one pass through it, a `JointPass` or a `Recorder`. The
    last four are typed as Any, because their classes lie in packages that import this one.
    """

    settings: Settings
    run: Any = None
    evaluation: Any = None
    trial: Any = None
    model_pass: Any = None


def carried_in(transformer_options: dict) -> Carried | None:
    """Return what transformer options carry, or None without cross-frame attention."""
    carried: Carried | None = transformer_options.get(KEY)
    return carried


def carried_by(model_options: dict) -> Carried | None:
    """Return what model options carry, or None without cross-frame attention."""
    return carried_in(model_options.get("transformer_options", {}))


def settings_of(model_options: dict) -> Settings:
    """Return the settings that model options carry. Raises LookupError if there are none."""
    carried = carried_by(model_options)
    if carried is None:
        raise LookupError("these model options carry no cross-frame attention")
    return carried.settings


def run_of(model_options: dict) -> Any:
    """Return the run that model options carry, or None if no sampling is in progress."""
    carried = carried_by(model_options)
    return None if carried is None else carried.run


def carrying(model_options: dict, **changes: Any) -> dict:
    """Return model options with changes to what they carry; the given options stay as they are.

    changes: fields of `Carried`. Raises KeyError without cross-frame attention.
    """
    options = model_options["transformer_options"]
    carried: Carried = options[KEY]
    options = {**options, KEY: replace(carried, **changes)}
    return {**model_options, "transformer_options": options}
