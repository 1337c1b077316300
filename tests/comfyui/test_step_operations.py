"""Step operations change the predicted frames the same way in both orders."""

from dataclasses import dataclass

import pytest
import tiny
import torch
from crossframe.latents.operations import Moment, StepOperation
from graphs import Graph, Plan


@dataclass(frozen=True)
class Brighten(StepOperation):
    """Adds to each frame a number of its own, the more the higher the noise level is."""

    moment: Moment = Moment.AFTER_GUIDANCE

    def __call__(self, x0, step):
        numbers = torch.tensor(step.places, dtype=x0.dtype).view(-1, 1, 1, 1)
        return x0 + 0.05 * (1 + numbers) * step.noise_level


@pytest.fixture
def operated(monkeypatch):
    """Give every run a step operation."""
    import dataclasses

    from crossframe.hosts.comfy.orders import frame_by_frame, wrappers
    from crossframe.hosts.comfy.run.comfy_run import new_run

    def give(operation):
        def begun(*args, **kwargs):
            run = new_run(*args, **kwargs)
            run.facts = dataclasses.replace(run.facts, operations=(operation,))
            return run

        monkeypatch.setattr(frame_by_frame, "new_run", begun)
        monkeypatch.setattr(wrappers, "new_run", begun)

    return give


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde"])
def test_both_orders(parts, operated, sampler, moment):
    graph = Graph.build(Plan(sampler=sampler), parts)
    usual = graph.paint()
    operated(Brighten(moment))
    expected = graph.paint()
    assert tiny.error(expected, usual) > 0.01
    assert tiny.error(graph.paint(model=graph.patched(2)), expected) < 1e-4
    assert tiny.error(graph.paint(frame_by_frame=True), expected) < 1e-4


def test_with_one_prompt_the_moment_makes_no_difference(parts, operated):
    graph = Graph.build(Plan(cfg=1.0, steps=1), parts)
    frames = []
    for moment in Moment:
        operated(Brighten(moment))
        frames.append(graph.paint())
    assert tiny.error(frames[0], frames[1]) < 1e-5
