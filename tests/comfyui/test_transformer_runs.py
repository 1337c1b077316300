"""Runs of transformers: memory, states, neighbours, bad input."""

import dataclasses
import re
import types

import bench
import pytest
import tiny
import torch
from families import FAMILIES
from graphs import CLIP, Graph, Plan

FLUX = FAMILIES["flux"]
QWEN = FAMILIES["qwen_image"]


@pytest.fixture(scope="module")
def flux():
    return FLUX.model()


@pytest.fixture(scope="module")
def prompts():
    return FLUX.prompt(1), FLUX.prompt(2)


def expected_sizes(report: str) -> list[str]:
    """The sizes that a report names: what the bank held, and what was expected."""
    return re.search(r"held at most ([\d.]+ \w+) \(([\d.]+ \w+) expected\)", report).groups()


@pytest.mark.parametrize("precision", ["as computed", "int8 per token"])
@pytest.mark.parametrize("layers", ["up", "all"])
@pytest.mark.parametrize("name", ["flux", "qwen_image", "lumina2", "sd3"])
def test_the_bank_has_the_size_that_is_announced(name, layers, precision, caplog):
    family = FAMILIES[name]
    model = tiny.patch(family.model(), layers=layers, bank_precision=precision)
    conds = family.prompt(1), family.prompt(2)
    output = tiny.frame_output(model, *conds, family.clip(4), sampler_name="heun", steps=2)
    report = output.ui["text"][0] if output.ui else ""
    held, expected = expected_sizes(report)
    assert held == expected
    assert f"keys and values take up to {held}" in caplog.text


def test_repeated_heads_are_kept_once():
    """Lumina2 repeats every head of keys and values; half of them are enough."""
    family = FAMILIES["lumina2"]
    conds = family.prompt(1), family.prompt(2)
    output = tiny.frame_output(tiny.patch(family.model(), layers="all"), *conds, family.clip(3))
    tokens, layer_count, evaluations, conds_run = 15, 7, 4, 2
    kept = 2  # frames, the first and the one before
    numbers = 2 * 2 * 16 * tokens  # keys and values, heads, channels
    nbytes = numbers * 4 * layer_count * evaluations * conds_run * kept
    assert expected_sizes(output.ui["text"][0])[0] == f"{nbytes / 1024:.1f} KiB"


def test_a_bank_that_does_not_fit_is_refused_with_its_size(flux, prompts, monkeypatch):
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: 1000)
    with pytest.raises(ValueError) as caught:
        tiny.frame_ksampler(tiny.patch(flux), *prompts, FLUX.clip(3))
    words = str(caught.value)
    assert words.startswith("CrossFrameKSampler: input 'model': painting frame by frame")
    assert "KiB, but only 1000 B are free" in words
    assert "Use a stock sampler node" in words
    assert "int8 per token" in words


@pytest.mark.parametrize("plan", [Plan(family="flux", pictures=CLIP), Plan(family="qwen_image")])
def test_a_clip_in_two_pieces_is_the_clip_in_one(parts, plan, tmp_path, monkeypatch):
    """The second piece goes on from a state that has been in a file."""
    import folder_paths
    from crossframe.hosts.comfy.state.files import read, save_state

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    graph = Graph.build(plan, parts)
    model = graph.patched()
    whole = graph.paint(True, model)
    first, _, state, *_ = graph.part(0, 3).sample(True, model, keep_state=True)
    file, _ = save_state(state, "state")
    for kept in (state, read(file)):
        rest = graph.part(3, 5).paint(True, model, state=kept)
        assert tiny.error(torch.cat([first["samples"], rest]), whole) < 1e-4


