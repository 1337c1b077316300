"""CrossFrameDemoModel in a real ComfyUI computes what diffusers computes from the same files.

The model has random weights and the architecture of the one that comes with the pack. The
reference is diffusers' own code, down to whole pipeline calls.
"""

import functools
from contextlib import nullcontext
from itertools import pairwise

import bench
import pytest
import tiny
import torch
from crossframe.demo import model as builders
from crossframe.hosts.diffusers import cross_frame_attention
from diffusers import StableDiffusionControlNetImg2ImgPipeline
from safetensors.torch import load_file, save_file

FRAMES = 5
PIXELS = 64
LATENTS = PIXELS // builders.SHRINK
STRENGTH = 0.7
CFG = 2.0
POSITIVE, NEGATIVE = "a neon drawing with red discs", "a dark drawing"
PARTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "controlnet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def randomize(network: torch.nn.Module, seed: int) -> None:
    """Seeded weights, none of them neutral: swapped layers, norms too, must show.

    Queries and keys are enlarged, since attention of random weights is nearly uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(network.named_parameters()):
        draw = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            weight.data = 0.2 * draw + ("norm" in name and name.endswith("weight"))
        else:
            scale = 2.0 if "attn1.to_q" in name or "attn1.to_k" in name else 1.0
            weight.data = scale * draw * weight[0].numel() ** -0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of a pipeline, in half precision as those of the pack."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = builders.new_tokenizer(folder / "tokenizer")
    unet = builders.new_unet()
    networks = {
        "unet": unet,
        "controlnet": builders.new_controlnet(unet),
        "vae": builders.new_autoencoder(),
        "text_encoder": builders.new_text_encoder(tokenizer),
    }
    for seed, network in enumerate(networks.values()):
        randomize(network, seed)
    networks["vae"].decoder.conv_out.weight.data *= 0.3  # pictures within 0 and 1
    networks["vae"].register_to_config(scaling_factor=0.7)
    pipeline = StableDiffusionControlNetImg2ImgPipeline(
        **networks,
        tokenizer=tokenizer,
        scheduler=builders.new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    """The files as diffusers reads them."""
    pipeline = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        folder, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def demo(folder):
    """The files as the node reads them: (MODEL, CLIP, VAE, CONTROL_NET)."""
    from crossframe.hosts.comfy.demo.model import load_demo_model

    with torch.inference_mode():  # as ComfyUI executes nodes
        return load_demo_model(folder)


@pytest.fixture(scope="module")
def video():
    """(frames, hints), both IMAGE batches."""
    size = PIXELS // 8
    return tiny.images(FRAMES, seed=1, size=size), tiny.images(FRAMES, seed=2, size=size)


def embedding(pipeline, prompt: str) -> torch.Tensor:
    """A prompt as diffusers' pipelines encode it, (1, tokens, channels)."""
    tokens = pipeline.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    return pipeline.text_encoder(tokens).last_hidden_state


def encode(clip, prompt: str) -> torch.Tensor:
    """Encode a prompt with the stock node."""
    import nodes

    ((tokens, _),) = nodes.CLIPTextEncode().encode(clip, prompt)[0]
    return tokens


@pytest.mark.parametrize(
    "prompt",
    ["a warm drawing with red discs and blue squares", "", "Zebra, CAFÉ naïve 火!", "it's 12 x_y"],
)
def test_prompts(pipeline, demo, prompt):
    expected = embedding(pipeline, prompt)
    assert expected.shape == (1, builders.PROMPT_TOKENS, builders.PROMPT_CHANNELS)
    assert tiny.error(encode(demo[1], prompt), expected) < 1e-4


def test_weighted_prompts(pipeline, demo):
    plain, empty = embedding(pipeline, "a red drawing"), embedding(pipeline, "")
    weights = torch.ones(builders.PROMPT_TOKENS, 1)
    weights[2] = 1.5  # after the start and "a"
    expected = empty + weights * (plain - empty)
    assert tiny.error(encode(demo[1], "a (red:1.5) drawing"), expected) < 1e-4
    assert tiny.error(expected, plain) > 0.1


def test_long_prompts_go_on_in_another_chunk(pipeline, demo):
    words = ["red"] * (builders.PROMPT_TOKENS - 2)
    tokens = encode(demo[1], " ".join([*words, "discs"]))
    expected = torch.cat([embedding(pipeline, " ".join(words)), embedding(pipeline, "discs")], 1)
    assert tiny.error(tokens, expected) < 1e-4


