"""CrossFrameSampler in a real ComfyUI equals the article's procedure in diffusers.

Both get the same weights, noise, hints and noise levels. The diffusers side is written out
here: a ControlNet, classifier-free guidance and Euler steps around `ArticleProcedure`.
"""

import bench
import diffusers_twins
import pytest
import tiny
import torch
from article import ArticleProcedure

FRAMES = 5
CFG = 4.0
STRENGTH = 0.7
TIMESTEPS = [801, 601, 401, 201]


def noise_levels() -> tuple[list[float], list[float]]:
    """Sigmas of TIMESTEPS and of the end, and Stable Diffusion's schedule they come from."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, dim=0)
    sigmas = ((1 - kept) / kept).sqrt()
    return [*sigmas[TIMESTEPS].tolist(), 0.0]


def article_clip(unet, network, prompts, latents, noise, hints, scale, extra, attention=True):
    """The article: frame by frame img2img with a ControlNet; latents as a LATENT has them."""
    sigmas = noise_levels()
    text = torch.cat([conds[0][0] for conds in prompts])
    procedure = ArticleProcedure(unet)
    if attention:
        procedure.install()
    frames = []
    for frame in range(FRAMES):
        procedure.start_frame(frame)
        x = latents[frame : frame + 1] * scale + noise[frame : frame + 1] * sigmas[0]
        for step, timestep in enumerate(TIMESTEPS):
            sigma = sigmas[step]
            inputs = torch.cat([x, x]) / (sigma**2 + 1) ** 0.5
            hint = hints[frame : frame + 1].movedim(-1, 1).repeat(2, 1, 1, 1)
            down, middle = network(
                inputs, timestep, text, hint, STRENGTH, added_cond_kwargs=extra, return_dict=False
            )
            positive, negative = unet(
                inputs,
                timestep,
                text,
                added_cond_kwargs=extra,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample.chunk(2)
            eps = negative + CFG * (positive - negative)
            x = x + (sigmas[step + 1] - sigma) * eps
        frames.append(x / scale)
    if attention:
        procedure.remove()
    return torch.cat(frames)


def comfy_clip(model, network, prompts, latent, hints, noise):
    """The same clip through CrossFrameSampler."""
    conds = tiny.apply_controlnet(*prompts, network, hints, STRENGTH)
    guider = bench.guider(tiny.patch(model), conds, CFG)
    return bench.custom(guider, "euler", noise_levels(), latent, noise)


@pytest.mark.parametrize("config", [tiny.SD15, tiny.SDXL], ids=["sd15", "sdxl"])
def test_same_frames_as_the_article(config):
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

    sdxl = config is tiny.SDXL
    model, network = tiny.model(config), tiny.controlnet(config)
    prompts = tiny.prompt(1, pooled=sdxl), tiny.prompt(2, pooled=sdxl)
    latent, hints = tiny.clip(FRAMES), tiny.images(FRAMES)
    noise = Noise_RandomNoise(5)
    ours = comfy_clip(model, network, prompts, latent, hints, noise)
    extra = None
    if sdxl:
        pooled = torch.cat([conds[0][1]["pooled_output"] for conds in prompts])
        side = tiny.SIZE * 8
        extra = {
            "text_embeds": pooled,
            "time_ids": torch.tensor([[side, side, 0, 0, side, side]] * 2),
        }
    inputs = (
        diffusers_twins.unet(model, config),
        diffusers_twins.controlnet(network, config),
        prompts,
        latent["samples"],
        noise.generate_noise(latent),
        hints,
        model.model.latent_format.scale_factor,
        extra,
    )
    article = article_clip(*inputs)
    plain = article_clip(*inputs, attention=False)
    distance = tiny.error(ours, article)
    effect = float((article - plain).std() / plain.std())
    print(f"distance to the article {distance:.1e}, effect of the attention {effect:.2f}")
    assert distance < 1e-3
    assert effect > 0.1
    assert tiny.error(ours[:1], plain[:1]) < 1e-3