def test_a_state_of_another_family_is_refused(parts):
    flux, qwen = (Graph.build(Plan(family=name), parts) for name in ("flux", "qwen_image"))
    state = flux.part(0, 3).sample(True, keep_state=True)[2]
    bench.refuses(
        lambda: qwen.part(3, 5).paint(True, state=state),
        match="input 'state': it was made with a model of the kind Flux, but .* QwenImage",
    )
    layers = dataclasses.replace(flux.plan, layers="up")
    bench.refuses(
        lambda: Graph.build(layers, parts).part(3, 5).paint(True, state=state),
        match="input 'state': it was made with the layers 'all', but this run has the layers 'up'",
    )


def test_pictures_reach_their_frame(flux, prompts):
    """A frame that attends to itself comes out as it does alone, with its own reference."""
    latent = FLUX.clip(3)
    conds = [FLUX.with_references(cond, 3) for cond in prompts]
    together = tiny.ksampler(tiny.patch_own(flux, 2), *conds, latent)
    one_by_one = tiny.frame_ksampler(tiny.patch_own(flux), *conds, latent)
    assert tiny.error(one_by_one, together) < 1e-4
    ((_, values),) = conds[0]
    turned = [picture.roll(1, 0) for picture in values["reference_latents"]]
    others = [[[cond[0][0], {**cond[0][1], "reference_latents": turned}]] for cond in conds]
    assert tiny.error(tiny.ksampler(flux, *others, latent), together) > 0.01


def test_pictures_of_another_number_are_refused(flux, prompts):
    conds = [FLUX.with_references(cond, 2) for cond in prompts]
    for sample in tiny.ORDERS.values():
        bench.refuses(
            lambda sample=sample: sample(tiny.patch(flux), *conds, FLUX.clip(5)),
            match="input 'positive': it has 2 reference latents for a clip of 5 frames",
        )


def test_noise_masks_per_frame_in_latents_with_an_axis_of_time():
    """ComfyUI takes their rows for moments of one video; frame by frame each has its own."""
    model, conds, latent = QWEN.model(), (QWEN.prompt(1), QWEN.prompt(2)), QWEN.clip(3)
    height, width = latent["samples"].shape[-2:]
    masks = tiny.masks(3, size=(height, width)).unsqueeze(1)
    frames = tiny.frame_ksampler(tiny.patch_own(model), *conds, {**latent, "noise_mask": masks})
    clean = latent["samples"]
    for frame in range(3):
        resized = torch.nn.functional.interpolate(masks, (height, width), mode="bilinear")
        kept = resized[frame : frame + 1] == 0
        difference = (frames[frame, :, 0] - clean[frame, :, 0]).abs()[:, kept[0, 0]]
        assert difference.max() < 1e-3


# Neighbours --------------------------------------------------------------------------------------


def with_override(model, function):
    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = function
    return model


@pytest.mark.parametrize("first", ["the other", "CrossFrameAttention"])
def test_another_override_is_gone_through(flux, prompts, first):
    """It sees every call, with the keys of the references, and what it returns is used."""
    lengths = set()

    def halved(function, q, k, v, heads, *args, **kwargs):
        lengths.add(k.shape[2])
        return function(q, k, v, heads, *args, **kwargs) * 0.5

    def patched(frames_per_batch=0):
        if first == "the other":
            model = with_override(flux, halved)
            return tiny.patch(model, layers="all", frames_per_batch=frames_per_batch)
        patched = tiny.patch(flux, layers="all", frames_per_batch=frames_per_batch)
        return with_override(patched, halved)

    latent = FLUX.clip(4)
    whole = tiny.ksampler(patched(), *prompts, latent)
    assert lengths == {22, 44}  # text and picture, for one reference and for two
    assert tiny.error(tiny.ksampler(patched(1), *prompts, latent), whole) < 1e-4
    assert tiny.error(tiny.frame_ksampler(patched(), *prompts, latent), whole) < 1e-4
    assert tiny.error(tiny.ksampler(tiny.patch(flux, layers="all"), *prompts, latent), whole) > 0.01


