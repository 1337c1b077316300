"""The DiT of CrossFrameDemoModel: it computes what was trained, and follows prompts and hints."""

import shutil
from itertools import pairwise

import pytest
import tiny
import torch
from crossframe import consistency
from crossframe.demo import dit, follows, in_comfyui, model, world
from crossframe.demo.edit import PLAIN, STEADY, Sampling
from crossframe.demo.judge import PARTS
from crossframe.demo.looks import COLOURS, describe
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

WEIGHTS = "transformer/model.safetensors"
TEXT_WEIGHTS = "text_encoder/model.safetensors"
STEPS, CFG = 8, 1.5
PICTURES = 10


@pytest.fixture(scope="module")
def demo():
    """(MODEL, CLIP, VAE, what stands for the CONTROL_NET) of the DiT that comes with the pack."""
    with torch.inference_mode():  # as ComfyUI executes nodes
        return in_comfyui.load_in_comfyui("DiT")


@pytest.fixture(scope="module")
def stills():
    """(the exact description of a few frames that were not trained on, what each pixel shows)."""
    clip = world.random_stills(PICTURES, torch.Generator().manual_seed(20_000_001))
    return clip, world.labels(clip)[1]


def paint(demo, clip, prompt: str, seed: int = 1):
    """Paint all frames of a clip on their own, with the clip as hint, (frames, 3, SIZE, SIZE)."""
    source = world.render(clip, world.PLAIN)
    sampling = Sampling(STEPS, guidance=CFG)
    return in_comfyui.edit_in_comfyui(demo, source, prompt, seed, PLAIN, sampling)


def share(found: list[bool]) -> float:
    return sum(found) / len(found)


def test_the_node_offers_both_architectures():
    from crossframe.nodes.demo import CrossFrameDemoModel

    (choice,) = CrossFrameDemoModel.define_schema().inputs
    assert choice.id == "architecture"
    assert choice.options == ["U-Net", "DiT"]
    assert choice.default == "U-Net"
    assert choice.optional  # Graphs from before know no such input.


def test_a_graph_from_before_gets_the_unet():
    import comfy.controlnet
    from crossframe.nodes.demo import CrossFrameDemoModel

    model, _, _, control = CrossFrameDemoModel.execute().args
    assert isinstance(control, comfy.controlnet.ControlNet)
    assert type(model.model).__name__ == "BaseModel"


def test_what_the_node_gives(demo):
    import comfy.model_base
    import comfy.sd
    from comfy.model_patcher import ModelPatcher
    from crossframe.hosts.comfy.demo.dit import NoControlNet

    kinds = ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE, NoControlNet
    assert all(isinstance(output, kind) for output, kind in zip(demo, kinds, strict=True))
    assert isinstance(demo[0].model, comfy.model_base.Flux)


@pytest.mark.parametrize("node", ["simple", "advanced", "inpainting", "union"])
def test_a_node_that_wants_a_controlnet_says_what_to_do(demo, node):
    from comfy_extras import nodes_controlnet
    from crossframe.hosts.comfy.errors import BadInputError

    import nodes

    prompt = nodes.CLIPTextEncode().encode(demo[1], "a drawing")[0]
    image, mask = tiny.images(1, size=8), torch.ones(1, 64, 64)
    inpaint = nodes_controlnet.ControlNetInpaintingAliMamaApply
    use = {
        "simple": lambda: nodes.ControlNetApply().apply_controlnet(prompt, demo[3], image, 1.0),
        "advanced": lambda: nodes.ControlNetApplyAdvanced().apply_controlnet(
            prompt, prompt, demo[3], image, 1.0, 0.0, 1.0
        ),
        "inpainting": lambda: inpaint.execute(
            prompt, prompt, demo[3], demo[2], image, mask, 1.0, 0.0, 1.0
        ),
        "union": lambda: nodes_controlnet.SetUnionControlNetType.execute(demo[3], "auto"),
    }
    with pytest.raises(BadInputError) as caught:
        use[node]()
    for words in ("CrossFrameDemoModel", "no ControlNet", "InstructPixToPixConditioning"):
        assert words in str(caught.value)


def trained_networks():
    """Transformer and text encoder as the training script has them, with the shipped weights."""
    transformer = dit.new_dit()
    transformer.load_state_dict(load_file(dit.FOLDER / WEIGHTS))
    text_encoder = CLIPTextModel.from_pretrained(dit.FOLDER / "text_encoder")
    return transformer.float(), text_encoder.float()


def as_trained(tokenizer, hints, noise, sigmas, prompt: str):
    """Sample in plain torch what the training script trains; hints and noise as latents."""
    transformer, text_encoder = trained_networks()
    tokens = tokenizer([prompt, ""], padding="max_length", return_tensors="pt").input_ids
    text = text_encoder(tokens)
    x = noise * sigmas[0]
    for level, next_level in pairwise(sigmas):
        velocity = [
            transformer(
                torch.cat((x, hints), dim=1),
                level.expand(len(x)),
                context.expand(len(x), -1, -1).clone(),
                y=pooled.expand(len(x), -1),
            )
            for context, pooled in zip(text.last_hidden_state, text.pooler_output, strict=True)
        ]
        x = x + (next_level - level) * (velocity[1] + CFG * (velocity[0] - velocity[1]))
    return x


