"""Noise for each frame: what frames start from, and what samplers add during sampling."""
