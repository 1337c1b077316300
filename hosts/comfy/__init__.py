"""ComfyUI: attach cross-frame attention to a MODEL, sample a clip in either order of work."""
