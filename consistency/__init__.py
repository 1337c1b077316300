"""Measures of how steady a clip is, with exact or with estimated motion. Pure torch."""

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
    "class_distance",
    "colour_spread",
    "fine_detail",
    "frames_not_finite",
    "layout_accuracy",
    "mean_colours",
    "warp_error",
    "warp_error_map",
]
