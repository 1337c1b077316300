"""The two orders of work: all frames per step, and frame by frame."""