def test_the_stock_graph_computes_what_was_trained(demo, tmp_path):
    import comfy.sample
    import comfy.samplers

    import nodes

    prompt = "a warm drawing with blue discs"
    frames = tiny.images(3, size=world.SIZE // 8)
    conditions = in_comfyui.conditions(demo, prompt, frames)
    latent = {"samples": torch.zeros(3, 4, 32, 32)}
    samples = tiny.ksampler(demo[0], *conditions, latent, cfg=CFG, scheduler="simple", denoise=1.0)

    settings = (tiny.SAMPLING["steps"], "cpu", "euler", "simple", 1.0)
    sigmas = comfy.samplers.KSampler(demo[0], *settings).sigmas
    even = torch.linspace(1, 0, tiny.SAMPLING["steps"] + 1)
    assert tiny.error(sigmas, dit.noise_levels(even)) < 1e-5
    scale = demo[0].model.latent_format.scale_factor
    hints = nodes.VAEEncode().encode(demo[2], frames)[0]["samples"] * scale
    noise = comfy.sample.prepare_noise(latent["samples"], tiny.SAMPLING["seed"])
    expected = as_trained(model.new_tokenizer(tmp_path), hints, noise, sigmas, prompt) / scale
    assert tiny.error(samples, expected) < 1e-3


def test_hints_decide_what_is_where(demo, stills):
    clip, part = stills
    pictures = paint(demo, clip, "a drawing")
    assert consistency.layout_accuracy(pictures, part, PARTS).nanmean() > 0.85


def test_prompts_decide_the_mood(demo, stills):
    clip, part = stills
    right, wrong = [], []
    moods = "warm", "cold", "pastel"
    for mood in moods:
        pictures = paint(demo, clip, describe(mood, {}))
        for other in moods:
            (right if other == mood else wrong).extend(follows.in_mood(pictures, part, other))
    assert share(right) > 1.5 * share(wrong)


def test_prompts_decide_the_colours_that_they_name(demo, stills):
    clip, part = stills
    right = []
    for colour in ("red", "blue"):
        for name in ("background", "discs"):
            named = {name: colour}
            pictures = paint(demo, clip, describe(None, named))
            right += follows.named_colours(pictures, part, named)
    assert share(right) > 2 / len(COLOURS)


@pytest.mark.parametrize("frame_by_frame", [False, True])
def test_cross_frame_attention_binds_its_frames(demo, frame_by_frame):
    clip = world.random_clip(4, torch.Generator().manual_seed(5))
    source = world.render(clip, world.PLAIN)
    sampling = Sampling(STEPS, guidance=CFG)
    motion = world.correspondence(clip, 1)
    found = {}
    for setting in (PLAIN, STEADY):
        order = frame_by_frame and setting is STEADY
        frames = in_comfyui.edit_in_comfyui(
            demo, source, "a neon drawing", 1, setting, sampling, order
        )
        found[setting] = float(consistency.warp_error(frames, motion).nanmean())
    assert found[STEADY] < 0.5 * found[PLAIN]


def test_comfyui_can_load_the_model_anew(demo):
    build, arguments = demo[0].cached_patcher_init
    again = build(*arguments, disable_dynamic=True)
    name = "diffusion_model.final_layer.linear.weight"
    assert again.model is not demo[0].model
    assert torch.equal(again.model.state_dict()[name], demo[0].model.state_dict()[name])


@pytest.fixture
def damaged(tmp_path):
    """Copies of the files to damage: (the DiT's folder, the U-Net's folder)."""
    folders = tmp_path / "dit", tmp_path / "model"
    shutil.copytree(dit.FOLDER, folders[0])
    shutil.copytree(model.FOLDER, folders[1])
    return folders


def check_error(folders, *words: str) -> None:
    from crossframe.hosts.comfy.errors import BadInputError
    from crossframe.nodes import demo

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DIT_FOLDER", folders[0])
        patch.setattr(demo, "FOLDER", folders[1])
        with pytest.raises(BadInputError) as caught:
            demo.CrossFrameDemoModel.execute("DiT")
    message = str(caught.value)
    assert all(word in message for word in ("CrossFrameDemoModel", "Reinstall the pack", *words))


@pytest.mark.parametrize(
    "file",
    [
        "dit/transformer/config.json",
        f"dit/{WEIGHTS}",
        "dit/scheduler/scheduler_config.json",
        "dit/text_encoder/config.json",
        f"dit/{TEXT_WEIGHTS}",
        "model/vae/config.json",
        "model/tokenizer/vocab.json",
    ],
)
def test_a_missing_file_is_named(damaged, tmp_path, file):
    (tmp_path / file).unlink()
    check_error(damaged, str(tmp_path / file), "missing")


@pytest.mark.parametrize("file", ["transformer/config.json", WEIGHTS, TEXT_WEIGHTS])
def test_a_cut_off_file_is_named(damaged, file):
    whole = (damaged[0] / file).read_bytes()
    (damaged[0] / file).write_bytes(whole[: len(whole) // 2])
    check_error(damaged, str(damaged[0] / file), "cannot be read")


@pytest.mark.parametrize("file", [WEIGHTS, TEXT_WEIGHTS])
@pytest.mark.parametrize("change", ["missing", "unknown", "other shape"])
def test_weights_that_do_not_fit(damaged, file, change):
    weights = load_file(damaged[0] / file)
    name = next(name for name in weights if name.endswith("weight") and weights[name].ndim > 1)
    if change == "missing":
        del weights[name]
    elif change == "unknown":
        weights["stranger.weight"] = torch.zeros(3)
    else:
        weights[name] = weights[name][1:].clone()
    save_file(weights, damaged[0] / file)
    check_error(damaged, file.partition("/")[0], "fit")
