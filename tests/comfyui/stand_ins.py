"""Nodes for a server under test that give small models with random weights, without files.

ComfyUI recognises diffusion transformers and their text encoders by their full width, so their
files cannot be small, as those in `model_files.py` are. These nodes stand in for their loaders.
"""

import dataclasses
import zlib
from pathlib import Path

from families import FAMILIES, Z_IMAGE

PACK = "stand_ins_of_tests.py"
# As many layers as the ControlNet of Z-Image counts with.
MODELS = {
    **FAMILIES,
    "z_image": dataclasses.replace(FAMILIES["z_image"], config={**Z_IMAGE, "n_layers": 30}),
}


def install(custom_nodes: Path) -> None:
    """Let a server have these nodes."""
    folder = str(Path(__file__).resolve().parent)
    lines = [
        "import sys",
        f"sys.path.append({folder!r})",
        "from stand_ins import NODE_CLASS_MAPPINGS",
    ]
    (custom_nodes / PACK).write_text("\n".join(lines) + "\n")


class StandIn:
    """A node that makes something of a family."""

    FUNCTION, CATEGORY = "make", "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"family": ("STRING", {})}}


class StandInModel(StandIn):
    """A MODEL of a family."""

    RETURN_TYPES = ("MODEL",)

    def make(self, family):
        return (MODELS[family].model(),)


class StandInClip(StandIn):
    """A CLIP that makes random tokens of a text, as a family has them."""

    RETURN_TYPES = ("CLIP",)

    def make(self, family):
        return (Encoder(family),)


class Encoder:
    """What CLIPTextEncode needs of a CLIP."""

    def __init__(self, family: str) -> None:
        self._family = MODELS[family]

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list:
        return self._family.prompt(zlib.crc32(text.encode()))


class StandInControl:
    """The Fun ControlNet of Z-Image, a MODEL_PATCH."""

    FUNCTION, CATEGORY, RETURN_TYPES = "make", "tests", ("MODEL_PATCH",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {}}

    def make(self):
        return (z_image_control(),)


def z_image_control(**config):
    """A ControlNet for the `z_image` of MODELS. config: what differs from its first version."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.ops
    import torch
    from comfy.ldm.lumina.controlnet import ZImage_Control
    from family import fill

    shared = ("dim", "n_heads", "n_kv_heads", "multiple_of", "ffn_dim_multiplier")
    network = ZImage_Control(
        **{key: Z_IMAGE[key] for key in shared},
        **config,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    ).requires_grad_(False)
    fill(network, seed=5)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(network, device, device)


NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (StandInModel, StandInClip, StandInControl)}
