"""Hooks with keyframes: ComfyUI leaves them at the last one, but frames begin at the first."""

import pytest
import tiny
from graphs import CLIP, Extra, Graph, Parts, Plan


@pytest.mark.parametrize(("stages", "sigmas"), [(1, "all"), (2, "all"), (1, "last step")])
def test_every_frame_finds_the_keyframes_as_the_first_one_does(sd15, stages, sigmas):
    """This holds in the first run, and after a first stage has left them at its end.

    Each order gets hooks of its own, so that both are in the same place before. In a run of one
    step, the noise level at which a frame begins is the one at which the frame before has ended.
    There ComfyUI takes a keyframe for chosen if nobody puts it back.
    """
    plan = Plan(
        frames=3,
        layers="up",
        denoise=1.0,
        steps=4,
        stages=stages,
        sigmas=sigmas,
        extras=(Extra("hooks", CLIP), Extra("hooks")),
    )
    together = Graph.build(plan, Parts()).paint()
    one_by_one = Graph.build(plan, Parts()).paint(frame_by_frame=True)
    assert tiny.error(one_by_one, together) < 1e-4
