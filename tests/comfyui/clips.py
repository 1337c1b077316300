"""A clip that is painted in pieces; each piece is given only its own frames."""

import dataclasses

import tiny
import torch

FRAMES = 6


@dataclasses.dataclass
class Clip:
    """Everything that has one row per frame, and what is sampled with it."""

    model: object
    network: object
    latent: torch.Tensor
    tokens: torch.Tensor
    hints: torch.Tensor
    masks: torch.Tensor

    @classmethod
    def of(cls, model, network):
        return cls(
            model,
            network,
            tiny.clip(FRAMES)["samples"],
            tiny.prompt(1, FRAMES)[0][0],
            tiny.images(FRAMES),
            tiny.masks(FRAMES).unsqueeze(1),
        )

    def paint(self, first=0, stop=FRAMES, sampler="euler", **inputs):
        """Paint the frames from `first` up to `stop`, without the inputs of any other frame."""
        part = slice(first, stop)
        positive, negative = tiny.apply_controlnet(
            [[self.tokens[part], {}]], tiny.prompt(2), self.network, self.hints[part]
        )
        latent = {"samples": self.latent[part], "noise_mask": self.masks[part]}
        inputs = {"model": self.model, "steps": 3, **inputs}
        output = tiny.frame_output(
            inputs.pop("model"), positive, negative, latent, sampler, **inputs
        )
        return output.args[0]["samples"], output.args[1]
