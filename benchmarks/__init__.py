"""Measurements, which run with `python tools/module.py benchmarks.<name>`."""
