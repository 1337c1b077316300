"""The demo model and clip, as ComfyUI objects."""
