"""Random graphs give equal frames in every order and batch size, and when they are run again.

25 graphs are drawn, the same each time; `CROSSFRAME_GRAPHS=500` draws more. A graph that once
failed is kept as an `example`.
"""

import os
from dataclasses import replace

import tiny
import torch
from crossframe.attention import REFERENCES, WITH_KEYFRAMES
from crossframe.latents.fusion import FIRST_AND_PREVIOUS, FUSED_TO, KEYFRAMES
from graphs import CLIP, ONE, Control, Extra, Graph, Plan
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sampler_names import DETERMINISTIC, STOCHASTIC

COUNT = int(os.environ.get("CROSSFRAME_GRAPHS", "25"))
ROWS = st.sampled_from([ONE, CLIP])
TRANSFORMERS = ("flux", "z_image", "sd35_medium")


@st.composite
def plans(draw) -> Plan:
    """Any graph that the pack takes."""
    family = draw(st.sampled_from(["sd15", "sd15", "sdxl", "inpaint", *TRANSFORMERS]))
    transformer = family in TRANSFORMERS
    kinds = ["controlnet"] if family == "sdxl" else ["controlnet", "t2i"]
    layers = draw(st.sampled_from(["up", "mid + up", "all", "up, loose"]))
    start = draw(st.sampled_from([0.0, 0.0, 0.3, 0.5]))
    controls = st.builds(
        Control,
        kind=st.sampled_from(kinds),
        hints=ROWS,
        start=st.sampled_from([0.0, 0.4]),
        end=st.sampled_from([0.6, 1.0]),
        # Only a ControlNet has self-attention, and only on the way down and in the middle.
        joins=st.booleans() if layers in ("mid + up", "all") else st.just(False),
    ).map(
        lambda control: control if control.kind == "controlnet" else replace(control, joins=False)
    )
    extras = st.builds(
        Extra,
        kind=st.sampled_from(["full", "mask", "bounds", "area", "range", "hooks", "default"]),
        rows=ROWS,
    )
    # ComfyUI's ControlNets need sizes that halve evenly; the U-Net alone takes any.
    chain = draw(st.lists(controls, max_size=0 if transformer else 2))
    stages = draw(st.sampled_from([1, 1, 2]))
    frames = draw(st.integers(1, 6))
    sides = st.sampled_from([8, 12] if chain else [8, 9, 11, 12])
    references = draw(st.sampled_from(REFERENCES))
    include_self = draw(st.booleans())
    return Plan(
        family=family,
        frames=frames,
        height=draw(sides),
        width=draw(sides),
        references=references,
        include_self=include_self,
        layers=layers,
        start_percent=start,
        end_percent=draw(st.sampled_from([0.7, 1.0])),
        sampler=draw(st.sampled_from(DETERMINISTIC + STOCHASTIC)),
        steps=draw(st.integers(1, 4)),
        cfg=draw(st.sampled_from([1.0, 4.0])),
        denoise=draw(st.sampled_from([0.5, 0.8, 1.0])),
        guider=draw(st.sampled_from(["cfg", "cfg", "dual"])),
        prompts=draw(ROWS),
        extras=tuple(draw(st.lists(extras, max_size=2))),
        controls=tuple(chain),
        noise_mask=draw(st.sampled_from([None, None, ONE, CLIP])),
        frame_noise=draw(st.sampled_from(["different per frame", "same for every frame"])),
        seed=draw(st.integers(0, 2**32)),
        guidance=draw(st.sampled_from([None, None, "rescale", "apg", "linear"])),
        # Rows of as many frames as there are channels or heads cannot be told from these.
        patch=draw(st.booleans()) and frames not in (2, 4) and not transformer,
        wrapped=draw(st.booleans()),
        # A second stage has no noise by which a stock sampler could tell the frames' numbers.
        first_index=draw(st.sampled_from([None, None, 3])) if stages == 1 else None,
        sigmas=draw(st.sampled_from(["all", "all", "all", "high", "low", "last step", "none"])),
        stages=stages,
        pictures=draw(ROWS) if family == "flux" and draw(st.booleans()) else None,
        keyframes=draw(keyframes(frames)) if references in WITH_KEYFRAMES else "",
        weights=draw(weights(references, include_self)),
        fused_to=draw(st.sampled_from([None, None, *FUSED_TO])),
    )


def keyframes(frames: int):
    """Some frames of a clip as text, or none."""
    return st.lists(st.integers(0, frames - 1), max_size=3).map(lambda f: ", ".join(map(str, f)))


