"""What the user chose on the CrossFrameRerender node."""

from dataclasses import dataclass
from math import ceil, floor

from ..errors import BadInputError


@dataclass(frozen=True)
class Part:
    """A part of the steps that are taken. It is off if it ends where it starts.

    name: what the part is for, as the node's inputs begin. start, end: from 0 to 1.
    """

    name: str
    start: float
    end: float

    def steps(self, count: int) -> range:
        """Return the numbers of the steps of `count` that lie in the part, even if only partly."""
        if self.start == self.end:
            return range(0)
        # Rounding keeps 0.1 x 20 from being a little above 2.
        return range(floor(round(self.start * count, 6)), ceil(round(self.end * count, 6)))

    def check(self) -> None:
        """Raise BadInputError if the part ends before it starts."""
        if self.start > self.end:
            raise BadInputError(
                f"{self.name}_start",
                f"it is {self.start:g}, and {self.name}_end is {self.end:g}.",
                "Let it start before it ends. Equal values switch it off.",
            )


@dataclass(frozen=True)
class Stages:
    """Which stages of the method act, and when. The names are the paper's (section 4.1).

    shape_fusion: the predicted latent of the first frame is brought along the motion and takes the
    place of this frame's. adain: the predicted latent gets the statistics of the first frame's.
    pixel_fusion: in the second pass, the latent is pulled to the fused picture, by `strength`.
    keeps_colours: whether the source's colours are kept, or matched to those of the first result.
    """

    shape_fusion: Part
    adain: Part
    pixel_fusion: Part
    strength: float
    keeps_colours: bool

    @property
    def has_second_pass(self) -> bool:
        """Whether frames are painted twice."""
        return self.pixel_fusion.start < self.pixel_fusion.end and self.strength > 0

    def mixed(self, count: int) -> range:
        """Return the steps of the second pass before which the latent is mixed with a target."""
        return self.pixel_fusion.steps(count) if self.has_second_pass else range(0)

    def stops(self, count: int) -> frozenset[int]:
        """Return where the sampler is stopped: after steps that are held to the first frame, and
        before those that are mixed. count: the steps of a pass.

        It is stopped there in every pass of every frame, so that all take the same steps.
        """
        held = (*self.adain.steps(count), *self.shape_fusion.steps(count))
        return frozenset({*(step + 1 for step in held), *self.mixed(count)})

    @property
    def needs_motion(self) -> bool:
        """Whether a stage brings earlier frames along the motion."""
        return self.has_second_pass or self.shape_fusion.start < self.shape_fusion.end

    def check(self, has_motion: bool, frames: int) -> None:
        """Raise BadInputError if stages cannot act. has_motion: whether there is a motion.

        frames: those of the clip; a single one is held to no other.
        """
        for part in (self.shape_fusion, self.adain, self.pixel_fusion):
            part.check()
        if self.needs_motion and not has_motion and frames > 1:
            raise BadInputError(
                "motion",
                "nothing is connected, and shape fusion and pixel fusion need it.",
                "Connect the output 'motion' of CrossFrameMotion, or switch both off: set "
                "shape_fusion_end to shape_fusion_start, and pixel_fusion_strength to 0.",
            )
        if has_motion and not self.needs_motion:
            raise BadInputError(
                "motion",
                "shape fusion and pixel fusion are off, so it does nothing.",
                "Switch one of them on, or disconnect it.",
            )
