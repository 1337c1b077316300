"""A transformer for the demo: Flux's architecture, small enough to ship and to train on a CPU.

It paints the same small world as the U-Net, in the latents of the same autoencoder, and reads the
same words. It has a text encoder of its own, which was trained together with it. The layout hint is
the source's latent, which is put beside the noisy latent as more channels, as in Flux Canny.

The network is ComfyUI's own class, so its weights need no renaming. Building it therefore needs
ComfyUI to be importable (`comfyui_location.use_comfyui`).
"""

from pathlib import Path

from torch import Tensor, nn

from .model import LATENT_CHANNELS, PROMPT_CHANNELS

FOLDER = Path(__file__).parent / "dit"
SHIFT = 3.0  # how much more of the noise levels are high than low; see `noise_levels`

# The arguments of `comfy.ldm.flux.model.Flux`, as they are written to config.json.
SETTINGS = {
    "image_model": "flux",
    "in_channels": 2 * LATENT_CHANNELS,  # the noisy latent and the hint
    "out_channels": LATENT_CHANNELS,
    "patch_size": 2,
    "vec_in_dim": PROMPT_CHANNELS,
    "context_in_dim": PROMPT_CHANNELS,
    "hidden_size": 128,
    "num_heads": 4,
    "mlp_ratio": 4.0,
    "depth": 2,
    "depth_single_blocks": 4,
    "axes_dim": [4, 14, 14],
    "theta": 100,  # a picture has 16 x 16 tokens, so positions are small numbers
    "qkv_bias": True,
    "guidance_embed": False,
    "txt_ids_dims": [],
}


class Operations:
    """The layers that a network for training is made of."""

    Linear = nn.Linear
    RMSNorm = nn.RMSNorm

    class LayerNorm(nn.LayerNorm):
        """A norm of a copy, because Flux then changes its hidden states in place."""

        def forward(self, hidden: Tensor) -> Tensor:
            """Return the normalised hidden states."""
            return super().forward(hidden.clone())


def new_dit() -> nn.Module:
    """Return an untrained transformer whose blocks begin as the identity (Peebles and Xie, DiT)."""
    from comfy.ldm.flux.model import Flux

    network = Flux(**SETTINGS, operations=Operations)
    for name, layer in network.named_modules():
        if name.endswith(("mod.lin", "modulation.lin", "final_layer.linear")):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def noise_levels(even: Tensor) -> Tensor:
    """Return noise levels in 0..1, more of them high than low, from values spread evenly there.

    Colours are decided while there is much noise (Esser et al., Scaling Rectified Flow Transformers
    for High-Resolution Image Synthesis, section 5.3.2).
    """
    return SHIFT * even / (1 + (SHIFT - 1) * even)
