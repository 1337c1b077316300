"""Thin translations of a host's conventions into layer, step, cond entry and frame."""
