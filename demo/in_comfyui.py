"""Edit clips of the small world with the demo model in a real ComfyUI, node by node.

ComfyUI must be importable (`comfyui_location.use_comfyui`).
"""

import torch
from torch import Tensor

from .edit import DEFAULT, Sampling, Setting


@torch.inference_mode()
def load_in_comfyui(architecture: str = "U-Net") -> tuple:
    """Load a demo model; return (MODEL, CLIP, VAE, CONTROL_NET).

    architecture: "U-Net", or "DiT", whose CONTROL_NET is not one.
    """
    from ..nodes.demo import CrossFrameDemoModel

    return CrossFrameDemoModel.execute(architecture).args


@torch.inference_mode()
def edit_in_comfyui(
    demo: tuple,
    source: Tensor,
    prompt: str,
    seed: int,
    setting: Setting,
    sampling: Sampling = DEFAULT,
    frame_by_frame: bool = False,
) -> Tensor:
    """Edit one clip as the graph of the first example does.

    demo: what `load_in_comfyui` returns. source: (frames, 3, SIZE, SIZE), RGB in 0..1.
    frame_by_frame: whether the frames are painted frame by frame or all frames per step. Returns
    the edited frames in the same shape.
    """
    from comfy_extras import nodes_custom_sampler as custom

    import nodes

    from ..nodes.attention import CrossFrameAttention
    from ..nodes.noise import CrossFrameNoise
    from ..nodes.sampling import CrossFrameSampler

    model, _, vae, _ = demo
    images = source.movedim(1, -1)
    positive, negative = conditions(demo, prompt, images)
    if setting.references is not None:
        (model,) = CrossFrameAttention.execute(
            model=model,
            references=setting.references,
            include_self=setting.include_self,
            layers=setting.layers,
            start_percent=setting.start_percent,
            end_percent=setting.end_percent,
            frames_per_batch=0,
        ).args
    (noise,) = custom.RandomNoise.execute(seed).args
    (noise,) = CrossFrameNoise.execute(noise, setting.frame_noise).args
    (guider,) = custom.CFGGuider.execute(model, positive, negative, sampling.guidance).args
    (sampler,) = custom.KSamplerSelect.execute("ddim").args
    (sigmas,) = custom.BasicScheduler.execute(
        model, "normal", sampling.steps, sampling.strength
    ).args
    node = CrossFrameSampler if frame_by_frame else custom.SamplerCustomAdvanced
    (latent,) = nodes.VAEEncode().encode(vae, images)
    samples = node.execute(noise, guider, sampler, sigmas, latent).args[0]
    (edited,) = nodes.VAEDecode().decode(vae, samples)
    return edited.movedim(-1, 1).clone()


def conditions(demo: tuple, prompt: str, images: Tensor) -> tuple:
    """Return (positive, negative) with the frames as layout hints, as the architecture takes them.

    images: an IMAGE batch, (frames, height, width, 3).
    """
    from comfy.controlnet import ControlNet
    from comfy_extras.nodes_ip2p import InstructPixToPixConditioning

    import nodes

    _, clip, vae, control = demo
    prompts = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in (prompt, "")]
    if isinstance(control, ControlNet):
        return nodes.ControlNetApplyAdvanced().apply_controlnet(
            *prompts, control, images, 1.0, 0.0, 1.0
        )
    return InstructPixToPixConditioning.execute(*prompts, images, vae).args[:2]
