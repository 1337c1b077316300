"""Image models without a U-Net: diffusion transformers (DiTs) and their kin.

Which tokens of which layers belong to the picture is measured when a model runs (see
`run/token_layout.py`), so families need no description here. Only those that cannot work are
listed, to say so when the graph is built.
"""

import torch

from ..errors import BadInputError

ENOUGH = 16  # numbers by which checkpoints can be told apart

_VIDEO = "is a video model and already attends across frames."
_OTHER = "does not paint pictures."
_UNREACHED = (
    "computes its attention in a way that ComfyUI lets no node change, so its frames cannot look "
    "at each other."
)
_FIX = (
    "Use a model that paints images, for example Stable Diffusion, SDXL, SD3.5, Flux, Qwen-Image "
    "or Z-Image."
)

# Names of ComfyUI's classes of models; they also stand for the classes derived from them.
_REFUSED = {
    **dict.fromkeys(
        (
            "CogVideoX",
            "CosmosVideo",
            "GenmoMochi",
            "HunyuanVideo",
            "Kandinsky5",
            "LTXAV",
            "LTXV",
            "MiniMaxH3",
            "SeedVR2",
            "WAN21",
        ),
        _VIDEO,
    ),
    **dict.fromkeys(
        (
            "ACEStep",
            "ACEStep15",
            "DepthAnything3",
            "Hunyuan3Dv2",
            "Hunyuan3Dv2_1",
            "MiniMaxMusic3",
            "RT_DETR_v4",
            "SAM3",
            "StableAudio1",
            "StableAudio3",
            "TripoSplat",
        ),
        _OTHER,
    ),
    **dict.fromkeys(("ErnieImage", "HunyuanDiT", "PixArt"), _UNREACHED),
}
# Image models that derive from a class above.
_IMAGE = frozenset({"Kandinsky5Image"})


def check_family(model) -> None:
    """Refuse a MODEL whose family is known not to work.

    Raises BadInputError, which names the family and the reason.
    """
    family = type(model.model)
    for kind in family.__mro__:
        if kind.__name__ in _IMAGE:
            return
        if kind.__name__ in _REFUSED:
            raise BadInputError("model", f"{family.__name__} {_REFUSED[kind.__name__]}", _FIX)


def typical_weights(model) -> torch.Tensor:
    """Return weights of a MODEL that are others in every checkpoint: its first matrix."""
    matrices = (
        weight
        for weight in model.model.diffusion_model.parameters()
        if weight.ndim > 1 and weight.numel() >= ENOUGH
    )
    return next(matrices, torch.empty(0))


def other_counts(model) -> frozenset[int]:
    """Return the number of channels of a MODEL's latents, which could be taken for rows."""
    return frozenset({model.model.latent_format.latent_channels})
