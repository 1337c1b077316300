"""Where each pixel of a frame lies in another frame; it imports no host (ComfyUI, diffusers)."""

from .correspondence import Correspondence, inside, pixel_grid, sample
from .estimators import BUILT_IN, METHODS, RAFT, BuiltIn, Estimator, Network
from .motion import EstimatedMotion, Motion, check_frames, shrunk_to
from .pair import PairMotion, on_grid

__all__ = [
    "BUILT_IN",
    "METHODS",
    "RAFT",
    "BuiltIn",
    "Correspondence",
    "EstimatedMotion",
    "Estimator",
    "Motion",
    "Network",
    "PairMotion",
    "check_frames",
    "inside",
    "on_grid",
    "pixel_grid",
    "sample",
    "shrunk_to",
]
