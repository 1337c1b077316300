"""What ships: the model as diffusers loads it, its size, and the clip."""

import json

import pytest
import torch
from crossframe.demo import looks, model, shipped, world
from crossframe.demo.video import read_clip

LARGEST = 12 * 1024**2  # bytes


def test_the_model_is_small_and_in_half_precision():
    from safetensors import safe_open

    files = [file for file in model.FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < LARGEST
    weights = [file for file in files if file.suffix == ".safetensors"]
    assert len(weights) == 4
    for file in weights:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                assert tensors.get_tensor(name).dtype == torch.float16, name


def test_it_loads_as_it_is():
    from diffusers import StableDiffusionControlNetImg2ImgPipeline

    pipeline = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(model.FOLDER)
    words = [word for word in looks.WORDS if len(pipeline.tokenizer.tokenize(word)) != 1]
    assert not words
    names = [name for name, _ in pipeline.unet.named_modules() if name.endswith("attn1")]
    for place in ("down_blocks", "mid_block", "up_blocks"):
        assert any(name.startswith(place) for name in names)


def test_the_builders_describe_the_shipped_model(pipeline):
    tokenizer = pipeline.tokenizer
    for part, built in (
        ("unet", model.new_unet()),
        ("vae", model.new_autoencoder()),
        ("text_encoder", model.new_text_encoder(tokenizer)),
        ("controlnet", model.new_controlnet(model.new_unet())),
    ):
        shapes = {name: weight.shape for name, weight in built.state_dict().items()}
        loaded = getattr(pipeline, part).state_dict()
        assert {name: weight.shape for name, weight in loaded.items()} == shapes, part
    scheduler = json.loads((model.FOLDER / "scheduler" / "scheduler_config.json").read_text())
    for name, value in model.new_scheduler().config.items():
        assert scheduler.get(name, value) == value


def test_the_autoencoder_keeps_pictures(pipeline):
    stills = world.random_stills(4, torch.Generator().manual_seed(0))
    pictures = world.render(stills, world.PLAIN)
    with torch.no_grad():
        latents = pipeline.vae.encode(pictures * 2 - 1).latent_dist.mean
        copies = pipeline.vae.decode(latents).sample / 2 + 0.5
    assert (copies - pictures).square().mean() < 0.005
    scaled = latents * pipeline.vae.config.scaling_factor
    assert scaled.std() == pytest.approx(1, abs=0.4)


def test_the_shipped_clip_is_what_its_truth_says():
    clip = shipped.shipped_clip()
    frames = read_clip(shipped.CLIP_FILE)
    truth = world.render(clip, world.PLAIN)
    assert frames.shape == truth.shape
    assert (frames - truth).abs().mean() < 0.01  # it is compressed


def test_the_prompt_decides_what_it_names(pipeline):
    """Neon pictures are more saturated than pastel ones."""
    from crossframe.demo.edit import Sampling, Setting, edit

    clip = world.random_clip(1, torch.Generator().manual_seed(5))
    source = world.render(clip, world.PLAIN)[None]
    saturation = {}
    for mood in ("neon", "pastel"):
        found = []
        for seed in range(3):
            (frames,) = edit(
                pipeline,
                source,
                [f"a {mood} drawing"],
                [seed],
                Setting(),
                Sampling(steps=10),
                progress=False,
            )
            found.append((frames.amax(dim=1) - frames.amin(dim=1)).mean())
        saturation[mood] = float(torch.stack(found).mean())
    assert saturation["neon"] > 1.5 * saturation["pastel"]
