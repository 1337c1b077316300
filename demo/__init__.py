"""A small world with exact ground truth, a model trained on it, and scripts that use both.

The pack does not need it in ComfyUI, except for the files of the demo nodes.
"""
