"""ControlNets of transformers: every frame gets its own hint, in both orders and any batches.

The networks are narrow, made of ComfyUI's own classes with random weights. Hints are pictures, or
latents that the ControlNet's VAE makes of pictures.
"""

import pytest
import tiny
import torch
from families import FAMILIES, FLUX, QWEN, SD3
from family import fill

FRAMES = 4
SAMPLING = {"steps": 2, "cfg": 2.0, "denoise": 0.9, "scheduler": "simple"}


def loaded(network, seed: int = 5, **settings):
    """A CONTROL_NET with random weights. settings: of ComfyUI's ControlNet."""
    import comfy.controlnet
    import comfy.model_management

    network.requires_grad_(False)
    fill(network, seed)
    device = comfy.model_management.get_torch_device()
    return comfy.controlnet.ControlNet(network, load_device=device, **settings)


def operations() -> dict:
    import comfy.ops

    return {"operations": comfy.ops.disable_weight_init, "dtype": torch.float32}


def flux_of_pictures():
    """Flux.1's of XLabs: a small network makes features of the picture itself."""
    from comfy.ldm.flux.controlnet import ControlNetFlux

    return loaded(ControlNetFlux(**FLUX, **operations()), extra_conds=["y", "guidance"])


def flux_of_latents():
    """Flux.1's of InstantX: the picture goes through the VAE."""
    import comfy.latent_formats
    from comfy.ldm.flux.controlnet import ControlNetFlux

    network = ControlNetFlux(latent_input=True, control_latent_channels=16, **FLUX, **operations())
    settings = {"compression_ratio": 1, "latent_format": comfy.latent_formats.Flux()}
    return loaded(network, extra_conds=["y", "guidance"], **settings)


def sd3():
    import comfy.cldm.mmdit
    import comfy.latent_formats

    # What one of its blocks makes is for all blocks of the model but one, by the number of heads.
    config = {**SD3, "num_blocks": 1}
    network = comfy.cldm.mmdit.ControlNet(control_latent_channels=16, **config, **operations())
    control = loaded(network, compression_ratio=1, latent_format=comfy.latent_formats.SD3())
    torch.nn.init.normal_(network.pos_embed, generator=torch.Generator().manual_seed(1))
    return control


def qwen_image():
    import comfy.latent_formats
    from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel

    network = QwenImageControlNetModel(**QWEN, **operations())
    latents = comfy.latent_formats.Wan21()
    return loaded(network, compression_ratio=1, latent_format=latents, extra_conds=[])


class Encoder:
    """A VAE for hints: averages of squares, in 16 channels."""

    latent_dim = 2

    def encode(self, images):
        mix = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
        small = torch.nn.functional.avg_pool2d(images.movedim(-1, 1), 8)
        return (small.movedim(1, -1) @ mix).movedim(-1, 1)

    def spacial_compression_encode(self):
        return 8


CONTROLS = {
    "flux, pictures": ("flux", flux_of_pictures, lambda: None),
    "flux, latents": ("flux", flux_of_latents, Encoder),
    "sd3": ("sd3", sd3, Encoder),
    "qwen_image": ("qwen_image", qwen_image, tiny.video_autoencoder),
}


@pytest.fixture(params=CONTROLS, scope="module")
def subject(request):
    """A family, its MODEL, a ControlNet and the VAE for it."""
    name, make, vae = CONTROLS[request.param]
    return FAMILIES[name], FAMILIES[name].model(), make(), vae()


def prompts(subject, hints):
    """The prompts of a family after the node Apply ControlNet with a VAE."""
    import nodes

    family, _, control, vae = subject
    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        family.prompt(1), family.prompt(2), control, hints, 0.5, 0.0, 1.0, vae=vae
    )


def hints_of(family, frames: int, seed: int = 8):
    height, width = (8 * family.patch * side for side in family.size)
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(frames, height, width, 3, generator=generator)


@pytest.mark.parametrize("order", tiny.ORDERS)
def test_every_frame_has_its_own_hint(subject, order):
    """Every frame comes out as it does alone with its own hint, and not with another one's."""
    family, model, _, _ = subject
    latent, hints = family.clip(FRAMES), hints_of(family, FRAMES)
    sample = tiny.ORDERS[order]
    frames = sample(tiny.patch_own(model), *prompts(subject, hints), latent, **SAMPLING)
    for frame in range(FRAMES):
        clip = {"samples": latent["samples"][frame : frame + 1], "batch_index": [frame]}
        own, other = (
            tiny.ksampler(model, *prompts(subject, hints[i : i + 1]), clip, **SAMPLING)
            for i in (frame, (frame + 1) % FRAMES)
        )
        assert tiny.error(own, frames[frame : frame + 1]) < 1e-4
        assert tiny.error(other, frames[frame : frame + 1]) > 0.003


def test_both_orders_and_any_batches(subject):
    family, model, _, _ = subject
    conds = prompts(subject, hints_of(family, FRAMES))
    latent = family.clip(FRAMES)

    def patched(n=0):
        return tiny.patch(model, layers="all", include_self=True, frames_per_batch=n)

    whole = tiny.ksampler(patched(), *conds, latent, **SAMPLING)
    for n in (1, 3):
        assert tiny.error(tiny.ksampler(patched(n), *conds, latent, **SAMPLING), whole) < 1e-4
    assert tiny.error(tiny.frame_ksampler(patched(), *conds, latent, **SAMPLING), whole) < 1e-4


def test_one_hint_for_all_frames(subject):
    family, model, _, _ = subject
    conds = prompts(subject, hints_of(family, 1))
    latent = family.clip(3)
    expected = tiny.ksampler(model, *conds, latent, **SAMPLING)
    for sample in tiny.ORDERS.values():
        frames = sample(tiny.patch_own(model), *conds, latent, **SAMPLING)
        assert tiny.error(frames, expected) < 1e-4