def test_clip_set_last_layer(pipeline, demo):
    import nodes

    (clip,) = nodes.CLIPSetLastLayer().set_last_layer(demo[1], -2)
    tokens = pipeline.tokenizer(POSITIVE, padding="max_length", return_tensors="pt").input_ids
    states = pipeline.text_encoder(tokens, output_hidden_states=True).hidden_states
    # The name of the inner module depends on the version of transformers.
    inner = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    assert tiny.error(encode(clip, POSITIVE), inner.final_layer_norm(states[-2])) < 1e-4
    assert tiny.error(encode(clip, POSITIVE), encode(demo[1], POSITIVE)) > 0.1


def test_autoencoder(pipeline, demo, video):
    import nodes

    vae, (frames, _) = demo[2], video
    (latent,) = nodes.VAEEncode().encode(vae, frames)
    posterior = pipeline.vae.encode(frames.movedim(-1, 1) * 2 - 1).latent_dist
    assert latent["samples"].shape == (FRAMES, 4, LATENTS, LATENTS)
    assert tiny.error(latent["samples"], posterior.mean) < 1e-4

    (pictures,) = nodes.VAEDecode().decode(vae, latent)
    decoded = pipeline.vae.decode(posterior.mean).sample.movedim(1, -1) / 2 + 0.5
    assert ((decoded > 0) & (decoded < 1)).float().mean() > 0.9  # little is clipped away
    assert tiny.error(pictures, decoded.clamp(0, 1)) < 1e-4


def test_autoencoder_on_other_sizes_and_in_tiles(demo):
    import nodes

    vae = demo[2]
    frames = tiny.images(2, size=9)[:, :71, :69]  # 71 x 69 pixels
    (latent,) = nodes.VAEEncode().encode(vae, frames)
    assert latent["samples"].shape == (2, 4, 35, 34)
    (pictures,) = nodes.VAEDecode().decode(vae, latent)
    (tiled,) = nodes.VAEDecodeTiled().decode(vae, latent, tile_size=512, overlap=64)
    assert pictures.shape == tiled.shape == (2, 70, 68, 3)
    assert tiny.error(tiled, pictures) < 1e-4
    (tiled_latent,) = nodes.VAEEncodeTiled().encode(vae, frames, tile_size=512, overlap=64)
    assert tiny.error(tiled_latent["samples"], latent["samples"]) < 1e-4