@pytest.mark.parametrize("name", ["basic", "split", "sub_quad", "pytorch"])
def test_every_attention_function_of_comfyui(flux, prompts, name):
    import comfy.ldm.modules.attention as attention

    function = getattr(attention, f"attention_{name}")
    latent = FLUX.clip(3)
    expected = tiny.ksampler(tiny.patch(flux, layers="all"), *prompts, latent)

    def other(_, *args, **kwargs):
        return function(*args, **kwargs)

    model = tiny.patch(with_override(flux, other), layers="all")
    assert tiny.error(tiny.ksampler(model, *prompts, latent), expected) < 1e-4


def test_model_attention_backend(flux, prompts):
    nodes = pytest.importorskip("comfy_extras.nodes_model_advanced")
    if not hasattr(nodes, "ModelAttentionBackend"):
        pytest.skip("this ComfyUI has no ModelAttentionBackend")
    latent = FLUX.clip(3)
    expected = tiny.ksampler(tiny.patch(flux, layers="all"), *prompts, latent)
    (model,) = nodes.ModelAttentionBackend().patch(flux, "pytorch attention")
    for sample in tiny.ORDERS.values():
        frames = sample(tiny.patch(model, layers="all"), *prompts, latent)
        assert tiny.error(frames, expected) < 1e-4


def skip_layers(model):
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    return SkipLayerGuidanceDiT.execute(model, 2.0, 0.0, 1.0, "1", "1, 2").args[0]


def nag(model):
    from comfy_extras.nodes_nag import NAGuidance

    return NAGuidance.execute(model, 2.0, 0.5, 1.5).args[0]


@pytest.mark.parametrize("layers", ["up", "all"])
@pytest.mark.parametrize("node", [skip_layers, nag])
@pytest.mark.parametrize("name", ["flux", "sd3", "qwen_image"])
def test_guidance_that_changes_blocks(name, node, layers):
    family = FAMILIES[name]
    real, conds, latent = family.model(), (family.prompt(1), family.prompt(2)), family.clip(3)

    def patched(frames_per_batch=0):
        return node(tiny.patch(real, layers=layers, frames_per_batch=frames_per_batch))

    if name == "sd3" and node is skip_layers and layers == "up":
        with pytest.raises(ValueError, match="input 'layers': another node leaves out blocks"):
            tiny.ksampler(patched(), *conds, latent)
        return
    whole = tiny.ksampler(patched(), *conds, latent)
    assert tiny.error(tiny.ksampler(patched(1), *conds, latent), whole) < 1e-4
    assert tiny.error(tiny.frame_ksampler(patched(), *conds, latent), whole) < 1e-4


def test_flux_kv_cache_is_refused(flux, prompts):
    nodes = pytest.importorskip("comfy_extras.nodes_flux")
    if not hasattr(nodes, "FluxKVCache"):
        pytest.skip("this ComfyUI has no FluxKVCache")
    model = tiny.patch(nodes.FluxKVCache.execute(flux).args[0])
    for sample in tiny.ORDERS.values():
        bench.refuses(
            lambda sample=sample: sample(model, *prompts, FLUX.clip(3)),
            match="input 'model': Flux KV Cache keeps keys",
        )


@pytest.fixture
def flux_has_patches():
    """Old versions of ComfyUI call no attn1_patch in Flux, and give patches no options."""
    import inspect

    from comfy.ldm.flux import layers

    if "attn1_patch" not in inspect.getsource(layers):
        pytest.skip("this ComfyUI's Flux has no such patches")


def test_a_node_that_lengthens_keys_is_refused_in_words(flux, prompts, flux_has_patches):
    def longer(q, k, v, pe=None, attn_mask=None, extra_options=None):
        more = [torch.cat([tensor, tensor[:, :, :3]], dim=2) for tensor in (k, v)]
        return {"q": q, "k": more[0], "v": more[1], "pe": None}

    model = tiny.patch(flux)
    model.set_model_patch(longer, "attn1_patch")
    with pytest.raises(ValueError, match="input 'model': another node changes the sequences"):
        tiny.ksampler(model, *prompts, FLUX.clip(3))


