"""The predictions of the frames that begin scenes, which later frames are held to."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ....latents.fusion import Predictions


class FirstFrames:
    """Keeps the predicted clean latents of first frames at every step.

    kept: by step and frame, each (channels, ..., height, width), as the model sees latents.
    """

    def __init__(self) -> None:
        self.kept: Predictions = {}
        self._anchor: Callable[[int], int] = lambda frame: frame
        self._frames = range(0)

    def begin(self, anchor: Callable[[int], int], frames: range, given: Predictions) -> None:
        """Begin a run. anchor: returns the first frame for each frame. frames: all frames.

        given: what an interrupted run has kept.
        """
        self.kept = {step: {**of_step} for step, of_step in given.items()}
        self._anchor, self._frames = anchor, frames

    def keep(self, step: int, frame: int, x0: Tensor) -> None:
        """Keep a prediction and drop those of earlier scenes."""
        # As a file gives it back, so that a resumed run rounds in the same way.
        self.kept[step] = {frame: x0.clone(memory_format=torch.contiguous_format)}

    def of(self, step: int, frame: int) -> Tensor:
        """Return the prediction of a first frame at a step.

        Raises RuntimeError if the sampler has not shown it, which only that of another pack can do.
        """
        if step not in self.kept:
            raise RuntimeError(
                f"CrossFrameRerender: the sampler has not shown its prediction at step {step}, to "
                "which later frames are held. Choose another sampler, such as ddim."
            )
        return self.kept[step][frame]

    def needed(self, painted: Collection[int]) -> frozenset[int]:
        """Return the first frames that later frames are held to. painted: frames just painted."""
        last = max(painted, default=self._frames.start - 1)
        later = range(last + 1, self._frames.stop)
        anchors = {self._anchor(frame) for frame in later}
        return frozenset(anchor for anchor in anchors if anchor <= last)
