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


class StepOperation(ABC):
    """A change of the predicted clean latents."""

    moment: Moment = Moment.AFTER_GUIDANCE

    @abstractmethod
    def __call__(self, x0: Tensor, places: Sequence[int], noise_level: float) -> Tensor:
        """Return the changed prediction, in the shape of x0.

        x0: (frames, channels, height, width). places: the positions of these frames in the clip.
        noise_level: the sigma of the step.
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

    def __call__(self, x0: Tensor, places: Sequence[int], noise_level: float) -> Tensor:
        """Return the pictures at these places."""
        return self.pictures[list(places)].to(x0)


def applied(
    operations: Sequence[StepOperation],
    moment: Moment,
    x0: Tensor,
    places: Sequence[int],
    noise_level: float,
) -> Tensor:
    """Return a prediction after applying, in order, all operations that act at a moment."""
    for operation in operations:
        if operation.moment is moment:
            x0 = operation(x0, places, noise_level)
    return x0
