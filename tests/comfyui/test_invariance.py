"""The same frames however ComfyUI groups, splits, interrupts or repeats the work.

A matrix: every graph by every road. To add a graph, add a line to GRAPHS; to add a road, a
function to `graphs.py`. What cannot work is in REFUSED, with the words of its error.
"""

import dataclasses
import functools

import bench
import pytest
import tiny
import torch
from graphs import CLIP, ONE, ROADS, Control, Extra, Graph, Plan, fails_in_call

GRAPHS = {
    "plain": Plan(),
    "cfg 1": Plan(cfg=1.0),
    "one frame": Plan(frames=1),
    "two frames": Plan(frames=2),
    "odd size": Plan(height=11, width=9),
    "two model calls per step": Plan(sampler="heun", steps=3),
    "noise on the way": Plan(sampler="dpmpp_2m_sde", steps=3),
    "same noise for every frame": Plan(
        sampler="euler_ancestral", frame_noise="same for every frame"
    ),
    "first": Plan(references="first"),
    "previous with self": Plan(references="previous", include_self=True),
    "layers up": Plan(layers="up"),
    "a part of the denoising": Plan(start_percent=0.4, end_percent=0.7, denoise=1.0, steps=5),
    "SDXL": Plan(family="sdxl"),
    "SDXL with ControlNet": Plan(family="sdxl", controls=(Control(),)),
    "inpaint model": Plan(family="inpaint"),
    "noise mask": Plan(noise_mask=ONE),
    "noise masks": Plan(noise_mask=CLIP),
    "prompt per frame": Plan(prompts=CLIP),
    "ControlNet": Plan(controls=(Control(),)),
    "ControlNets with ranges": Plan(
        controls=(Control(end=0.6), Control(hints=ONE, start=0.3)), denoise=1.0, steps=3
    ),
    "T2I-adapter": Plan(controls=(Control("t2i"),)),
    "T2I-adapter after ControlNet": Plan(controls=(Control(), Control("t2i"))),
    "T2I-adapter, one prompt with hooks": Plan(
        controls=(Control("t2i"),), extras=(Extra("hooks"), Extra())
    ),
    "two prompts": Plan(extras=(Extra(),)),
    "masked prompt": Plan(extras=(Extra("mask"),)),
    "masks per frame": Plan(extras=(Extra("mask", CLIP), Extra("bounds"))),
    "area": Plan(extras=(Extra("area"), Extra("area", CLIP))),
    "prompt in a range": Plan(extras=(Extra("range"),), denoise=1.0, steps=5),
    "LoRA hook with keyframes": Plan(extras=(Extra("hooks"),), denoise=1.0, steps=4),
    "DualCFG": Plan(guider="dual"),
    "Flux": Plan(family="flux"),
    "Flux, layers up": Plan(family="flux", layers="up", references="first"),
    "Flux, pictures per frame": Plan(family="flux", pictures=CLIP, include_self=True),
    "Flux, prompts and masks per frame": Plan(
        family="flux", prompts=CLIP, noise_mask=CLIP, extras=(Extra("mask", CLIP), Extra("default"))
    ),
    "Flux, areas": Plan(family="flux", extras=(Extra("area"), Extra("bounds"))),
    "Flux, LoRA hook with keyframes": Plan(
        family="flux", extras=(Extra("hooks"),), denoise=1.0, steps=4
    ),
    "Flux, a part of the denoising": Plan(
        family="flux", start_percent=0.2, end_percent=0.7, steps=3, cfg=1.5
    ),
    "Qwen-Image": Plan(family="qwen_image"),
    # Stock ComfyUI fails at prompts' masks with one row per frame on such latents.
    "Qwen-Image, masks": Plan(
        family="qwen_image", noise_mask=ONE, extras=(Extra("mask", ONE), Extra("default"))
    ),
    "Z-Image, mid + up": Plan(family="z_image", layers="mid + up", sampler="dpmpp_2m_sde"),
    "SD3.5": Plan(family="sd35_medium", prompts=CLIP, extras=(Extra("range"),), denoise=1.0),
    "weights": Plan(weights=(3.0, 1.0, 0.3), include_self=True),
    "weights, layers up, SDXL": Plan(family="sdxl", layers="up", weights=(1.0, 0.4, 1.0)),
    "keyframes": Plan(references="keyframes", keyframes="1, 3"),
    "keyframes with weights, hints and prompts per frame": Plan(
        references="keyframes + previous",
        keyframes="0 4",
        weights=(2.0, 0.5, 1.0),
        prompts=CLIP,
        controls=(Control(),),
        noise_mask=CLIP,
    ),
    "chosen keyframes": Plan(references="keyframes + previous", include_self=True),
    "Flux, weights": Plan(family="flux", weights=(1.0, 2.5, 1.0)),
    "Flux, keyframes with weights": Plan(
        family="flux", references="keyframes + previous", keyframes="2, 4", weights=(0.5, 1.0, 1.0)
    ),
    "Z-Image, keyframes": Plan(family="z_image", references="keyframes", keyframes="0, 2, 4"),
    "PerpNeg": Plan(guider="perp neg"),
}
REFUSED = {
    ("PerpNeg", "frame by frame"): "PerpNegGuider",
    ("PerpNeg", "frame by frame short of memory"): "PerpNegGuider",
}


@pytest.fixture(scope="module")
def expected(parts):
    """A function that gives the frames of a graph in one batch. Each graph is painted once."""

    @functools.cache
    def paint(name):
        with torch.inference_mode():
            return Graph.build(GRAPHS[name], parts).paint()

    return paint


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_by_every_road(parts, expected, monkeypatch, name, road):
    frames = expected(name)  # before the road changes what ComfyUI says about memory
    graph = Graph.build(GRAPHS[name], parts)
    if words := REFUSED.get((name, road)):
        bench.refuses(
            lambda: ROADS[road](graph, monkeypatch),
            match=rf"^CrossFrame\w+: input '\w+': .*{words}",
        )
    else:
        assert tiny.error(ROADS[road](graph, monkeypatch), frames) < 1e-4


def test_a_long_clip(parts):
    """More frames than one byte can count."""
    graph = Graph.build(Plan(frames=257, height=4, width=4, steps=1), parts)
    whole = graph.paint()
    assert tiny.error(graph.paint(model=graph.patched(100)), whole) < 1e-4
    assert tiny.error(graph.paint(frame_by_frame=True), whole) < 1e-4


@pytest.mark.parametrize("name", ["ControlNets with ranges", "masks per frame"])
def test_a_run_after_an_error_at_each_model_call(parts, name):
    plan = dataclasses.replace(GRAPHS[name], frames=3, steps=2)
    graph = Graph.build(plan, parts)
    model = graph.patched(2)
    counting, calls = bench.spied(model)
    expected = graph.paint(model=counting)
    assert len(calls) >= 4
    for call in range(len(calls)):
        fails_in_call(graph, model, call)
        assert torch.equal(graph.paint(model=model), expected)


@pytest.mark.parametrize("name", [n for n in GRAPHS if n not in ("plain", "one frame")])
def test_every_graph_is_a_case_of_its_own(parts, expected, name):
    """Cross-frame attention acts in it, and no two graphs are the same test."""
    graph = Graph.build(GRAPHS[name], parts)
    patched, plain = expected(name), graph.paint(model=graph.model)
    assert tiny.error(patched[1:], plain[1:]) > 0.01
    usual = expected("plain")
    assert patched.shape != usual.shape or tiny.error(patched, usual) > 0.01
    assert torch.isfinite(patched).all()
