"""The small transformer that comes with the pack, as ComfyUI's MODEL, CLIP, VAE and CONTROL_NET.

It has Flux's architecture and is built of ComfyUI's own classes, so its weights have their names
already. It shares the U-Net's autoencoder and tokenizer. Its layout hint comes in as more channels
of the latent, as that of Flux Canny does, so there is no ControlNet.
"""

from pathlib import Path
from typing import NoReturn

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models

from ..errors import BadInputError
from .files import DTYPE, read_config, read_weights
from .model import DemoLatents, load_clip, load_vae, patcher_of


def load_demo_dit(folder: Path, shared: Path) -> tuple:
    """Return (MODEL, CLIP, VAE, NoControlNet) of the transformer.

    shared: the U-Net's folder, for the autoencoder and the tokenizer. Raises DamagedModelError if a
    file is missing or does not fit the others.
    """
    model = load_transformer(folder, shared)
    # With dynamic VRAM, some of ComfyUI's nodes (torch.compile) load the model again.
    model.cached_patcher_init = (load_transformer, (folder, shared))
    clip = load_clip(folder, shared / "tokenizer")
    return model, clip, load_vae(shared), NoControlNet()


def load_transformer(
    folder: Path, shared: Path, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """Load the MODEL. disable_dynamic: keep it out of ComfyUI's dynamic VRAM management."""
    settings = read_config(folder / "transformer" / "config.json")
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    # Schnell is the Flux without an input for guidance; its noise levels are those of plain flow.
    family = comfy.supported_models.FluxSchnell({**settings, "dtype": DTYPE})
    family.set_inference_dtype(DTYPE, None)
    family.latent_format = DemoLatents(read_config(shared / "vae" / "config.json"))
    family.sampling_settings = {"multiplier": 1.0, "shift": scheduler["shift"]}
    weights = read_weights(folder / "transformer" / "model.safetensors")
    return patcher_of(family.get_model(weights), "transformer", weights, disable_dynamic)


class NoControlNet:
    """What stands for the CONTROL_NET: a node that wants to use it gets an error.

    ComfyUI's own way to block an output (ExecutionBlocker) shows its error only once: the next time
    the same graph is queued, nothing happens and nothing is said.
    """

    def copy(self) -> NoReturn:
        """Raise BadInputError. The nodes that apply a ControlNet, or change it, begin with this."""
        error = BadInputError(
            "architecture",
            "the DiT has no ControlNet.",
            "Remove Apply ControlNet and give the prompts, the VAE and the frames to "
            "InstructPixToPixConditioning instead, which puts the hint beside the latent; or "
            "choose the U-Net.",
        )
        error.add_node("CrossFrameDemoModel", {})
        raise error

    @property
    def concat_mask(self) -> NoReturn:
        """Raise BadInputError. The node for inpainting ControlNets looks at this first."""
        self.copy()
