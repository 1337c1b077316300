"""Pure functions on latents; they import no host (ComfyUI, diffusers)."""
