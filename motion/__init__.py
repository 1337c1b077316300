"""Where each pixel of a frame lies in another frame; it imports no host (ComfyUI, diffusers)."""

from .correspondence import Correspondence, inside, pixel_grid, sample

__all__ = ["Correspondence", "inside", "pixel_grid", "sample"]
