"""Thin translations of each host's conventions into layers, steps, cond entries and frames."""
