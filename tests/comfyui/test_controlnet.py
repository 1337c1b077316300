"""A ControlNet whose self-attention takes part in the run, in real ComfyUI."""

from itertools import pairwise

import bench
import pytest
import tiny
import torch
from crossframe.demo import world
from graphs import attending

FRAMES, STEPS, CFG, SEED = 4, 8, 2.0, 5
LOOK = {"references": "first", "layers": "all"}


@pytest.fixture(scope="module")
def images():
    """The source, (frames, SIZE, SIZE, 3)."""
    clip = world.random_clip(FRAMES, torch.Generator().manual_seed(3))
    return world.render(clip, world.PLAIN).movedim(1, -1)


@torch.inference_mode()
def conditions(demo, images, *controls):
    """(positive, negative) with a chain of ControlNets that have the frames as hints."""
    import nodes

    conds = [nodes.CLIPTextEncode().encode(demo[1], words)[0] for words in ("a neon drawing", "")]
    for control in controls:
        conds = tiny.apply_controlnet(*conds, control, images, 1.0)
    return conds


@torch.inference_mode()
def paint(model, conds, frame_by_frame=False, sampler="euler", denoise=1.0):
    """The latents of the frames, (frames, 4, h, w)."""
    from crossframe.nodes.sampling import CrossFrameKSampler

    import nodes

    frames = FRAMES
    noise = torch.zeros(frames, 4, world.SIZE // 2, world.SIZE // 2)
    if not frame_by_frame:
        latent = {"samples": noise, "batch_index": [0] * frames}  # one noise, as by the stock node
        settings = (SEED, STEPS, CFG, sampler, "simple", *conds, latent, denoise)
        return nodes.KSampler().sample(model, *settings)[0]["samples"]
    return CrossFrameKSampler.execute(
        model=model,
        seed=SEED,
        steps=STEPS,
        cfg=CFG,
        sampler_name=sampler,
        scheduler="simple",
        positive=conds[0],
        negative=conds[1],
        latent_image={"samples": noise},
        denoise=denoise,
        frame_noise=tiny.SAME,
    ).args[0]["samples"]


class OfFirstFrame:
    """Processor of a diffusers attention: keys and values of the first row of each cond.

    Rows are negative and positive frames in turn, (2 * frames, tokens, channels).
    """

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **options):
        if encoder_hidden_states is None:
            count = len(hidden_states) // 2
            firsts = hidden_states.unflatten(0, (2, count))[:, :1].expand(-1, count, -1, -1)
            encoder_hidden_states = firsts.flatten(0, 1)
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](found.transpose(1, 2).flatten(2))


