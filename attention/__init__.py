"""Cross-frame attention as pure tensor logic; it imports no host (ComfyUI, diffusers)."""

from .bank import Bank, Key
from .layers import LAYER_SETS, Layer, LayerSet
from .painting_order import PaintingOrder
from .references import (
    REFERENCES,
    WITH_KEYFRAMES,
    Policy,
    Reference,
    Weights,
    WithSelf,
    reference_policy,
    with_scenes,
)
from .run import Evaluation, FrameByFrame, PerStep, Run, StepMismatchError
from .shared import attend_to_rows
from .state import State
from .storage import PRECISIONS, Storage

__all__ = [
    "LAYER_SETS",
    "PRECISIONS",
    "REFERENCES",
    "WITH_KEYFRAMES",
    "Bank",
    "Evaluation",
    "FrameByFrame",
    "Key",
    "Layer",
    "LayerSet",
    "PaintingOrder",
    "PerStep",
    "Policy",
    "Reference",
    "Run",
    "State",
    "StepMismatchError",
    "Storage",
    "Weights",
    "WithSelf",
    "attend_to_rows",
    "reference_policy",
    "with_scenes",
]