def test_an_empty_latent_has_the_size_of_its_picture(demo):
    import nodes

    (latent,) = nodes.EmptyLatentImage().generate(PIXELS, PIXELS)
    prompts = conditions(demo, tiny.images(1, size=PIXELS // 8))
    samples = tiny.ksampler(demo[0], *prompts, latent, denoise=1.0)
    (pictures,) = nodes.VAEDecode().decode(demo[2], {"samples": samples})
    assert pictures.shape == (1, PIXELS, PIXELS, 3)


def network_inputs(pipeline):
    """(x, prompts, hints) for a batch of 2."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, LATENTS, LATENTS, generator=generator)
    prompts = torch.cat([embedding(pipeline, POSITIVE), embedding(pipeline, NEGATIVE)])
    return x, prompts, torch.rand(2, 3, PIXELS, PIXELS, generator=generator)


@pytest.mark.parametrize("timestep", [0, 21, 500, 999])
def test_networks(pipeline, demo, timestep):
    unet, controlnet = demo[0].model.diffusion_model, demo[3].control_model
    x, prompts, hints = network_inputs(pipeline)
    times = torch.tensor([timestep, timestep])

    down, middle = pipeline.controlnet(x, times, prompts, hints, return_dict=False)
    control = controlnet(x=x, hint=hints, timesteps=times, context=prompts)
    for ours, theirs in zip([*control["output"], *control["middle"]], [*down, middle], strict=True):
        assert tiny.error(ours, theirs) < 1e-4

    plain = pipeline.unet(x, times, prompts).sample
    assert tiny.error(unet(x, times, context=prompts), plain) < 1e-4
    controlled = pipeline.unet(
        x,
        times,
        prompts,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    assert tiny.error(unet(x, times, context=prompts, control=control), controlled) < 1e-4
    assert tiny.error(controlled, plain) > 0.1


def test_prediction_and_noise_levels(pipeline, demo):
    model = demo[0].model
    x, prompts, _ = network_inputs(pipeline)
    kept = pipeline.scheduler.alphas_cumprod
    sigmas = ((1 - kept) / kept).sqrt()
    assert tiny.error(model.model_sampling.sigmas, sigmas) < 1e-5
    clean = model.apply_model(
        x * (1 + sigmas[500] ** 2).sqrt(), sigmas[[500, 500]], c_crossattn=prompts
    )
    velocity = pipeline.unet(x, 500, prompts).sample
    assert tiny.error(clean, kept[500].sqrt() * x - (1 - kept[500]).sqrt() * velocity) < 1e-4


def diffusers_video(pipeline, video, noise, sigmas, attention: bool) -> torch.Tensor:
    """Frame by frame img2img with a ControlNet and Euler steps, in plain diffusers.

    noise: (frames, 4, height, width). sigmas: descending noise levels, the last one 0.
    Returns latents, scaled as the VAE gives them.
    """
    scale = pipeline.vae.config.scaling_factor
    frames, hints = (images.movedim(-1, 1) for images in video)
    latents = pipeline.vae.encode(frames * 2 - 1).latent_dist.mean * scale
    prompts = torch.cat([embedding(pipeline, POSITIVE), embedding(pipeline, NEGATIVE)])
    kept = pipeline.scheduler.alphas_cumprod
    levels = ((1 - kept) / kept).sqrt()
    context = cross_frame_attention(pipeline, FRAMES) if attention else nullcontext()
    painted = []
    with context as clip:
        for frame in range(FRAMES):
            if attention:
                clip.start_frame(frame)
            x = latents[frame] + noise[frame] * sigmas[0]
            for sigma, next_sigma in pairwise(sigmas):
                timestep = (levels - sigma).abs().argmin()
                inputs = (x / (sigma**2 + 1).sqrt()).expand(2, -1, -1, -1)
                hint = hints[frame].expand(2, -1, -1, -1)
                down, middle = pipeline.controlnet(
                    inputs, timestep, prompts, hint, STRENGTH, return_dict=False
                )
                positive, negative = pipeline.unet(
                    inputs,
                    timestep,
                    prompts,
                    down_block_additional_residuals=down,
                    mid_block_additional_residual=middle,
                ).sample
                velocity = negative + CFG * (positive - negative)
                clean = x / (sigma**2 + 1) - velocity * sigma / (sigma**2 + 1).sqrt()
                x = x + (x - clean) / sigma * (next_sigma - sigma)
            painted.append(x / scale)
    return torch.stack(painted)


def conditions(demo, hints) -> tuple:
    """(positive, negative) from stock nodes."""
    import nodes

    prompts = (nodes.CLIPTextEncode().encode(demo[1], text)[0] for text in (POSITIVE, NEGATIVE))
    return tiny.apply_controlnet(*prompts, demo[3], hints, STRENGTH)


@pytest.fixture(scope="module")
def by_diffusers(pipeline, demo, video):
    """A function that paints with or without cross-frame attention; each result is made once."""
    import comfy.sample
    import comfy.samplers

    settings = (tiny.SAMPLING["steps"], "cpu", "euler", "simple", tiny.SAMPLING["denoise"])

    @functools.cache
    def paint(attention):
        with torch.inference_mode():
            shape = torch.zeros(FRAMES, 4, LATENTS, LATENTS)
            noise = comfy.sample.prepare_noise(shape, tiny.SAMPLING["seed"])
            sigmas = comfy.samplers.KSampler(demo[0], *settings).sigmas
            return diffusers_video(pipeline, video, noise, sigmas, attention)

    return paint


@pytest.mark.parametrize("order", [None, *tiny.ORDERS])
def test_the_stock_graph(pipeline, demo, video, by_diffusers, order):
    """Order None is the graph without the pack: no cross-frame attention."""
    import nodes

    model, _, vae, _ = demo
    (latent,) = nodes.VAEEncode().encode(vae, video[0])
    sample = tiny.ksampler if order is None else tiny.ORDERS[order]
    samples = sample(
        model if order is None else tiny.patch(model),
        *conditions(demo, video[1]),
        latent,
        cfg=CFG,
        scheduler="simple",
    )
    (pictures,) = nodes.VAEDecode().decode(vae, {"samples": samples})

    expected = by_diffusers(attention=order is not None)
    other = by_diffusers(attention=order is None)
    decoded = pipeline.vae.decode(expected).sample.movedim(1, -1) / 2 + 0.5
    print(f"distance to diffusers {tiny.error(samples, expected):.1e}")
    assert tiny.error(samples, expected) < 1e-4
    assert tiny.error(pictures, decoded.clamp(0, 1)) < 1e-4
    assert (other - expected)[1:].std() > 0.05 * expected.std()  # Whom frames look at matters.


def test_the_same_call_of_the_pipeline(pipeline, demo, video):
    """A diffusers pipeline with its own scheduler, and ComfyUI's nodes for custom sampling."""
    import nodes

    steps, strength, seed = 8, 0.75, 3
    scale = pipeline.vae.config.scaling_factor
    (latent,) = nodes.VAEEncode().encode(demo[2], video[0])
    painted = []
    with cross_frame_attention(pipeline, FRAMES, layers="all") as clip:
        for frame in range(FRAMES):
            clip.start_frame(frame)
            output = pipeline(
                POSITIVE,
                negative_prompt=NEGATIVE,
                image=latent["samples"][frame : frame + 1] * scale,
                control_image=video[1][frame : frame + 1].movedim(-1, 1),
                strength=strength,
                num_inference_steps=steps,
                guidance_scale=CFG,
                controlnet_conditioning_scale=STRENGTH,
                generator=torch.Generator().manual_seed(seed),
                output_type="latent",
            )
            painted.append(output.images)
    kept = pipeline.scheduler.alphas_cumprod
    # The pipeline ends at the lowest noise level, not at 0, and scales by what is kept there.
    expected = torch.cat(painted) / kept[0].sqrt() / scale

    timesteps = pipeline.scheduler.timesteps[-int(steps * strength) :].tolist()
    guider = bench.guider(tiny.patch(demo[0], layers="all"), conditions(demo, video[1]), CFG)
    sigmas = ((1 - kept) / kept).sqrt()[[*timesteps, 0]]
    noise = bench.clip_noise(seed, tiny.SAME)
    ours = bench.custom(guider, "euler", sigmas, latent, noise, frame_by_frame=False)
    print(f"distance to the pipeline {tiny.error(ours, expected):.1e}")
    assert tiny.error(ours, expected) < 1e-4


def test_the_node(folder, monkeypatch):
    import comfy.controlnet
    import comfy.sd
    from comfy.model_patcher import ModelPatcher
    from crossframe.nodes import NODES, demo

    assert demo.CrossFrameDemoModel in NODES
    schema = demo.CrossFrameDemoModel.define_schema()
    assert schema.node_id == "CrossFrameDemoModel"
    assert [choice.id for choice in schema.inputs] == ["architecture"]
    assert [o.io_type for o in schema.outputs] == ["MODEL", "CLIP", "VAE", "CONTROL_NET"]
    assert all(output.tooltip for output in schema.outputs)

    monkeypatch.setattr(demo, "FOLDER", folder)
    outputs = demo.CrossFrameDemoModel.execute().args
    kinds = (ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE, comfy.controlnet.ControlNet)
    assert all(isinstance(output, kind) for output, kind in zip(outputs, kinds, strict=True))


def test_comfyui_can_load_the_model_anew(demo):
    build, arguments = demo[0].cached_patcher_init
    again = build(*arguments, disable_dynamic=True)
    name = "diffusion_model.out.2.weight"
    weights = demo[0].model.state_dict()[name]
    assert again.model is not demo[0].model
    assert torch.equal(again.model.state_dict()[name], weights)


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the files to damage."""
    import shutil

    return shutil.copytree(folder, tmp_path / "model")


def load(folder):
    """Execute the node, which reads its files in a folder."""
    from crossframe.nodes import demo

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "FOLDER", folder)
        return demo.CrossFrameDemoModel.execute().args


def check_error(folder, *words: str) -> None:
    from crossframe.hosts.comfy.errors import BadInputError

    with pytest.raises(BadInputError) as caught:
        load(folder)
    message = str(caught.value)
    assert all(word in message for word in ("CrossFrameDemoModel", "Reinstall the pack", *words))


@pytest.mark.parametrize(
    "file",
    [
        *(f"{part}/config.json" for part in PARTS),
        *(f"{part}/{file}" for part, file in PARTS.items()),
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
    ],
)
def test_a_missing_file_is_named(damaged, file):
    (damaged / file).unlink()
    check_error(damaged, str(damaged / file), "missing")


def test_a_missing_folder_is_named(tmp_path):
    check_error(tmp_path / "nowhere", "nowhere", "missing")


@pytest.mark.parametrize("file", ["unet/config.json", f"vae/{PARTS['vae']}"])
def test_a_cut_off_file_is_named(damaged, file):
    whole = (damaged / file).read_bytes()
    (damaged / file).write_bytes(whole[: len(whole) // 2])
    check_error(damaged, str(damaged / file), "cannot be read")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("change", ["missing", "unknown", "other shape"])
def test_weights_that_do_not_fit(damaged, part, change):
    file = damaged / part / PARTS[part]
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("weight") and weights[name].ndim > 1)
    if change == "missing":
        del weights[name]
    elif change == "unknown":
        weights["stranger.weight"] = torch.zeros(3)
    else:
        weights[name] = weights[name][1:].clone()
    save_file(weights, file)
    check_error(damaged, part, "fit")


@pytest.mark.skipif(not builders.FOLDER.exists(), reason="the model is not there yet")
def test_the_model_that_comes_with_the_pack():
    import nodes

    demo = load(builders.FOLDER)
    frames = tiny.images(2, size=PIXELS // 8)
    (latent,) = nodes.VAEEncode().encode(demo[2], frames)
    samples = tiny.ksampler(tiny.patch(demo[0]), *conditions(demo, frames), latent, cfg=CFG)
    (pictures,) = nodes.VAEDecode().decode(demo[2], {"samples": samples})
    assert pictures.shape == frames.shape
    assert pictures.isfinite().all()
