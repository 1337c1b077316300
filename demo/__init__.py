"""A small world with exact truth, a model trained on it, and what they show. Not for ComfyUI."""
