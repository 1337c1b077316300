"""The same frames however ComfyUI groups, splits, interrupts or repeats the work.

A matrix: every graph by every road. To add a graph, add a line to GRAPHS; to add a road, a
function to `graphs.py`. What cannot work is in REFUSED, with the words of its error.
"""

import pytest
import tiny
import torch
from graphs import CLIP, ONE, ROADS, Control, Extra, Graph, Plan, failing, one_batch

GRAPHS = {
    "plain": Plan(),
    "cfg 1": Plan(cfg=1.0),
    "one frame": Plan(frames=1),
    "two frames": Plan(frames=2),
    "odd size": Plan(height=11, width=9),
    "257 frames": Plan(frames=257, height=4, width=4, steps=1),
    "two model calls per step": Plan(sampler="heun"),
    "noise on the way": Plan(sampler="dpmpp_2m_sde"),
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
        controls=(Control(end=0.6), Control(hints=ONE, start=0.3)), denoise=1.0
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
    "PerpNeg": Plan(guider="perp neg"),
}
REFUSED = {
    ("PerpNeg", "frame by frame"): "PerpNegGuider",
    ("PerpNeg", "frame by frame short of memory"): "PerpNegGuider",
}


@pytest.fixture(scope="module")
def expected():
    """Each graph's frames by the plain road, made once."""
    return {}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_by_every_road(parts, expected, monkeypatch, name, road):
    if GRAPHS[name].frames > 100 and road in ("after an error", "frame by frame short of memory"):
        pytest.skip("long clips by every other road")
    if name not in expected:
        expected[name] = one_batch(Graph.build(GRAPHS[name], parts), None)
    graph = Graph.build(GRAPHS[name], parts)
    if words := REFUSED.get((name, road)):
        with pytest.raises(ValueError, match=rf"^CrossFrame\w+: input '\w+': .*{words}"):
            ROADS[road](graph, monkeypatch)
    else:
        assert tiny.error(ROADS[road](graph, monkeypatch), expected[name]) < 1e-4


@pytest.mark.parametrize("name", ["ControlNets with ranges", "masks per frame"])
def test_a_run_after_an_error_at_each_model_call(parts, name):
    graph = Graph.build(GRAPHS[name], parts)
    model = graph.patched(3)
    expected = graph.paint(model=model)
    for call in range(failing(graph, model, None)):
        failing(graph, model, call)
        assert torch.equal(graph.paint(model=model), expected)


@pytest.mark.parametrize("name", [n for n in GRAPHS if n not in ("plain", "one frame")])
def test_every_graph_is_a_case_of_its_own(parts, name):
    """Cross-frame attention acts in it, and no two graphs are the same test."""
    graph = Graph.build(GRAPHS[name], parts)
    patched, plain = graph.paint(), graph.paint(model=graph.model)
    assert tiny.error(patched[1:], plain[1:]) > 0.01
    usual = Graph.build(Plan(), parts).paint()
    assert patched.shape != usual.shape or tiny.error(patched, usual) > 0.01
    assert torch.isfinite(patched).all()