def test_a_node_that_bypasses_attention_is_refused(flux, prompts, flux_has_patches):
    """EliGen's patch for Qwen-Image swaps the override inside of blocks."""

    def patch_input(inputs):
        inputs["transformer_options"].pop("optimized_attention_override", None)
        return inputs

    wrapped = tiny.patch(flux, layers="all")
    wrapped.set_model_patch(patch_input, "post_input")
    with pytest.raises(ValueError, match="input 'model': another node keeps 6 of 6 layers"):
        tiny.ksampler(wrapped, *prompts, FLUX.clip(3))


def test_a_node_that_runs_the_model_on_parts_of_the_picture(flux, prompts):
    """The parts have another size than the picture, so their tokens are found when they come."""

    def halves(apply_model, args):
        parts = args["input"].split(2, dim=-2)
        results = [apply_model(part, args["timestep"], **args["c"]) for part in parts]
        return torch.cat(results, dim=-2)

    def patched(frames_per_batch=0):
        model = tiny.patch(flux, layers="all", frames_per_batch=frames_per_batch)
        model.set_model_unet_function_wrapper(halves)
        return model

    latent = FLUX.clip(3)
    whole = tiny.ksampler(patched(), *prompts, latent)
    assert tiny.error(tiny.ksampler(patched(1), *prompts, latent), whole) < 1e-4
    assert tiny.error(tiny.frame_ksampler(patched(), *prompts, latent), whole) < 1e-4


@pytest.mark.parametrize("first", ["the other", "CrossFrameAttention"])
def test_compiled(flux, prompts, first):
    """Compiled first without cross-frame attention, and then used with it."""
    from test_neighbours import compiled

    latent = FLUX.clip(3)
    expected = tiny.ksampler(tiny.patch(flux, layers="all"), *prompts, latent)
    if first == "the other":
        bare = compiled(flux)
        tiny.ksampler(bare, *prompts, latent)
        model = tiny.patch(bare, layers="all", frames_per_batch=1)
    else:
        model = compiled(tiny.patch(flux, layers="all", frames_per_batch=1))
    for sample in tiny.ORDERS.values():
        assert tiny.error(sample(model, *prompts, latent), expected) < 1e-4


class AverageVAE:
    """Encodes a picture by averaging, with the axis of time that Qwen-Image's VAE has."""

    def spacial_compression_encode(self):
        return 8

    def encode(self, image):
        averages = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8)
        return torch.cat([averages] * 6, dim=1)[:, :16].unsqueeze(2)


