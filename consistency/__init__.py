"""Measures of how steady a clip is, with exact or with estimated motion. Pure torch."""

from .correspondence import Correspondence, sample
from .measures import (
    class_distance,
    colour_spread,
    fine_detail,
    frames_not_finite,
    layout_accuracy,
    mean_colours,
    warp_error,
    warp_error_map,
)

__all__ = [
    "Correspondence",
    "class_distance",
    "colour_spread",
    "fine_detail",
    "frames_not_finite",
    "layout_accuracy",
    "mean_colours",
    "sample",
    "warp_error",
    "warp_error_map",
]