@torch.inference_mode()
def procedure(demo, images, in_control):
    """The frames of Text2Video-Zero with a ControlNet, written anew with diffusers' models."""
    import comfy.samplers
    from crossframe.demo.shipped import load_pipeline

    pipeline = load_pipeline()
    networks = [pipeline.unet, *([pipeline.controlnet] if in_control else [])]
    for network in networks:
        processors = {name: OfFirstFrame() for name in network.attn_processors}
        network.set_attn_processor(processors)
    sigmas = comfy.samplers.KSampler(demo[0], STEPS, "cpu", "euler", "simple").sigmas
    negative, positive = pipeline.encode_prompt("a neon drawing", "cpu", 1, True, "")[1::-1]
    text = torch.cat([negative.expand(FRAMES, -1, -1), positive.expand(FRAMES, -1, -1)])
    kept = pipeline.scheduler.alphas_cumprod
    levels = ((1 - kept) / kept).sqrt()
    hints = images.movedim(-1, 1).repeat(2, 1, 1, 1)
    shape = (1, 4, world.SIZE // 2, world.SIZE // 2)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
    x = (noise * (1 + sigmas[0] ** 2).sqrt()).repeat(FRAMES, 1, 1, 1)
    for sigma, following in pairwise(sigmas):
        timestep = (levels - sigma).abs().argmin()
        inputs = (x / (sigma**2 + 1).sqrt()).repeat(2, 1, 1, 1)
        down, middle = pipeline.controlnet(inputs, timestep, text, hints, return_dict=False)
        velocity = pipeline.unet(
            inputs,
            timestep,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        without, wanted = velocity.chunk(2)
        velocity = without + CFG * (wanted - without)
        x0 = x / (sigma**2 + 1) - velocity * sigma / (sigma**2 + 1).sqrt()
        x = x0 + (x - x0) / sigma * following
    return x / pipeline.vae.config.scaling_factor


@pytest.mark.parametrize("in_control", [True, False])
def test_the_published_procedure(demo, images, in_control):
    control = attending(demo[3]) if in_control else demo[3]
    found = paint(tiny.patch(demo[0], **LOOK), conditions(demo, images, control))
    assert tiny.error(found, procedure(demo, images, in_control)) < 1e-3
    if in_control:
        other = paint(tiny.patch(demo[0], **LOOK), conditions(demo, images, demo[3]))
        assert tiny.error(found[:1], other[:1]) < 1e-4  # the first frame looks at itself
        assert tiny.error(found[1:], other[1:]) > 0.01


@pytest.mark.parametrize("references", ["first + previous", "first", "previous"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m_sde"])
def test_both_orders_and_all_batches_give_the_same_frames(demo, images, references, sampler):
    conds = conditions(demo, images, attending(demo[3]))
    look = {"references": references, "layers": "all"}
    whole = paint(tiny.patch(demo[0], **look), conds, sampler=sampler)
    split = paint(tiny.patch(demo[0], **look, frames_per_batch=2), conds, sampler=sampler)
    one_by_one = paint(tiny.patch(demo[0], **look), conds, True, sampler=sampler)
    assert tiny.error(split, whole) < 1e-3
    assert tiny.error(one_by_one, whole) < 1e-3


@pytest.mark.parametrize("frame_by_frame", [False, True])
def test_weights_keyframes_and_parts_are_those_of_the_model(demo, images, frame_by_frame):
    """Each of them changes what a ControlNet in the run does, and both orders agree."""
    conds = conditions(demo, images, attending(demo[3]))
    usual = {"layers": "all"}
    looks = [
        {"references": "first + previous"},
        {"references": "first + previous", "first_weight": 4.0},
        {"references": "keyframes", "keyframes": "0, 2"},
        {"references": "first + previous", "end_percent": 0.5},
        {"references": "first + previous", "layers": "mid + up"},
    ]
    frames = [
        paint(tiny.patch(demo[0], **{**usual, **look}), conds, frame_by_frame) for look in looks
    ]
    for other in frames[1:]:
        assert tiny.error(other, frames[0]) > 1e-3
    for look, found in zip(looks, frames, strict=True):
        twice = paint(tiny.patch(demo[0], **{**usual, **look}), conds, not frame_by_frame)
        assert tiny.error(twice, found) < 1e-3


def test_outside_of_its_part_the_controlnet_is_the_stock_one(demo, images):
    look = {"references": "first", "layers": "all", "start_percent": 0.999}
    frames = [
        paint(tiny.patch(demo[0], **look), conditions(demo, images, control))
        for control in (demo[3], attending(demo[3]))
    ]
    assert torch.equal(*frames)


@pytest.mark.parametrize("frame_by_frame", [False, True])
def test_chained_controls_each_have_their_own_layers(demo, images, frame_by_frame):
    """Two of the same network, with other hints, are told apart."""
    other = images.flip(2)
    first, second = attending(demo[3]), attending(demo[3])
    with torch.inference_mode():
        conds = conditions(demo, images, first)
        chained = tiny.apply_controlnet(*conds, second, other, 0.7)
        stock = tiny.apply_controlnet(*conds, demo[3], other, 0.7)
    model = tiny.patch(demo[0], **LOOK)
    both, one = (paint(model, given, frame_by_frame) for given in (chained, stock))
    assert tiny.error(both[1:], one[1:]) > 1e-3
    assert tiny.error(paint(model, chained, not frame_by_frame), both) < 1e-3


def test_nothing_stays_on_the_network(demo, images):
    """The stock ControlNet, which shares the network, paints as before, also after an error."""
    from comfy.ldm.modules.attention import SpatialTransformer

    model, stock = tiny.patch(demo[0], **LOOK), conditions(demo, images, demo[3])
    before = paint(model, stock)
    joined = conditions(demo, images, attending(demo[3]))
    paint(model, joined)
    spied, _ = bench.spied(model, _stop_at_the_third)
    with pytest.raises(bench.Planted):
        paint(spied, joined)
    assert torch.equal(paint(model, stock), before)
    stacks = [m for m in demo[3].control_model.modules() if isinstance(m, SpatialTransformer)]
    assert stacks
    assert not any(stack._forward_pre_hooks for stack in stacks)
    assert type(demo[3]).__name__ == "ControlNet"


def _stop_at_the_third(number, args):
    if number == 2:
        raise bench.Planted


def test_a_controlnet_that_stops_early(demo, images):
    conds = [
        [[prompt, {**options, "control": _ending(options["control"])}]]
        for ((prompt, options),) in conditions(demo, images, attending(demo[3]))
    ]
    model = tiny.patch(demo[0], **LOOK)
    whole = paint(model, conds)
    assert tiny.error(paint(model, conds, True), whole) < 1e-3


def _ending(control):
    ending = control.copy()
    ending.timestep_percent_range = (0.0, 0.5)
    return ending


def test_a_state_goes_on_with_the_same_controls_only(demo, images):
    from crossframe.nodes.sampling import CrossFrameKSampler

    model = tiny.patch(demo[0], references="first + previous", layers="all")
    joined, stock = (
        [conditions(demo, part, control) for part in (images, images[:2], images[2:])]
        for control in (attending(demo[3]), demo[3])
    )

    def sample(conds, frames, **inputs):
        with torch.inference_mode():
            return CrossFrameKSampler.execute(
                model=model,
                seed=SEED,
                steps=4,
                cfg=CFG,
                sampler_name="euler",
                scheduler="simple",
                positive=conds[0],
                negative=conds[1],
                latent_image={"samples": torch.zeros(frames, 4, 32, 32)},
                denoise=1.0,
                frame_noise=tiny.SAME,
                **inputs,
            ).args

    whole = sample(joined[0], FRAMES)[0]["samples"]
    first, without = (sample(conds[1], 2, keep_state=True) for conds in (joined, stock))
    rest = sample(joined[2], 2, state=first[1])[0]["samples"]
    assert torch.equal(torch.cat([first[0]["samples"], rest]), whole)
    words = r"'state': it was made with the layers 2 input, 1 middle, 4 output, but this run has"
    bench.refuses(lambda: sample(joined[2], 2, state=without[1]), match=words)
    words = r"'state': it was made with the layers .*control 0 input.*, but this run has the la"
    bench.refuses(lambda: sample(stock[2], 2, state=first[1]), match=words)


def test_without_cross_frame_attention_it_is_refused(demo, images):
    conds = conditions(demo, images, attending(demo[3]))
    bench.refuses(
        lambda: paint(demo[0], conds),
        match=r"^CrossFrameControlNet: input 'control_net': the MODEL .* carries no cross-frame",
    )


def test_layers_that_no_controlnet_has_are_refused(demo, images):
    conds = conditions(demo, images, attending(demo[3]))
    for layers in ("up", "up, loose"):
        bench.refuses(
            lambda layers=layers: paint(tiny.patch(demo[0], layers=layers), conds),
            match=rf"^CrossFrameAttention: input 'layers': a ControlNet .* no layers '{layers}'",
        )


def test_other_controls_are_refused_by_name(demo):
    import comfy.controlnet

    lora = comfy.controlnet.ControlLora({})
    flux = comfy.controlnet.ControlNet(torch.nn.Linear(2, 2))
    named = {
        "T2IAdapter": tiny.t2i_adapter(),
        "ControlLora": lora,
        "network Linear": flux,
        "NoneType": None,
        "already takes part": attending(demo[3]),
    }
    for words, control in named.items():
        bench.refuses(lambda control=control: attending(control), words, match="'control_net': it")
