"""Step operations are pure functions on predicted latents, and each acts at its moment."""

import torch
from crossframe.latents.operations import KeepPictures, Moment, Step, StepOperation, applied

STEP = Step(0, 1.0, [0, 1], [0, 1])


class Add(StepOperation):
    """Adds a number."""

    def __init__(self, number, moment):
        self.number, self.moment = number, moment

    def __call__(self, x0, step):
        return x0 + self.number


class Double(Add):
    def __call__(self, x0, step):
        return x0 * self.number


def test_operations_act_in_their_order_and_at_their_moment():
    after, before = Moment.AFTER_GUIDANCE, Moment.BEFORE_GUIDANCE
    operations = [Add(1, after), Add(100, before), Double(2, after)]
    x0 = torch.zeros(2, 4, 3, 3)
    assert torch.equal(applied(operations, after, x0, STEP), torch.full_like(x0, 2))
    assert torch.equal(applied(operations, before, x0, STEP), torch.full_like(x0, 100))
    assert applied([], after, x0, STEP) is x0


def test_pictures_are_found_by_their_places():
    pictures = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 4, 3, 3)
    x0 = torch.randn(2, 4, 3, 3, dtype=torch.float16)
    kept = KeepPictures(pictures)(x0, Step(0, 0.5, [13, 11], [3, 1]))
    assert kept.dtype == torch.float16
    assert kept[:, 0, 0, 0].tolist() == [3, 1]
    assert KeepPictures.moment is Moment.BEFORE_GUIDANCE