class Tokens(torch.nn.Module):
    """Stands in for the network of a DiffSynth control: the picture's tokens, projected."""

    additional_in_dim = 0

    def __init__(self, width):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(64, width, generator=generator) * 0.3)

    def process_input_latent_image(self, latents):
        # The last row and column are doubled if a side is odd, as ComfyUI does.
        odd = [side % 2 for side in latents.shape[-2:]]
        latents = torch.nn.functional.pad(latents, (0, odd[1], 0, odd[0], 0, 0), mode="replicate")
        rows, channels, _, height, width = latents.shape
        patches = latents.reshape(rows, channels, 1, height // 2, 2, width // 2, 2)
        return patches.permute(0, 2, 3, 5, 1, 4, 6).reshape(rows, -1, channels * 4)

    def control_block(self, img, control, block_index):
        return control.to(img) @ self.weight.to(img)


@pytest.mark.parametrize(("rows", "cfg"), [(1, 3.0), (1, 1.0), (3, 1.0)])
@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_a_patch_that_encodes_its_picture_again(rows, cfg, scale):
    """DiffSynth's control encodes its picture in the first call if it has another size."""
    import comfy.model_patcher
    from comfy_extras.nodes_model_patch import QwenImageDiffsynthControlnet

    real, prompts, latent = QWEN.model(), (QWEN.prompt(1), QWEN.prompt(2)), QWEN.clip(3)
    height, width = (int(side * 8 * scale) for side in latent["samples"].shape[-2:])
    picture = torch.rand(rows, height, width, 3, generator=torch.Generator().manual_seed(3))
    network = Tokens(real.model.diffusion_model.img_in.weight.shape[0])
    control = comfy.model_patcher.ModelPatcher(network, torch.device("cpu"), torch.device("cpu"))

    def patched(frames_per_batch=0):
        model = tiny.patch(real, layers="all", frames_per_batch=frames_per_batch)
        node = QwenImageDiffsynthControlnet()
        return node.diffsynth_controlnet(model, control, AverageVAE(), picture, 1.0)[0]

    whole = tiny.ksampler(patched(), *prompts, latent, cfg=cfg)
    for batch in (1, 2):
        assert tiny.error(tiny.ksampler(patched(batch), *prompts, latent, cfg=cfg), whole) < 1e-4
    assert tiny.error(tiny.frame_ksampler(patched(), *prompts, latent, cfg=cfg), whole) < 1e-4
    without = tiny.ksampler(tiny.patch(real, layers="all"), *prompts, latent, cfg=cfg)
    assert tiny.error(without, whole) > 0.01


def test_a_node_that_puts_tokens_after_the_picture_is_refused(flux, prompts):
    def append(inputs):
        return {
            **inputs,
            "img": torch.cat([inputs["img"], inputs["img"][:, :4]], dim=1),
            "img_ids": torch.cat([inputs["img_ids"], inputs["img_ids"][:, :4]], dim=1),
        }

    model = tiny.patch(flux)
    model.set_model_patch(append, "post_input")
    with pytest.raises(ValueError, match="input 'model': another node changes the sequences"):
        tiny.ksampler(model, *prompts, FLUX.clip(3))


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_a_wrapper_that_runs_the_network_twice(name):
    from comfy.patcher_extension import WrappersMP

    family = FAMILIES[name]
    real, conds, latent = family.model(), (family.prompt(1), family.prompt(2)), family.clip(3)

    def twice(executor, *args, **kwargs):
        executor(*args, **kwargs)
        return executor(*args, **kwargs)

    expected = tiny.ksampler(tiny.patch(real, layers="all"), *conds, latent)
    for batch in (0, 1):
        model = tiny.patch(real, layers="all", frames_per_batch=batch)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", twice)
        assert tiny.error(tiny.ksampler(model, *conds, latent), expected) < 1e-4
        assert tiny.error(tiny.frame_ksampler(model, *conds, latent), expected) < 1e-4


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_easy_cache_in_one_batch(name):
    """It leaves out the whole network at some steps."""
    from comfy_extras.nodes_easycache import EasyCacheNode

    family = FAMILIES[name]
    conds, latent = (family.prompt(1), family.prompt(2)), family.clip(3)
    settings = {"steps": 10, "denoise": 1.0, "cfg": 1.5}
    patched = tiny.patch(family.model(), layers="all")
    cached, calls = bench.spied(EasyCacheNode.execute(patched, 3.0, 0.1, 0.95, False).args[0])
    frames = tiny.ksampler(cached, *conds, latent, **settings)
    assert torch.isfinite(frames).all()
    assert tiny.error(frames, tiny.ksampler(patched, *conds, latent, **settings)) > 1e-4
    bench.refuses(
        lambda: tiny.frame_ksampler(cached, *conds, latent, **settings), match="EasyCache"
    )
    assert calls


def test_guidance_that_runs_a_prompt_of_its_own():
    """Its text has another length than those of the guider."""
    import comfy.samplers
    from comfy.sampler_helpers import convert_cond

    family = FAMILIES["z_image"]
    real, conds, latent = family.model(), (family.prompt(1), family.prompt(2)), family.clip(3)
    own = convert_cond(family.prompt(5, tokens=40))

    def guided(frames_per_batch=0):
        def guide(args):
            x, model, sigma = args["input"], args["model"], args["sigma"]
            entries = comfy.samplers.encode_model_conds(
                model.extra_conds, [dict(own[0])], x, x.device, "positive"
            )
            options = args["model_options"]
            (more,) = comfy.samplers.calc_cond_batch(model, [entries], x, sigma, options)
            return args["denoised"] + 0.3 * (more - args["denoised"])

        model = tiny.patch(real, layers="all", frames_per_batch=frames_per_batch)
        model.set_model_sampler_post_cfg_function(guide)
        return model

    whole = tiny.ksampler(guided(), *conds, latent)
    assert tiny.error(tiny.ksampler(guided(1), *conds, latent), whole) < 1e-4
    assert tiny.error(tiny.ksampler(tiny.patch(real, layers="all"), *conds, latent), whole) > 0.01


def test_a_first_frame_without_numbers(flux, prompts):
    """NaN in the first frame stays NaN, as without the pack."""
    latent = FLUX.clip(3)
    latent["samples"][0] = float("nan")
    frames = tiny.ksampler(tiny.patch(flux), *prompts, latent)
    assert frames[0].isnan().all()


def test_numbers_that_overflow_without_attention_are_refused(flux, prompts, monkeypatch):
    from crossframe.hosts.comfy.run import token_layout

    zeros = token_layout.Arguments.zeros
    monkeypatch.setattr(token_layout.Arguments, "zeros", lambda call: zeros(call) + float("inf"))
    with pytest.raises(ValueError, match="its numbers overflow where attention is switched off"):
        tiny.ksampler(tiny.patch(flux), *prompts, FLUX.clip(3))


# Bad input ---------------------------------------------------------------------------------------


def test_a_latent_of_a_video_is_refused():
    model, conds = QWEN.model(), (QWEN.prompt(1), QWEN.prompt(2))
    latent = {"samples": QWEN.clip(3)["samples"].repeat(1, 1, 3, 1, 1)}
    for sample in tiny.ORDERS.values():
        bench.refuses(
            lambda sample=sample: sample(tiny.patch(model), *conds, latent),
            match="input 'latent_image': it is a 5-D latent, .* CrossFrameVAEEncode",
        )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("WAN21_Vace", "WAN21_Vace is a video model"),
        ("HunyuanVideo", "is a video model"),
        ("LTXV", "is a video model"),
        ("ACEStep", "ACEStep does not paint pictures"),
    ],
)
def test_models_that_paint_no_pictures_are_refused_by_the_node(name, words):
    import comfy.model_base

    base = object.__new__(getattr(comfy.model_base, name))
    object.__setattr__(base, "diffusion_model", None)
    model = types.SimpleNamespace(model=base, model_options={})
    with pytest.raises(ValueError, match=f"^CrossFrameAttention: input 'model': .*{words}"):
        tiny.patch(model)


def test_a_family_whose_tokens_cannot_be_told_is_refused(flux, prompts, monkeypatch):
    """A network in which the text depends on the picture."""
    network = flux.model.diffusion_model
    forward = type(network).forward_orig

    def mixed(self, img, img_ids, txt, *args, **kwargs):
        return forward(
            self, img, img_ids, txt + img.mean(1, keepdim=True)[..., :1], *args, **kwargs
        )

    monkeypatch.setattr(type(network), "forward_orig", mixed)
    with pytest.raises(ValueError, match="input 'model': trying the model did not show"):
        tiny.ksampler(tiny.patch(flux), *prompts, FLUX.clip(3))


def test_texts_of_different_length(flux):
    """The prompts of cond and uncond need not have equally many tokens."""
    conds, latent = (FLUX.prompt(1, tokens=9), FLUX.prompt(2, tokens=5)), FLUX.clip(3)
    whole = tiny.ksampler(tiny.patch(flux, layers="all"), *conds, latent)
    assert (
        tiny.error(tiny.frame_ksampler(tiny.patch(flux, layers="all"), *conds, latent), whole)
        < 1e-4
    )
