"""Step operations: what happens to the predicted clean latents between two steps.

A model predicts, at every noise level, what its frames look like without noise (x0). The sampler
takes its next step towards that prediction. A step operation is a pure function that changes the
prediction on the way. It gets all frames of the clip at once, or some of them, and must give the
same frames in both cases.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from torch import Tensor


class Moment(Enum):
    """When in a step an operation acts."""

    BEFORE_GUIDANCE = "on the prediction for every cond"
    AFTER_GUIDANCE = "on the one prediction that guidance makes of them"


@dataclass(frozen=True)
class Step:
    """An evaluation of the model on some frames.

    number: how many evaluations of these frames came before. noise_level: its sigma. frames: the
    numbers of the frames in the clip. places: their positions in the latent.
    """

    number: int
    noise_level: float
    frames: Sequence[int]
    places: Sequence[int]


class StepOperation(ABC):
    """A change of the predicted clean latents."""

    moment: Moment = Moment.AFTER_GUIDANCE

    @abstractmethod
    def __call__(self, x0: Tensor, step: Step) -> Tensor:
        """Return the changed prediction, in the shape of x0.

        x0: (frames, channels, ..., height, width), the frames of the step.
        """


@dataclass(frozen=True, eq=False)
class KeepPictures(StepOperation):
    """Replaces the prediction by the given pictures, as if the model saw through all noise.

    So the sampler stays with the pictures, and the model only looks at them at every noise level.
    It acts before guidance, because some samplers read the prediction for the negative prompt.

    pictures: (frames of the clip, channels, height, width), as the model sees latents.
    """

    pictures: Tensor
    moment = Moment.BEFORE_GUIDANCE

    def __call__(self, x0: Tensor, step: Step) -> Tensor:
        """Return the pictures at the places of the step's frames."""
        return self.pictures[list(step.places)].to(x0)


def applied(operations: Sequence[StepOperation], moment: Moment, x0: Tensor, step: Step) -> Tensor:
    """Return a prediction after applying, in order, all operations that act at a moment."""
    for operation in operations:
        if operation.moment is moment:
            x0 = operation(x0, step)
    return x0
