"""The diffusers host on real pipelines with tiny random models.

The measure is the article's procedure (article.py), which shares no code with the host.
"""

import io
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

import diffusers_models as models
from article import ArticleProcedure
from crossframe.attention import Layer, StepMismatchError
from crossframe.hosts.diffusers import CrossFrameVideoPipeline, cross_frame_attention
from crossframe.hosts.diffusers.unet import layer_address, self_attention_layers
from diffusers import (
    DDIMScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionControlNetImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
)

FRAMES = 3
STEPS = 2


@pytest.fixture
def pipeline(tmp_path):
    return models.sd15_pipeline(tmp_path)


@pytest.fixture
def video(tmp_path):
    return models.controlnet_pipeline(tmp_path, CrossFrameVideoPipeline)


IMAGES = models.pictures(FRAMES, seed=10)
CONTROLS = models.pictures(FRAMES, seed=11)


def arguments(seeds=(5,), **changes):
    """What every pipeline call of a test shares; one seed per picture."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return {
        "negative_prompt": "bad",
        "num_inference_steps": 2 * STEPS,
        "strength": 0.5,  # leaves half of the steps
        "guidance_scale": 3.0,
        "generator": generators if len(seeds) > 1 else generators[0],
        "output_type": "latent",
        **changes,
    }


def paint(pipeline, start_frame=lambda frame: None, prompts=("a cat",) * FRAMES, **changes):
    """Call a pipeline once per frame; return latents (frames * images per prompt, 4, 8, 8)."""
    with_control = isinstance(pipeline, StableDiffusionControlNetImg2ImgPipeline)
    latents = []
    for frame, prompt in enumerate(prompts):
        start_frame(frame)
        control = {"control_image": CONTROLS[frame]} if with_control else {}
        # the picture pipeline's own call, also for the video pipeline
        call = StableDiffusionControlNetImg2ImgPipeline if with_control else type(pipeline)
        given = {"image": IMAGES[frame], **control, **arguments(**changes)}
        output = call.__call__(pipeline, prompt, **given)
        latents.append(output.images)
    return torch.cat(latents)


def paint_as_clip(pipeline, *settings, frames=FRAMES, **changes):
    with cross_frame_attention(pipeline, frames, *settings) as clip:
        return paint(pipeline, clip.start_frame, **changes)


def paint_as_article(pipeline, article=None, **changes):
    article = article or ArticleProcedure(pipeline.unet)
    article.install()
    latents = paint(pipeline, article.start_frame, **changes)
    article.remove()
    return latents


def assert_same(ours, expected):
    """Equal up to rounding in double precision, measured in standard deviations."""
    assert ours.shape == expected.shape
    assert error(ours, expected) < 1e-9


def error(ours, expected):
    return float((ours - expected).abs().max() / expected.std())


def effect(changed, plain):
    """How far two clips are apart after their first frame, in standard deviations."""
    return float((changed - plain)[1:].std() / plain.std())


@contextmanager
def counted_evaluations(unet):
    """Count the U-Net's evaluations."""
    timesteps = []
    hook = unet.register_forward_hook(lambda unet, args, output: timesteps.append(float(args[1])))
    yield timesteps
    hook.remove()


# ---------------------------------------------------------------- layer addresses


SD15_INPUT = [1, 2, 4, 5, 7, 8]
SD15_OUTPUT = [3, 4, 5, 6, 7, 8, 9, 10, 11]
SDXL_INPUT = [4, 5, 7, 8]
SDXL_OUTPUT = [0, 1, 2, 3, 4, 5]


def numbers(path, blocks, attentions, layers_per_block=2):
    return [
        layer_address(
            f"{path}.{block}.attentions.{attention}.transformer_blocks.0.attn1", layers_per_block
        ).number
        for block in blocks
        for attention in range(attentions)
    ]


def test_addresses_count_blocks_as_the_original_unet_does():
    assert numbers("down_blocks", (0, 1, 2), 2) == SD15_INPUT
    assert numbers("up_blocks", (1, 2, 3), 3) == SD15_OUTPUT
    assert numbers("down_blocks", (1, 2), 2) == SDXL_INPUT
    assert numbers("up_blocks", (0, 1), 3) == SDXL_OUTPUT


def test_addresses_follow_a_layers_per_block_list():
    assert numbers("down_blocks", (0, 1), 1, layers_per_block=[1, 3]) == [1, 3]
    assert numbers("up_blocks", (0, 1), 2, layers_per_block=[1, 3]) == [0, 1, 4, 5]


def test_addresses_name_path_and_transformer_block():
    deep = "up_blocks.0.attentions.1.transformer_blocks.7.attn1.processor"
    assert layer_address(deep, 2) == Layer("output", 1, 7)
    middle = "mid_block.attentions.0.transformer_blocks.3.attn1"
    assert layer_address(middle, 2) == Layer("middle", 0, 3)


@pytest.mark.parametrize(
    "name",
    [
        "up_blocks.0.attentions.1.transformer_blocks.0.attn2",
        "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q",
        "down_blocks.0.resnets.1",
        "",
    ],
)
def test_other_modules_have_no_address(name):
    assert layer_address(name, 2) is None


