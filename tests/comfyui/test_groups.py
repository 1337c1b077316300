"""Frames that need one another are painted together, and both orders give the same frames.

No policy that users can choose names a later frame yet. These are policies of the tests.
"""

import dataclasses
from dataclasses import dataclass

import pytest
import tiny
import torch
from crossframe.attention import Policy
from crossframe.attention.references import as_reference
from graphs import CLIP, Control, Extra, Graph, Plan


@dataclass(frozen=True)
class Keyframes(Policy):
    """Frames 1 and 4 see each other; all others see both, and the frame before them."""

    keys: tuple[int, ...] = (1, 4)

    def references(self, frame):
        return self.keys if frame in self.keys else (*self.keys, max(frame - 1, 0))


@dataclass(frozen=True)
class Backwards(Policy):
    """Every frame attends to the one after it; the last one to itself."""

    last: int = 5

    def references(self, frame):
        return (min(frame + 1, self.last),)


PLANS = {
    "plain": Plan(frames=6),
    "noise on the way": Plan(frames=6, sampler="dpmpp_2m_sde"),
    "hints, prompts and masks per frame": Plan(
        frames=6,
        prompts=CLIP,
        noise_mask=CLIP,
        controls=(Control(),),
        extras=(Extra("mask", CLIP), Extra("default")),
    ),
    "a patch with one row per frame": Plan(frames=6, patch=True),
    "SDXL in a part of the denoising": Plan(frames=6, family="sdxl", end_percent=0.6, denoise=1.0),
}


def patched(graph, policy, frames_per_batch=0):
    """The graph's MODEL with a policy of the test."""
    from crossframe.hosts.comfy.attach import attach_settings
    from crossframe.hosts.comfy.model.carried import settings_of

    model = graph.patched(frames_per_batch)
    settings = dataclasses.replace(settings_of(model.model_options), policy=policy)
    bare = graph.model
    if graph.plan.patch:
        from graphs import with_rows

        bare = with_rows(bare, graph.plan.frames)
    return attach_settings(bare, settings)


@pytest.mark.parametrize("policy", [Keyframes(), Backwards()], ids=["keyframes", "backwards"])
@pytest.mark.parametrize("name", PLANS)
def test_both_orders_and_any_batches(parts, name, policy):
    graph = Graph.build(PLANS[name], parts)
    expected = graph.paint(model=patched(graph, policy))
    for frames_per_batch in (1, 2, 4):
        frames = graph.paint(model=patched(graph, policy, frames_per_batch))
        assert tiny.error(frames, expected) < 1e-4
    frames = graph.paint(frame_by_frame=True, model=patched(graph, policy))
    assert tiny.error(frames, expected) < 1e-4
    usual = graph.paint()
    assert tiny.error(usual, expected) > 0.01


def test_an_interrupted_run_goes_on_with_the_next_group(parts, monkeypatch, tmp_path):
    """Keyframes are painted first, so what is kept on disk is not in the order of the clip."""
    import folder_paths
    from crossframe.hosts.comfy.orders import sampler_nodes
    from crossframe.hosts.comfy.page.notes import Notes
    from crossframe.hosts.comfy.state.record import Record

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(sampler_nodes, "open_record", lambda *_: Record("run", Notes()))
    graph = Graph.build(PLANS["noise on the way"], parts)
    model = patched(graph, Keyframes())
    expected = graph.paint(frame_by_frame=True, model=model)
    for painted in range(1, 5):  # groups
        calls = []

        def stop(apply_model, args):
            calls.append(len(args["input"]))  # noqa: B023
            if len(calls) > graph.plan.steps * painted:  # noqa: B023
                raise KeyboardInterrupt
            return apply_model(args["input"], args["timestep"], **args["c"])

        stopping = model.clone()
        stopping.set_model_unet_function_wrapper(stop)
        with pytest.raises(KeyboardInterrupt):
            graph.paint(frame_by_frame=True, model=stopping, resume=True)
        assert calls[: graph.plan.steps] == [4] * graph.plan.steps  # two frames, two prompts
        assert torch.equal(graph.paint(frame_by_frame=True, model=model, resume=True), expected)
        assert not any(tmp_path.rglob("*.safetensors"))


def test_a_clip_goes_on_from_keyframes(parts):
    """The second part of a clip attends to keyframes that the first part has painted."""
    graph = Graph.build(Plan(frames=6), parts)
    model = patched(graph, Keyframes((1, 2)))
    whole = graph.paint(frame_by_frame=True, model=model)
    first, _, state = graph.part(0, 4).sample(True, model, keep_state=True)
    assert state.held == {1, 2, 3}
    rest = graph.part(4, 6).paint(True, model, state=state)
    assert torch.equal(torch.cat([first["samples"], rest]), whole)


def test_a_weight_is_how_often_a_frame_counts(parts):
    """The same frames as if the reference were named as many times."""

    @dataclass(frozen=True)
    class Named(Policy):
        weight: int
        times: int

        def references(self, frame):
            first = dataclasses.replace(as_reference(0), weight=self.weight)
            return (*[first] * self.times, max(frame - 1, 0))

    graph = Graph.build(Plan(), parts)
    heavy = graph.paint(model=patched(graph, Named(3, 1)))
    assert tiny.error(heavy, graph.paint(model=patched(graph, Named(1, 3)))) < 1e-4
    assert tiny.error(heavy, graph.paint(model=patched(graph, Named(1, 1)))) > 0.01


def test_a_policy_that_names_frames_beyond_the_clip_is_refused(parts):
    graph = Graph.build(Plan(frames=5), parts)
    for frame_by_frame in (False, True):
        with pytest.raises(ValueError, match="frame 4 attend to"):
            graph.paint(frame_by_frame=frame_by_frame, model=patched(graph, Backwards(5)))
