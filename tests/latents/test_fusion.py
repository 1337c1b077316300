"""Fusion: who is mixed with whom, along the motion, and what is kept for that."""

from dataclasses import dataclass

import pytest
import torch
from crossframe.latents.fusion import FUSED_TO, Fusion, FusionPlan, fusion_plan
from crossframe.latents.operations import Step
from crossframe.motion import PairMotion, pixel_grid

FRAMES, STEPS = 7, 3


@dataclass(frozen=True)
class Shift:
    """All things move to the right by one cell per frame; what leaves the picture is gone."""

    frames: int = FRAMES
    size: tuple[int, int] = (4, 6)

    def between(self, frame, other, grid=None):
        rows, columns = grid or self.size
        positions = pixel_grid(torch.empty(rows, columns, 2)) + torch.tensor([other - frame, 0.0])
        inside = (positions[..., 0] > 0) & (positions[..., 0] < columns)
        return PairMotion(positions, inside.float())


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_plans():
    first = fusion_plan("first + previous", range(4), lambda frame: 0)
    assert first == FusionPlan({0: (), 1: (0,), 2: (0, 1), 3: (0, 2)}, (0, 1, 2, 3))
    keys = fusion_plan("keyframes", range(6), lambda frame: 0, (0, 3, 5))
    assert keys.order == (0, 3, 5, 1, 2, 4)
    assert keys.targets == {0: (), 3: (0,), 5: (0, 3), 1: (0, 3), 2: (0, 3), 4: (0, 3, 5)}
    # A scene's first frame is a keyframe, and nothing is fused across a cut.
    scenes = fusion_plan("keyframes", range(6), lambda frame: 3 if frame >= 3 else 0, (1, 5))
    assert scenes.targets == {0: (), 1: (0,), 2: (0, 1), 3: (), 4: (3, 5), 5: (3,)}
    part = fusion_plan("first + previous", range(4, 6), lambda frame: 0, carry=True)
    assert (part.targets, part.wanted, part.carried) == ({4: (0, 3), 5: (0, 4)}, {0, 3}, {0, 5})
    part = fusion_plan("keyframes", range(4, 6), lambda frame: 0, (2, 5), carry=True)
    assert part.targets == {4: (0, 2, 5), 5: (0, 2)}
    assert (part.wanted, part.carried) == ({0, 2}, {0, 5})


def by_hand(x0, targets, order, strength):
    """One evaluation: things of frame i lie j - i cells further to the right in frame j."""
    done = {}
    for frame in order:
        own = x0[frame].clone()
        for column in range(own.shape[-1]):
            seen = [
                done[other][..., column + other - frame]
                for other in targets[frame]
                if 0 <= column + other - frame < own.shape[-1]
            ]
            if seen:  # the earliest decides
                own[..., column] += strength * (seen[0] - own[..., column])
        done[frame] = own
    return torch.stack([done[frame] for frame in range(len(x0))])


@pytest.mark.parametrize("shape", [(4,), (16, 1)], ids=["4-D", "5-D"])
@pytest.mark.parametrize("to", FUSED_TO)
def test_the_whole_clip_and_frame_by_frame(to, shape):
    plan = fusion_plan(to, range(FRAMES), lambda frame: 0, (0, 2, 6))
    clips = [random(FRAMES, *shape, 4, 6, seed=step) for step in range(STEPS)]
    expected = [by_hand(x0, plan.targets, plan.order, 0.4) for x0 in clips]
    whole = Fusion(Shift(), plan, lambda sigma: 0.4)
    for number, x0 in enumerate(clips):
        frames = tuple(range(FRAMES))
        found = whole(x0, Step(number, 1.0, frames, frames))
        assert torch.allclose(found, expected[number], atol=1e-5)
        assert not whole.kept
    single = Fusion(Shift(), plan, lambda sigma: 0.4)
    most = 0
    for frame in plan.order:
        for number, x0 in enumerate(clips):
            found = single(x0[frame : frame + 1], Step(number, 1.0, (frame,), (frame,)))
            assert torch.allclose(found[0], expected[number][frame], atol=1e-5)
        most = max(most, max(map(len, single.kept.values()), default=0))
        assert len(single._pairs) <= 3
    assert not single.kept
    assert most <= 3  # keyframes, or the first and the previous frame


def test_no_motion_is_a_plain_mix_and_no_trust_changes_nothing():
    plan = fusion_plan("first + previous", range(2), lambda frame: 0)
    x0 = random(2, 4, 4, 6)

    @dataclass(frozen=True)
    class Still(Shift):
        trust: float = 1.0

        def between(self, frame, other, grid=None):
            still = super().between(0, 0, grid)
            return PairMotion(still.positions, still.trust * self.trust)

    step = Step(0, 1.0, (0, 1), (0, 1))
    mixed = Fusion(Still(), plan, lambda sigma: 0.25)(x0, step)
    assert torch.equal(mixed[0], x0[0])
    assert torch.allclose(mixed[1], 0.75 * x0[1] + 0.25 * x0[0], atol=1e-6)
    assert torch.equal(Fusion(Still(trust=0.0), plan, lambda sigma: 0.25)(x0, step), x0)
    assert torch.equal(Fusion(Still(), plan, lambda sigma: 0.0)(x0, step), x0)
    assert Fusion(Still(), plan, lambda sigma: None)(x0, step) is x0


def test_the_strength_is_that_of_the_noise_level():
    plan = fusion_plan("first + previous", range(2), lambda frame: 0)
    x0 = random(2, 4, 4, 6)
    fusion = Fusion(Shift(), plan, {9.0: 1.0, 1.0: 0.5}.get)
    frames = (0, 1)
    whole, half, none = (
        fusion(x0, Step(number, sigma, frames, frames))[1]
        for number, sigma in enumerate((9.0, 1.0, 0.1))
    )
    assert torch.allclose(half, (whole + x0[1]) / 2, atol=1e-6)
    assert torch.equal(none, x0[1])


def test_a_clip_in_two_parts():
    """The second part goes on from what the first has kept."""
    x0 = random(FRAMES, 4, 4, 6)
    for to in FUSED_TO:
        keys = (0, 2)
        whole = fusion_plan(to, range(FRAMES), lambda frame: 0, keys)
        expected = by_hand(x0, whole.targets, whole.order, 0.5)
        parts, given = [], None
        for frames in (range(0, 4), range(4, FRAMES)):
            plan = fusion_plan(to, frames, lambda frame: 0, keys, carry=True)
            fusion = Fusion(Shift(), plan, lambda sigma: 0.5, given)
            numbers = tuple(frames)
            parts.append(fusion(x0[list(numbers)], Step(0, 1.0, numbers, range(len(numbers)))))
            assert set(fusion.kept[0]) == plan.carried
            given = fusion.kept
        assert torch.allclose(torch.cat(parts), expected, atol=1e-5)