@pytest.mark.parametrize("build", [models.sd15_unet, models.sdxl_unet])
@pytest.mark.parametrize("layers_per_block", [1, 2, "list"])
def test_every_attn1_has_an_address_of_its_own(build, layers_per_block):
    unet = build()
    if layers_per_block == "list":
        layers_per_block = list(range(1, len(unet.config.block_out_channels) + 1))
    unet = build(layers_per_block=layers_per_block)
    attn1 = [module for name, module in unet.named_modules() if name.endswith("attn1")]
    layers = self_attention_layers(unet)
    assert set(layers.values()) == set(attn1)
    assert len(layers) == len(attn1)


# ---------------------------------------------------------------- the article's procedure


@pytest.mark.parametrize("build", [models.controlnet_pipeline, models.sdxl_pipeline])
@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, PNDMScheduler, HeunDiscreteScheduler, UniPCMultistepScheduler]
)
def test_equals_the_article(tmp_path, build, scheduler):
    pipeline = build(tmp_path)
    pipeline.scheduler = models.scheduler(scheduler)
    plain = paint(pipeline)
    with counted_evaluations(pipeline.unet) as timesteps:
        ours = paint_as_clip(pipeline)
    expected = paint_as_article(pipeline)

    assert_same(ours, expected)
    assert torch.equal(ours[0], plain[0])
    assert effect(ours, plain) > 0.1
    evaluations = len(timesteps) // FRAMES
    if scheduler in (PNDMScheduler, HeunDiscreteScheduler):
        assert evaluations > STEPS
    else:
        assert evaluations == STEPS


@pytest.mark.parametrize(
    "processor", [AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(slice_size=2)]
)
def test_equals_the_article_with_every_processor(pipeline, processor):
    pipeline.unet.set_attn_processor(processor)
    assert_same(paint_as_clip(pipeline), paint_as_article(pipeline))


def test_equals_the_article_without_guidance(pipeline):
    ours = paint_as_clip(pipeline, guidance_scale=1.0)
    assert_same(ours, paint_as_article(pipeline, guidance_scale=1.0))
    assert effect(ours, paint(pipeline, guidance_scale=1.0)) > 0.05


def test_equals_the_article_with_a_prompt_per_frame(pipeline):
    prompts = ("a cat", "red dog", "zebra")
    ours = paint_as_clip(pipeline, prompts=prompts)
    assert_same(ours, paint_as_article(pipeline, prompts=prompts))
    assert effect(ours, paint_as_clip(pipeline)) > 0.01


def test_equals_the_article_where_guidance_ends_early(pipeline):
    """A row is missing from a step on; the other row still reads its own states of other frames."""

    def end_guidance(pipeline, step, timestep, values):
        if step == 0:
            pipeline._guidance_scale = 0.0
            values["prompt_embeds"] = values["prompt_embeds"][-1:]
        return values

    changes = {
        "callback_on_step_end": end_guidance,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }
    assert_same(paint_as_clip(pipeline, **changes), paint_as_article(pipeline, **changes))


def test_the_unet_alone_will_do(pipeline):
    with cross_frame_attention(pipeline.unet, FRAMES) as clip:
        ours = paint(pipeline, clip.start_frame)
    assert torch.equal(ours, paint_as_clip(pipeline))


# ---------------------------------------------------------------- references and layers


VARIANTS = {
    ("first + previous", False, "up"): lambda frame: (0, frame - 1) if frame else (0,),
    ("first", False, "up"): lambda frame: (0,),
    ("previous", False, "up"): lambda frame: (max(frame - 1, 0),),
    ("first + previous", True, "up"): lambda frame: (frame, 0, frame - 1) if frame else (0,),
    ("first", True, "up"): lambda frame: (frame, 0),
    ("previous", True, "up"): lambda frame: (frame, max(frame - 1, 0)),
    ("first", False, "mid + up"): lambda frame: (0,),
    ("first", False, "all"): lambda frame: (0,),
}
PREFIXES = {
    "up": ("up_blocks",),
    "mid + up": ("mid_block", "up_blocks"),
    "all": ("down_blocks", "mid_block", "up_blocks"),
}


def test_every_choice_is_what_its_name_says(pipeline):
    clips = []
    for (references, include_self, layers), rule in VARIANTS.items():
        article = ArticleProcedure(pipeline.unet, PREFIXES[layers], rule)
        expected = paint_as_article(pipeline, article)
        assert_same(paint_as_clip(pipeline, references, include_self, layers), expected)
        clips.append(expected)
    distances = [effect(a, b) for i, a in enumerate(clips) for b in clips[:i]]
    assert min(distances) > 0.01


def test_only_chosen_layers_change(pipeline):
    before = pipeline.unet.attn_processors
    with cross_frame_attention(pipeline, FRAMES, layers="up"):
        inside = pipeline.unet.attn_processors
    changed = {name for name in before if inside[name] is not before[name]}
    assert changed == {n for n in before if n.startswith("up_blocks") and ".attn1." in n}


