"""What the user chose on the CrossFrameAttention node, as it travels with a MODEL."""

from collections import Counter
from dataclasses import dataclass

import torch

from ...attention import Layer, State, Storage
from ...attention.references import Policy, policy_name
from .unet import Attn1

NODE = "CrossFrameAttention"
# Where settings lie in model options, and a run or an evaluation in transformer options.
KEY = "crossframe"
# Where hidden states are kept, as the node calls it; None is the device that computes them.
BANK_DEVICES = {"with the model": None, "system memory": torch.device("cpu")}


@dataclass(frozen=True)
class Settings:
    """What the user chose, resolved for one model; frozen, shared by every clone."""

    policy: Policy
    layers: tuple[Attn1, ...]
    start_percent: float
    end_percent: float
    frames_per_batch: int
    storage: Storage
    state: State | None = None  # what frames before the latent's have left

    @property
    def addresses(self) -> frozenset[Layer]:
        """The layers by address alone."""
        return frozenset(attn1.layer for attn1 in self.layers)

    def __str__(self) -> str:
        counts = Counter(attn1.layer.block for attn1 in self.layers)
        layers = ", ".join(f"{count} {block}" for block, count in counts.items())
        part = f"{self.start_percent:.0%} to {self.end_percent:.0%}"
        return f"looks at {policy_name(self.policy)}; layers {layers}; from {part}"