@st.composite
def weights(draw, references: str, include_self: bool) -> tuple[float, float, float]:
    """Weights of what frames look at; 1 if it is the only thing."""
    used = (references != "previous", "previous" in references, include_self)
    if sum(used) < 2 or draw(st.booleans()):
        return (1.0, 1.0, 1.0)
    some = st.sampled_from([0.3, 1.0, 2.0, 7.0])
    first, previous, own = (draw(some) if is_used else 1.0 for is_used in used)
    return first, previous, own


@example(plan=Plan(), batch=2, cut=1)
@example(plan=Plan(extras=(Extra("hooks"), Extra()), controls=(Control("t2i"),)), batch=2, cut=2)
@example(plan=Plan(frames=1, steps=1, denoise=0.5, extras=(Extra("hooks"),)), batch=1, cut=1)
@example(plan=Plan(frames=2, steps=1, denoise=0.5, end_percent=0.4), batch=1, cut=1)
@example(plan=Plan(frames=2, steps=3, denoise=0.5, guidance="apg", stages=2), batch=1, cut=1)
@example(plan=Plan(frames=2, steps=2, denoise=0.5, guidance="apg", stages=2), batch=1, cut=1)
@example(plan=Plan(controls=(Control(joins=True), Control(joins=True))), batch=2, cut=2)
@example(plan=Plan(family="sdxl", controls=(Control(joins=True),)), batch=2, cut=2)
@given(plan=plans(), batch=st.integers(1, 5), cut=st.integers(1, 5))
@settings(
    max_examples=COUNT,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_graphs(parts, plan, batch, cut):
    graph = Graph.build(plan, parts)
    if any(extra.kind == "hooks" for extra in plan.extras):
        # ComfyUI's hooks come out of their first run with another keyframe than they went in, so
        # that a graph of one step is painted otherwise the first time, without the pack too.
        graph.paint(model=graph.model)
    model = graph.patched()
    # ComfyUI's lcm takes a step even if there is none, and fails, without the pack too.
    assume(plan.sampler != "lcm" or all(len(part) > 1 for part in graph.levels(model)))
    expected = graph.paint(model=model)
    assert torch.isfinite(expected).all()
    if plan.guidance != "apg" or len(graph.levels(model)[0]) > 2:
        # After one step, APG's running average does not begin again, without the pack neither.
        assert torch.equal(graph.paint(model=model), expected)
    model = graph.patched()
    assert tiny.error(graph.paint(model=graph.patched(batch)), expected) < 1e-3
    try:
        frames = graph.paint(frame_by_frame=True, model=model)
    except ValueError as error:
        if not may_be_refused(plan, str(error)):
            raise
        return
    assert tiny.error(frames, expected) < 1e-3
    if cut < plan.frames and goes_on(plan):
        assert tiny.error(in_pieces(graph, cut, model), expected) < 1e-3


def may_be_refused(plan: Plan, words: str) -> bool:
    """Whether a refusal names what really cannot be painted one by one.

    It is guidance that gives other frames, fusion to keyframes that are painted later, or fusion to
    previous frames of keyframes, which are painted first.
    """
    linear = plan.guidance == "linear" and "VideoLinearCFGGuidance" in words
    # With one step, a running average does not begin again with the next frame.
    apg = plan.guidance == "apg" and "APG" in words
    guidance = (linear or apg) and "does not treat the frames of a clip alike" in words
    looks_back = "previous" in plan.references or plan.references in WITH_KEYFRAMES
    later = plan.fused_to == KEYFRAMES and looks_back
    first = plan.fused_to == FIRST_AND_PREVIOUS and plan.references in WITH_KEYFRAMES
    return guidance or ((later or first) and "cannot be fused to" in words)


def goes_on(plan: Plan) -> bool:
    """Whether a clip in two pieces is the clip in one: each piece has its own of everything.

    The frames of the first piece cannot look at keyframes of the second. Its motion is that of a
    shorter clip; `test_fusion.py` has such pieces.
    A patch holds rows of the whole clip, a default prompt is decided by all frames' masks, and
    a second stage has no state of the first. torch draws noise in blocks of 16 numbers and the last
    16 of a draw by themselves, so a piece ends with other noise where a frame is no whole block.
    """
    default = any(extra.kind == "default" for extra in plan.extras)
    split = plan.height * plan.width * 4 % 16 and plan.frame_noise == "different per frame"
    ahead = plan.references in WITH_KEYFRAMES
    return not (
        ahead
        or plan.fused_to is not None
        or plan.patch
        or default
        or split
        or plan.stages > 1
        or plan.guidance == "linear"
    )


def in_pieces(graph: Graph, cut: int, model) -> torch.Tensor:
    """The frames of two samplings; the second goes on from the state that the first leaves."""
    output = graph.part(0, cut).sample(True, model, keep_state=True)
    rest = graph.part(cut, graph.plan.frames).paint(True, model, state=output[2])
    return torch.cat([output[0]["samples"], rest])
