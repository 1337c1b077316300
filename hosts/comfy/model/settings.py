"""What the user chose on the CrossFrameAttention node, as it travels with a MODEL."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ....attention import Layer, Policy, Storage
from ....attention.references import Own
from ....motion import Motion
from .unet import Attn1

NODE = "CrossFrameAttention"
FUSION_NODE = "CrossFrameFusion"
NO_LAYERS = "none"
# The slot in transformer options; see `carried.py`.
KEY = "crossframe"
# Where hidden states are kept, by the node's words; None is the device that computes them.
BANK_DEVICES = {"with the model": None, "system memory": torch.device("cpu")}


def count_by_block(layers: Iterable[tuple]) -> str:
    """Write how many layers there are in each block, e.g. "1 middle, 4 output".

    layers: tuples that begin with the block.
    """
    counts = Counter(block for block, *_ in layers)
    return ", ".join(f"{count} {block}" for block, count in counts.items())


@dataclass(frozen=True)
class FusionChoice:
    """What the user chose on the CrossFrameFusion node.

    motion: that of the clip. strength, end_strength: the share of other frames, 0 to 1, at the
    start and at the end of the part of the denoising from start_percent to end_percent; in between
    it changes evenly. to: a name in FUSED_TO. keyframes: numbers of frames.
    are_named: whether the user has named them; otherwise they are those of the motion, of which
    some may lie beyond the frames that are painted now.
    """

    motion: Motion
    strength: float
    start_percent: float
    end_percent: float
    to: str
    keyframes: tuple[int, ...]
    are_named: bool
    end_strength: float

    def __str__(self) -> str:
        strengths = f"{self.strength:.0%} to {self.end_strength:.0%}"
        part = f"{self.start_percent:.0%} to {self.end_percent:.0%}"
        return f"fused to {self.to} by {strengths}; from {part}"

    def strength_at(self, percent: float) -> float:
        """Return the share of other frames at a place in the denoising, from 0 to 1."""
        along = (percent - self.start_percent) / (self.end_percent - self.start_percent)
        return self.strength + (self.end_strength - self.strength) * min(max(along, 0.0), 1.0)


@dataclass(frozen=True)
class Settings:
    """What the user chose, resolved for one model. It is frozen, and all clones share it.

    layer_set: a name in LAYER_SETS, or NO_LAYERS without cross-frame attention. layers: its layers
    in a U-Net; None for a transformer, whose layers are found when it runs.
    """

    policy: Policy
    layer_set: str
    layers: tuple[Attn1, ...] | None
    start_percent: float
    end_percent: float
    frames_per_batch: int
    storage: Storage
    # What the frames before this latent have left: a state with its origin, see `state/`.
    state: Any = None
    fusion: FusionChoice | None = None

    @classmethod
    def without_attention(cls, fusion: FusionChoice) -> "Settings":
        """Return settings for a MODEL whose frames are fused and do not look at one another."""
        return cls(Own(), NO_LAYERS, (), 0.0, 1.0, 0, Storage(), fusion=fusion)

    @property
    def attends(self) -> bool:
        """Whether there is cross-frame attention."""
        return self.layer_set != NO_LAYERS

    @property
    def addresses(self) -> frozenset[Layer]:
        """The addresses of the layers in a U-Net; none for a transformer."""
        return frozenset(attn1.layer for attn1 in self.layers or ())

    def __str__(self) -> str:
        attention = (self._attention(),) if self.attends else ()
        fusion = () if self.fusion is None else (str(self.fusion),)
        return "; ".join((*attention, *fusion))

    def _attention(self) -> str:
        layers = f"'{self.layer_set}'"
        if self.layers is not None:
            layers = count_by_block(attn1.layer for attn1 in self.layers)
        part = f"{self.start_percent:.0%} to {self.end_percent:.0%}"
        return f"looks at {self.policy.name}; layers {layers}; from {part}"