def test_acts_in_its_part_of_the_denoising(pipeline):
    """It acts in the noisiest half of the remaining timesteps, and then in the other half."""
    with counted_evaluations(pipeline.unet) as timesteps:
        plain = paint(pipeline)
    middle = 1 - (timesteps[STEPS // 2 - 1] + timesteps[STEPS // 2]) / 2 / 999  # a percentage
    clips = []
    for part, steps in (
        ({"end_percent": middle}, range(STEPS // 2)),
        ({"start_percent": middle}, range(STEPS // 2, STEPS)),
    ):
        article = ArticleProcedure(pipeline.unet, steps=steps)
        with cross_frame_attention(pipeline, FRAMES, **part) as clip:
            clips.append(paint(pipeline, clip.start_frame))
        assert_same(clips[-1], paint_as_article(pipeline, article))
        assert effect(clips[-1], plain) > 0.01
    assert effect(*clips) > 0.01


def test_nothing_is_kept_where_it_does_not_act(pipeline):
    with cross_frame_attention(pipeline, FRAMES, end_percent=0.1) as clip:
        paint(pipeline, clip.start_frame)  # strength 0.5: none of the steps is that noisy
        assert clip.lead.run.bank.nbytes == 0


# ---------------------------------------------------------------- rows of a batch


def test_images_of_one_prompt_are_separate_clips(pipeline):
    def paint_seeds(*seeds):
        with cross_frame_attention(pipeline, FRAMES) as clip:
            rows = paint(
                pipeline,
                clip.start_frame,
                num_images_per_prompt=len(seeds),
                seeds=seeds,
            )
            return rows.view(FRAMES, len(seeds), *rows.shape[1:])

    both = paint_seeds(1, 2)
    assert_same(both[:, 0], paint_seeds(1)[:, 0])
    assert_same(both[:, 1], paint_seeds(2)[:, 0])
    assert effect(both[:, 0], both[:, 1]) > 0.1


# ---------------------------------------------------------------- coming and going


class StopHereError(Exception):
    pass


def stop_in_frame_1(pipeline, clip):
    def stop(pipeline, step, timestep, values):
        if clip.lead.group == 1:
            raise StopHereError
        return values

    paint(pipeline, clip.start_frame, callback_on_step_end=stop)


def paint_all(pipeline, clip):
    paint(pipeline, clip.start_frame)


def replace_processors(pipeline, clip):
    for attn1 in clip.attentions.values():
        attn1.set_processor(AttnProcessor())


@pytest.mark.parametrize("inside", [paint_all, stop_in_frame_1, replace_processors])
def test_nothing_stays_behind(pipeline, inside):
    unet = pipeline.unet
    processors, description = unet.attn_processors, repr(unet)
    chosen = [name for name in processors if name.startswith("up_blocks") and "attn1" in name]
    before = paint(pipeline)

    try:
        with cross_frame_attention(pipeline, FRAMES) as clip:
            inside(pipeline, clip)
    except StopHereError:
        assert inside is stop_in_frame_1

    after = unet.attn_processors
    assert all(after[name] is processors[name] for name in chosen)
    assert len(unet._forward_pre_hooks) == 0
    assert repr(unet) == description
    assert torch.equal(paint(pipeline), before)


def test_a_processor_with_weights_comes_back_as_it_was(pipeline):
    class Weighted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.5), requires_grad=False)

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
            return self.gain * AttnProcessor()(attn, hidden_states, encoder_hidden_states)

    unet = pipeline.unet
    unet.set_attn_processor({name: Weighted() for name in unet.attn_processors})
    names = list(unet.state_dict())
    before = paint(pipeline)
    assert effect(paint_as_clip(pipeline), before) > 0.05
    assert list(unet.state_dict()) == names
    assert torch.equal(paint(pipeline), before)


def test_what_was_kept_is_freed_at_once(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        clip.start_frame(0)
        pipeline("a cat", image=IMAGES[0], **arguments())
        bank = weakref.ref(clip.lead.run.bank)
        assert bank().nbytes > 0
    assert bank() is None


def test_two_runs_are_equal(pipeline):
    assert torch.equal(paint_as_clip(pipeline), paint_as_clip(pipeline))


def test_frame_0_begins_the_clip_anew(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        first = paint(pipeline, clip.start_frame)
        again = paint(pipeline, clip.start_frame)
    assert torch.equal(first, again)


def test_a_run_after_an_exception_is_equal(pipeline):
    clean = paint_as_clip(pipeline)
    with pytest.raises(StopHereError), cross_frame_attention(pipeline, FRAMES) as clip:
        stop_in_frame_1(pipeline, clip)
    assert torch.equal(paint_as_clip(pipeline), clean)


def evaluate(unet, start_frame=lambda frame: None, frames=4):
    """Two evaluations of a U-Net on each of some frames, without a pipeline."""
    double = {"generator": torch.Generator().manual_seed(6), "dtype": torch.float64}
    text = torch.randn(1, 3, models.TEXT_CHANNELS, **double)
    outputs = []
    for frame in range(frames):
        start_frame(frame)
        x = torch.randn(1, 4, 8, 8, **double)
        outputs += [unet(x, timestep, text).sample for timestep in (500, 250)]
    return torch.cat(outputs)


def test_a_compiled_unet_gives_the_same():
    unet = models.sd15_unet(
        block_out_channels=(32,),
        down_block_types=("DownBlock2D",),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",),
    ).to(torch.float64)
    with cross_frame_attention(unet, frames=4) as clip:
        expected = evaluate(unet, clip.start_frame)

    compiled = torch.compile(unet, backend="eager")
    plain = evaluate(compiled, frames=1)  # it is compiled before cross-frame attention comes
    # A compiler that baked in steps or kept states would compile anew at every evaluation.
    with (
        torch._dynamo.config.patch(fail_on_recompile_limit_hit=True),
        cross_frame_attention(compiled, frames=4) as clip,
    ):
        ours = evaluate(compiled, clip.start_frame)
    torch._dynamo.reset()

    assert_same(ours, expected)
    assert torch.equal(ours[:2], plain)


def test_layers_that_attend_elsewhere_are_left_alone():
    unet = models.sd15_unet(only_cross_attention=True).to(torch.float64)
    plain = evaluate(unet)
    with cross_frame_attention(unet, frames=4) as clip:
        assert torch.equal(evaluate(unet, clip.start_frame), plain)


def test_keywords_reach_a_processor_that_names_them(pipeline):
    heard = []

    class Listening(AttnProcessor):
        def __call__(self, attn, hidden_states, *args, note=None, **kwargs):
            heard.append(note)
            return super().__call__(attn, hidden_states, *args, **kwargs)

    pipeline.unet.set_attn_processor(Listening())
    paint_as_clip(pipeline, cross_attention_kwargs={"note": "here"})
    evaluations = STEPS * FRAMES
    attentions = len(pipeline.unet.attn_processors)
    assert heard.count("here") == evaluations * attentions


def test_it_says_what_it_is(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        assert repr(clip) == "Clip(3 frames, 2 layers, not started)"
        clip.start_frame(0)
        assert repr(clip).startswith("Clip(3 frames, 2 layers, frame 0, Bank(")
        attn1 = pipeline.unet.up_blocks[1].attentions[0].transformer_blocks[0].attn1
        assert repr(attn1.processor) == "CrossFrameProcessor(AttnProcessor2_0)"


# ---------------------------------------------------------------- refusals


def no_unet():
    return models.autoencoder(), {}


def no_attn1():
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return models.sd15_unet(**blocks), {"layers": "up"}


def fused():
    unet = models.sd15_unet()
    unet.fuse_qkv_projections()
    return unet, {}


REFUSALS = {
    "no U-Net": (no_unet, "AutoencoderKL has no UNet2DConditionModel"),
    "no attn1": (no_attn1, "no self-attention .* 'up' layers"),
    "fused": (fused, "unfuse_qkv_projections"),
    "references": (
        lambda: (models.sd15_unet(), {"references": "next"}),
        "'next'; choose one of 'first \\+ previous', 'first', 'previous'",
    ),
    "layers": (
        lambda: (models.sd15_unet(), {"layers": "down"}),
        "'down'; choose one of 'up', 'mid \\+ up', 'all'",
    ),
    "empty part": (
        lambda: (models.sd15_unet(), {"start_percent": 0.5, "end_percent": 0.5}),
        "start_percent 0.5 must be below end_percent 0.5",
    ),
    "no frames": (lambda: (models.sd15_unet(), {"frames": 0}), "at least 1 frame, not 0"),
    "no clips": (lambda: (models.sd15_unet(), {"clips": 0}), "at least 1 clip, not of 0"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_before_anything_is_changed(case):
    build, message = REFUSALS[case]
    model, changes = build()
    processors = getattr(model, "attn_processors", {})
    with (
        pytest.raises(ValueError, match=message),
        cross_frame_attention(model, **{"frames": FRAMES, **changes}),
    ):
        pass
    assert len(model._forward_pre_hooks) == 0
    after = getattr(model, "attn_processors", {})
    assert all(after[name] is processor for name, processor in processors.items())


@pytest.mark.parametrize("layers", ["up", "all"])
def test_refuses_to_be_entered_twice(pipeline, layers):
    with cross_frame_attention(pipeline, FRAMES, layers=layers) as clip:
        with (
            pytest.raises(ValueError, match="already has cross-frame attention"),
            cross_frame_attention(pipeline, FRAMES, layers="up"),
        ):
            pass
        ours = paint(pipeline, clip.start_frame)
    assert torch.equal(ours, paint_as_clip(pipeline, "first + previous", False, layers))


def test_refuses_a_call_before_start_frame(pipeline):
    with (
        cross_frame_attention(pipeline, FRAMES),
        pytest.raises(RuntimeError, match=r"call start_frame\(0\)"),
    ):
        paint(pipeline)


@pytest.mark.parametrize(("started", "frame"), [([], 1), ([0], 2), ([0, 1], 1), ([0, 1, 2], 3)])
def test_refuses_frames_out_of_order(pipeline, started, frame):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        if started:
            paint(pipeline, clip.start_frame, prompts=("a cat",) * len(started))
        message = f"frame {frame} cannot start: {len(started)} of 3 frames have been started, and "
        with pytest.raises(ValueError, match=message) as raised:
            clip.start_frame(frame)
    assert ("the clip has no more" in str(raised.value)) == (frame == FRAMES)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inference_steps": 4 * STEPS},  # more evaluations
        {"num_inference_steps": STEPS, "strength": 1.0},  # as many, elsewhere
    ],
)
def test_refuses_other_steps_than_frame_0_had(pipeline, changes):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        clip.start_frame(0)
        pipeline("a", image=IMAGES[0], **arguments())
        clip.start_frame(1)
        with pytest.raises(StepMismatchError, match="frame 1 evaluates the model"):
            pipeline("a", image=IMAGES[0], **arguments(**changes))


def test_refuses_a_frame_after_one_that_stopped_early(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        with pytest.raises(StopHereError):
            stop_in_frame_1(pipeline, clip)
        with pytest.raises(StepMismatchError, match="frame 1 took 1 model evaluations"):
            clip.start_frame(2)


# ---------------------------------------------------------------- one call, one frame


BUILDERS = {
    "SD1.5": models.sd15_pipeline,
    "SD1.5 ControlNet": models.controlnet_pipeline,
    "SDXL": models.sdxl_pipeline,
}


def paint_at_once(pipeline, frames=FRAMES, images=None, **changes):
    """The mistake: the images of several frames in one pipeline call."""
    images = IMAGES[:frames] if images is None else images
    control = {}
    if isinstance(pipeline, StableDiffusionControlNetImg2ImgPipeline):
        control = {"control_image": CONTROLS[:frames]}
    given = {"prompt": ["a cat"] * frames, "image": images, **control, **arguments(**changes)}
    if "negative_prompt" in given:
        given["negative_prompt"] = [given["negative_prompt"]] * len(given["prompt"])
    return pipeline(**given).images


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("build", BUILDERS)
def test_refuses_all_frames_in_one_call(tmp_path, build, guidance):
    pipeline = BUILDERS[build](tmp_path)
    message = r"brings 3 pictures at once, and the clip has 3 frames\. One call paints one frame"
    with (
        counted_evaluations(pipeline.unet) as timesteps,
        cross_frame_attention(pipeline, FRAMES) as clip,
    ):
        clip.start_frame(0)
        with pytest.raises(ValueError, match=message):
            paint_at_once(pipeline, guidance_scale=guidance)
        clip.start_frame(0)
        with pytest.raises(ValueError, match=r"brings 6 pictures .* clips=6\)"):
            paint_at_once(pipeline, guidance_scale=guidance, num_images_per_prompt=2)
    assert timesteps == []


def test_refuses_all_frames_in_one_call_for_a_unet_alone(pipeline):
    with cross_frame_attention(pipeline.unet, FRAMES) as clip:
        clip.start_frame(0)
        with pytest.raises(ValueError, match=r"brings 6 rows at once, and the clip has 3 frames"):
            paint_at_once(pipeline)


def test_refuses_all_frames_under_one_prompt(pipeline):
    """diffusers takes a list of images under a single prompt until the text does not fit them."""
    with cross_frame_attention(pipeline, FRAMES) as clip:
        clip.start_frame(0)
        with pytest.raises(ValueError, match="brings 3 pictures at once"):
            pipeline("a cat", image=IMAGES, **arguments())


def test_refuses_the_other_frames_in_one_call(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        paint(pipeline, clip.start_frame, prompts=("a cat",))
        clip.start_frame(1)
        with pytest.raises(ValueError, match="frame 1 comes in 4 rows, but frame 0 came in 2"):
            paint_at_once(pipeline, frames=2)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_as_many_clips_as_frames_go_where_it_is_said(pipeline, guidance, alone):
    """Each of several prompts and images is painted as it would be by itself."""
    seeds = (1, 2, 3, 4, 5, 6)
    with cross_frame_attention(pipeline.unet if alone else pipeline, FRAMES, clips=6) as clip:
        rows = []
        for frame in range(FRAMES):
            clip.start_frame(frame)
            images = [IMAGES[(frame + shift) % FRAMES] for shift in range(FRAMES)]
            changes = {"seeds": seeds, "num_images_per_prompt": 2, "guidance_scale": guidance}
            # diffusers repeats a list of images as a whole, and a list of prompts one by one.
            rows.append(paint_at_once(pipeline, images=images, **changes))
    together = torch.stack(rows)  # (frames, pictures, 4, h, w)
    for picture in (0, 4):
        alone_ = []
        with cross_frame_attention(pipeline, FRAMES) as clip:
            for frame in range(FRAMES):
                clip.start_frame(frame)
                given = arguments(seeds[picture : picture + 1], guidance_scale=guidance)
                image = IMAGES[(frame + picture) % FRAMES]
                alone_.append(pipeline("a cat", image=image, **given).images)
        assert_same(together[:, picture], torch.cat(alone_))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("alone", [False, True])
def test_a_picture_per_call_is_never_refused(pipeline, frames, guidance, alone):
    """With guidance it has as many rows as a clip of 2 frames would have without."""
    unet = pipeline.unet if alone else pipeline
    with cross_frame_attention(unet, frames) as clip:
        ours = paint(pipeline, clip.start_frame, ("a cat",) * frames, guidance_scale=guidance)
    expected = paint_as_article(pipeline, prompts=("a cat",) * frames, guidance_scale=guidance)
    assert_same(ours, expected)


def test_refuses_other_clips_than_were_said(pipeline):
    with cross_frame_attention(pipeline, FRAMES, clips=2) as clip:
        clip.start_frame(0)
        with pytest.raises(ValueError, match="brings 1 picture at once, and clips=2 was announced"):
            pipeline("a cat", image=IMAGES[0], **arguments())
    with cross_frame_attention(pipeline.unet, FRAMES, clips=4) as clip:
        clip.start_frame(0)
        with pytest.raises(ValueError, match="brings 6 rows at once, and clips=4 was announced"):
            paint_at_once(pipeline)


def test_refuses_a_second_call_for_a_frame(pipeline):
    """start_frame is called before the loop instead of in it, or for some frames only."""
    message = "frame {} is being painted a second time: .* Call start_frame before each"
    with cross_frame_attention(pipeline, FRAMES) as clip:
        clip.start_frame(0)
        with pytest.raises(RuntimeError, match=message.format(0)):
            paint(pipeline)
    with cross_frame_attention(pipeline, FRAMES) as clip:
        paint(pipeline, clip.start_frame, prompts=("a cat",) * 2)
        with pytest.raises(RuntimeError, match=message.format(1)):
            paint(pipeline)


def test_refuses_to_go_on_after_a_frame_that_was_not_painted(pipeline, tmp_path):
    """This happens with a pipeline that has another U-Net."""
    other = models.sd15_pipeline(tmp_path)
    message = "frame 0 was started, but the U-Net was not called"
    with (
        cross_frame_attention(pipeline, FRAMES) as clip,
        pytest.raises(RuntimeError, match=message),
    ):
        paint(other, clip.start_frame)


def test_says_that_frames_are_left_out(pipeline, caplog):
    paint_as_clip(pipeline)
    assert not caplog.records
    with cross_frame_attention(pipeline, FRAMES) as clip:
        paint(pipeline, clip.start_frame, prompts=("a cat",))
    assert "the clip was left with 1 of its 3 frames painted" in caplog.text


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("size", [(32, 32), (32, 8)])
def test_refuses_a_frame_of_another_size(tmp_path, build, size):
    """32 x 8 has as many tokens as 16 x 16."""
    pipeline = BUILDERS[build](tmp_path)
    with cross_frame_attention(pipeline, FRAMES) as clip:
        paint(pipeline, clip.start_frame, prompts=("a cat",))
        clip.start_frame(1)
        given = {"image": IMAGES[1].resize(size), **arguments()}
        if isinstance(pipeline, StableDiffusionControlNetImg2ImgPipeline):
            given["control_image"] = given["image"]
        message = f"frame 1 is {size[0]} x {size[1]} pixels, but frame 0 was 16 x 16 pixels"
        with pytest.raises(ValueError, match=message):
            pipeline("a cat", **given)


def test_refuses_other_guidance_than_frame_0_had(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        paint(pipeline, clip.start_frame, prompts=("a cat",), guidance_scale=1.0)
        clip.start_frame(1)
        with pytest.raises(ValueError, match=r"frame 1 comes in 2 rows, .* the same guidance"):
            pipeline("a cat", image=IMAGES[1], **arguments())


def test_refuses_tokens_that_change_on_their_way(pipeline):
    """Another package merges or drops tokens of a single frame inside of the U-Net."""
    block = pipeline.unet.up_blocks[1].attentions[0].transformer_blocks[0]
    with cross_frame_attention(pipeline, FRAMES) as clip:
        paint(pipeline, clip.start_frame, prompts=("a cat",))
        clip.start_frame(1)
        drop = block.register_forward_pre_hook(lambda _, args: (args[0][:, ::2], *args[1:]))
        with pytest.raises(ValueError, match=r"frame 1 has 2 rows of 32 tokens in layer .*frame 0"):
            pipeline("a cat", image=IMAGES[1], **arguments())
        drop.remove()


def test_refuses_processors_replaced_inside(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        clip.start_frame(0)
        replace_processors(pipeline, clip)
        with pytest.raises(RuntimeError, match="2 layers were replaced"):
            pipeline("a", image=IMAGES[0], **arguments())


def test_refuses_to_bypass_the_count_of_evaluations(pipeline):
    with cross_frame_attention(pipeline, FRAMES) as clip:
        clip.start_frame(0)
        with pytest.raises(RuntimeError, match="called as a module"):
            evaluate(pipeline.unet.forward)
        pipeline("a", image=IMAGES[0], **arguments())
        clip.start_frame(1)
        with pytest.raises(RuntimeError, match="called as a module"):
            evaluate(pipeline.unet.forward)


# ---------------------------------------------------------------- the video pipeline


def edit(video, **changes):
    call = {"prompt": "a cat", "images": IMAGES, "control_images": CONTROLS, **changes}
    return video(**arguments(**call))


def latents(video, **changes):
    return edit(video, **changes).frames


def test_video_equals_the_article(video):
    assert_same(latents(video), paint_as_article(video))


def test_video_takes_every_choice(video):
    ours = latents(video, references="first", include_self=True, layers="all")
    assert torch.equal(ours, paint_as_clip(video, "first", True, "all"))
    part = latents(video, start_percent=0.6, end_percent=0.8)
    assert torch.equal(part, paint_as_clip(video, "first + previous", False, "up", 0.6, 0.8))
    assert not torch.equal(part, latents(video))


def test_video_takes_prompts_per_frame(video):
    prompts = ["a cat", "red dog", "zebra"]
    assert torch.equal(latents(video, prompt=prompts), paint_as_clip(video, prompts=prompts))


def test_video_takes_negative_prompts_and_embeddings_per_frame(video):
    prompts, negatives = ["a cat", "red dog", "zebra"], ["bad", "dull", "grey"]
    expected = latents(video, prompt=prompts, negative_prompt=negatives)
    positive, negative = video.encode_prompt(prompts, "cpu", 1, True, negatives)
    ours = latents(
        video,
        prompt=None,
        negative_prompt=None,
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
    )
    assert_same(ours, expected)
    assert effect(ours, latents(video, prompt=prompts)) > 0.001


def test_video_shares_one_row_of_embeddings(video):
    positive, negative = video.encode_prompt("a cat", "cpu", 1, True, "bad")
    ours = latents(
        video,
        prompt=None,
        negative_prompt=None,
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
    )
    assert_same(ours, latents(video))


def test_video_takes_tensors_and_arrays(video):
    pixels = np.stack([np.asarray(image) for image in IMAGES]).astype(np.float32) / 255
    control = torch.from_numpy(np.stack([np.asarray(image) for image in CONTROLS]))
    control = control.permute(0, 3, 1, 2) / 255
    assert_same(latents(video, images=pixels, control_images=control), latents(video))


def test_video_returns_what_output_type_says(video):
    pictures = edit(video, output_type="pil").frames
    assert [picture.size for picture in pictures] == [(models.PIXELS,) * 2] * FRAMES
    array = edit(video, output_type="np").frames
    assert array.shape == (FRAMES, models.PIXELS, models.PIXELS, 3)
    tensor = edit(video, output_type="pt").frames
    assert tensor.shape == (FRAMES, 3, models.PIXELS, models.PIXELS)
    assert np.allclose(array, tensor.permute(0, 2, 3, 1), atol=1e-6)
    assert np.allclose(array[1], np.asarray(pictures[1]) / 255, atol=1 / 255)


def test_video_returns_a_tuple_if_asked(video):
    frames, nsfw = edit(video, return_dict=False)
    assert torch.equal(frames, latents(video))
    assert nsfw is None


def test_video_takes_several_controlnets(tmp_path):
    video = models.controlnet_pipeline(tmp_path, CrossFrameVideoPipeline, controlnets=2)
    others = models.pictures(FRAMES, seed=12)
    ours = latents(video, control_images=[CONTROLS, others])
    with cross_frame_attention(video, FRAMES) as clip:
        expected = []
        for frame in range(FRAMES):
            clip.start_frame(frame)
            output = StableDiffusionControlNetImg2ImgPipeline.__call__(
                video,
                "a cat",
                image=IMAGES[frame],
                control_image=[CONTROLS[frame], others[frame]],
                **arguments(),
            )
            expected.append(output.images)
    assert torch.equal(ours, torch.cat(expected))
    swapped = latents(video, control_images=[others, CONTROLS])
    assert effect(ours, swapped) > 0.001


def test_video_of_one_frame_is_a_plain_picture(video):
    ours = latents(video, images=IMAGES[:1], control_images=CONTROLS[:1])
    assert torch.equal(ours, paint(video, prompts=("a cat",)))


def test_video_leaves_nothing_behind(video):
    unet = video.unet
    processors = unet.attn_processors
    before = paint(video)
    bar = {"disable": False, "file": io.StringIO()}
    video.set_progress_bar_config(**bar)

    def stop(pipeline, step, timestep, values):
        raise StopHereError

    with pytest.raises(StopHereError):
        edit(video, callback_on_step_end=stop)

    assert all(now is processors[name] for name, now in unet.attn_processors.items())
    assert len(unet._forward_pre_hooks) == 0
    assert video._progress_bar_config == bar
    assert torch.equal(paint(video), before)


def test_video_stops_when_interrupted(video):
    calls = []

    def interrupt(pipeline, step, timestep, values):
        calls.append(step)
        pipeline._interrupt = len(calls) == STEPS + 2  # in frame 1
        return values

    ours = latents(video, callback_on_step_end=interrupt)
    assert torch.equal(ours, latents(video)[:1])


def test_video_shows_one_bar_over_the_frames(video):
    text = io.StringIO()
    video.set_progress_bar_config(file=text, ascii=True)
    edit(video)
    assert f"{FRAMES}/{FRAMES}" in text.getvalue()
    assert f"/{STEPS}" not in text.getvalue()


# ---------------------------------------------------------------- noise of the video pipeline

STILL = {"images": IMAGES[:1] * FRAMES, "control_images": CONTROLS[:1] * FRAMES}


def test_same_noise_for_every_frame(video):
    """Three times one picture with one noise: nothing can tell the frames apart."""
    ours = latents(video, **STILL)
    assert_same(ours, ours[:1].expand_as(ours))


def test_same_noise_without_a_generator(video):
    torch.manual_seed(1)
    ours = latents(video, generator=None, **STILL)
    assert_same(ours, ours[:1].expand_as(ours))
    torch.manual_seed(1)
    assert torch.equal(latents(video, generator=None, **STILL), ours)
    assert effect(latents(video, generator=None, **STILL), ours) > 0.1


def test_same_noise_leaves_the_generator_as_after_one_frame(video):
    one, three = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    paint(video, prompts=("a cat",), generator=one)
    edit(video, generator=three)
    assert torch.equal(one.get_state(), three.get_state())


def test_different_noise_per_frame(video):
    ours = latents(video, frame_noise="different per frame")
    one_after_another = torch.Generator().manual_seed(5)
    assert torch.equal(ours, paint_as_clip(video, generator=one_after_another))
    assert effect(ours, latents(video)) > 0.1


# ---------------------------------------------------------------- refusals of the video pipeline


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_images": CONTROLS[:2]}, "control_images has 2 frames, images has 3"),
        ({"images": IMAGES[:2]}, "control_images has 3 frames, images has 2"),
        ({"prompt": ["a", "b"]}, "prompt has 2 frames, images has 3"),
        ({"negative_prompt": ["a"]}, "negative_prompt has 1 frames, images has 3"),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(2, 16, 32)},
            "prompt_embeds has 2 frames, images has 3",
        ),
        ({"images": IMAGES[0]}, "images must be a list of PIL images"),
        ({"images": None}, "images must be .*, not NoneType"),
        ({"images": torch.zeros(3, 16, 16)}, "images must be a list of PIL images"),
        ({"control_images": CONTROLS[0]}, "control_images must be a list of PIL images"),
        ({"images": [], "control_images": []}, "at least 1 frame, not 0"),
        ({"num_images_per_prompt": 2}, "num_images_per_prompt must be 1, not 2"),
        ({"frame_noise": "none"}, "'none'; choose one of 'same for every frame', 'different"),
        ({"references": "next"}, "'next'; choose one of"),
        ({"layers": "down"}, "'down'; choose one of"),
        ({"generator": [torch.Generator()] * FRAMES}, "one torch.Generator, not a list"),
    ],
)
def test_video_refuses(video, changes, message):
    with pytest.raises(ValueError, match=message):
        edit(video, **changes)
    assert len(video.unet._forward_pre_hooks) == 0


def test_video_refuses_frames_missing_for_one_controlnet(tmp_path):
    video = models.controlnet_pipeline(tmp_path, CrossFrameVideoPipeline, controlnets=2)
    message = r"control_images\[1\] has 2 frames, images has 3"
    with pytest.raises(ValueError, match=message):
        edit(video, control_images=[CONTROLS, CONTROLS[:2]])


def resized(pictures, number, size):
    """Some pictures, one of them in another size."""
    return [*pictures[:number], pictures[number].resize(size), *pictures[number + 1 :]]


def as_tensors(pictures):
    pixels = [torch.from_numpy(np.array(picture)) / 255 for picture in pictures]
    return [picture.permute(2, 0, 1) for picture in pixels]


def as_arrays(pictures):
    return [np.asarray(picture).astype(np.float32) / 255 for picture in pictures]


@pytest.mark.parametrize("kind", [list, tuple, as_tensors, as_arrays])
@pytest.mark.parametrize("name", ["images", "control_images"])
@pytest.mark.parametrize("size", [(32, 32), (32, 8)])
def test_video_refuses_frames_of_two_sizes(video, kind, name, size):
    frames = {"images": IMAGES, "control_images": CONTROLS}[name]
    with counted_evaluations(video.unet) as timesteps:
        message = rf"{name}\[2\] is {size[0]} x {size[1]} pixels, but images\[0\] is 16 x 16"
        with pytest.raises(ValueError, match=message):
            edit(video, **{name: kind(resized(frames, 2, size))})
    assert timesteps == []


def test_video_refuses_controls_of_another_size_than_the_images(video):
    controls = [picture.resize((24, 16)) for picture in CONTROLS]
    with pytest.raises(
        ValueError, match=r"control_images\[0\] is 24 x 16 .* images\[0\] is 16 x 16"
    ):
        edit(video, control_images=controls)


def test_video_takes_frames_that_it_brings_to_one_size(video):
    """The pipeline resizes frames to sides that were asked for, and to whole latents."""
    asked = {"height": models.PIXELS, "width": models.PIXELS}
    images, controls = resized(IMAGES, 1, (32, 24)), resized(CONTROLS, 2, (8, 8))
    assert latents(video, images=images, control_images=controls, **asked).shape[0] == FRAMES
    odd = resized(IMAGES, 1, (models.PIXELS + 1, models.PIXELS))
    assert latents(video, images=odd).shape[0] == FRAMES
    encoded = torch.randn(FRAMES, 4, 8, 8, dtype=torch.float64)
    assert latents(video, images=encoded).shape[0] == FRAMES
    assert latents(video, latents=encoded, images=images).shape[0] == FRAMES


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["a.png", *IMAGES[1:]], r"images\[0\] must be a PIL image, .* not str"),
        ([IMAGES[0], IMAGES[:2], IMAGES[2]], r"images\[1\] holds 2 pictures"),
        ([torch.rand(2, 3, 16, 16)] * FRAMES, r"images\[0\] holds 2 pictures"),
    ],
)
def test_video_refuses_frames_that_are_no_pictures(video, images, message):
    with pytest.raises(ValueError, match=message):
        edit(video, images=images)


@pytest.mark.parametrize("controls", [CONTROLS, [CONTROLS], torch.zeros(3, 3, 16, 16)])
def test_video_refuses_controls_for_other_nets_than_there_are(tmp_path, controls):
    video = models.controlnet_pipeline(tmp_path, CrossFrameVideoPipeline, controlnets=2)
    with pytest.raises(ValueError, match="the frames for each of 2 ControlNets"):
        edit(video, control_images=controls)


def test_video_refuses_another_size_for_one_controlnet(tmp_path):
    video = models.controlnet_pipeline(tmp_path, CrossFrameVideoPipeline, controlnets=2)
    controls = [CONTROLS, resized(CONTROLS, 1, (32, 32))]
    message = r"control_images\[1\]\[1\] is 32 x 32 pixels, but images\[0\] is 16 x 16"
    with pytest.raises(ValueError, match=message):
        edit(video, control_images=controls)
