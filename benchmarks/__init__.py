"""Measurements; run them with `python tools/module.py benchmarks.<name>`."""
