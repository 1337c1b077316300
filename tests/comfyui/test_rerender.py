"""CrossFrameRerender paints what the published procedure paints, in real ComfyUI."""

from random import Random

import bench
import pytest
import tiny
import torch
from crossframe.demo import world
from crossframe.demo.looks import random_look
from rerender_procedure import Drift, Procedure, Stages

FRAMES, STEPS, CFG, SEED = 4, 8, 2.0, 5
OFF = {
    "shape_fusion_end": 0.0,
    "adain_start": 1.0,
    "pixel_fusion_strength": 0.0,
}
STAGES = {
    "no stage": ({}, Stages()),
    "shape fusion": ({"shape_fusion_end": 0.3}, Stages(shape=range(0, 3))),
    "AdaIN": ({"adain_start": 0.7}, Stages(adain=range(5, 8))),
    "pixel fusion": ({"pixel_fusion_strength": 0.5}, Stages(pixels=range(4, 7))),
    "all": (
        {"shape_fusion_end": 0.3, "adain_start": 0.7, "pixel_fusion_strength": 0.8},
        Stages(range(0, 3), range(5, 8), range(4, 7), 0.8),
    ),
    "pixel fusion from the start": (
        {"pixel_fusion_start": 0.0, "pixel_fusion_end": 0.5, "pixel_fusion_strength": 0.5},
        Stages(pixels=range(0, 4)),
    ),
}


@pytest.fixture(scope="module")
def images():
    """The source, (frames, SIZE, SIZE, 3)."""
    clip = world.random_clip(FRAMES, torch.Generator().manual_seed(3))
    return world.render(clip, world.PLAIN).movedim(1, -1)


def rerender(demo, images, **inputs):
    """The node's outputs, with all stages off that `inputs` does not name."""
    return execute(**prepared(demo, images, **inputs))


def execute(**inputs):
    from crossframe.nodes.rerender import CrossFrameRerender

    with torch.inference_mode():
        return CrossFrameRerender.execute(**inputs).args


def conditions_of(demo, images, prompt="a neon drawing"):
    """(positive, negative) with the frames as hints of the ControlNet."""
    import nodes

    conds = [nodes.CLIPTextEncode().encode(demo[1], words)[0] for words in (prompt, "")]
    return tiny.apply_controlnet(*conds, demo[3], images, 1.0)


def prepared(demo, images, model=None, conds=None, **inputs):
    """The node's inputs."""
    conds = conds or conditions_of(demo, images)
    if model is None:
        model = tiny.patch(demo[0])
    chosen = {
        "model": model,
        "vae": demo[2],
        "images": images,
        "positive": conds[0],
        "negative": conds[1],
        "seed": SEED,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 0.7,
        "frame_noise": tiny.SAME,
        "motion": Drift(len(images), images.shape[1]),
        **OFF,
        **inputs,
    }
    if "motion" not in inputs and not (
        chosen["shape_fusion_end"] > 0 or chosen["pixel_fusion_strength"] > 0
    ):
        del chosen["motion"]
    return chosen


@pytest.fixture(scope="module")
def published(demo, images):
    """A function that paints by the procedure in diffusers."""
    import comfy.samplers
    from crossframe.demo.shipped import load_pipeline

    pipeline = load_pipeline()
    settings = (STEPS, "cpu", "euler", "simple", 0.7)
    sigmas = comfy.samplers.KSampler(demo[0], *settings).sigmas
    text = torch.cat(pipeline.encode_prompt("a neon drawing", "cpu", 1, True, "")[:2])
    kept = pipeline.scheduler.alphas_cumprod
    levels = ((1 - kept) / kept).sqrt()
    hints = images.movedim(-1, 1)
    scale = pipeline.vae.config.scaling_factor
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(1, 4, world.SIZE // 2, world.SIZE // 2, generator=generator)

    def predict(x, sigma, frame):
        timestep = (levels - sigma).abs().argmin()
        inputs = (x / (sigma**2 + 1).sqrt()).expand(2, -1, -1, -1)
        hint = hints[frame].expand(2, -1, -1, -1)
        down, middle = pipeline.controlnet(inputs, timestep, text, hint, return_dict=False)
        positive, negative = pipeline.unet(
            inputs,
            timestep,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample.split(1)
        velocity = negative + CFG * (positive - negative)
        return x / (sigma**2 + 1) - velocity * sigma / (sigma**2 + 1).sqrt()

    @torch.inference_mode()
    def paint(stages):
        latents = pipeline.vae.encode(hints * 2 - 1).latent_dist.mean[:, None] * scale
        motion = Drift(FRAMES, world.SIZE)
        return Procedure(pipeline, predict, sigmas, noise, latents, motion, stages, SEED).paint(
            FRAMES
        )

    return paint


@pytest.mark.parametrize("name", STAGES)
def test_the_published_procedure(demo, images, published, name):
    chosen, stages = STAGES[name]
    latents, pictures = published(stages)
    ours = rerender(demo, images, **chosen)
    distance = tiny.error(ours[0]["samples"], latents)
    print(f"{name}: distance to the procedure {distance:.1e}")
    assert distance < 1e-3
    assert tiny.error(ours[1], pictures.movedim(1, -1)) < 1e-3
    if name != "no stage":
        plain = rerender(demo, images)[0]["samples"]
        assert tiny.error(ours[0]["samples"][:1], plain[:1]) < 1e-5
        assert tiny.error(ours[0]["samples"][1:], plain[1:]) > 0.02


def test_without_stages_it_is_the_frame_by_frame_ksampler(demo, images):
    """Bit for bit, and so are its pictures."""
    import nodes

    conds = conditions_of(demo, images)
    model = tiny.patch(demo[0])
    with torch.inference_mode():
        (latent,) = nodes.VAEEncode().encode(demo[2], images)
    samples = tiny.frame_ksampler(
        model,
        *conds,
        latent,
        seed=SEED,
        steps=STEPS,
        cfg=CFG,
        scheduler="simple",
        denoise=0.7,
        frame_noise=tiny.SAME,
    )
    ours = rerender(demo, images)
    assert torch.equal(ours[0]["samples"], samples)
    with torch.inference_mode():
        pictures = nodes.VAEDecode().decode(demo[2], {"samples": samples})[0]
    assert tiny.error(ours[1], pictures) < 1e-5


ALL = STAGES["all"][0]


@pytest.fixture(scope="module")
def painted(demo, images):
    return rerender(demo, images, **ALL)[0]["samples"]


def test_again_and_after_a_cancel(demo, images, painted):
    """A second run, and one after an interrupted run, give the same frames."""
    model, _ = bench.spied(demo[0], stop_at(9))
    with pytest.raises(KeyboardInterrupt):
        rerender(demo, images, model=tiny.patch(model), **ALL)
    assert torch.equal(rerender(demo, images, **ALL)[0]["samples"], painted)


def stop_at(number):
    def on_call(call, arguments):
        if call == number:
            raise KeyboardInterrupt

    return on_call


def test_the_second_pass_begins_where_it_differs(demo, images):
    """So a later frame costs one and a half passes."""
    model, calls = bench.spied(demo[0])
    rerender(demo, images, model=tiny.patch(model), **ALL)
    assert len(calls) == STEPS + (FRAMES - 1) * (STEPS + STEPS // 2)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2s_ancestral", "lcm", "dpmpp_sde"])
def test_a_pull_of_next_to_nothing_changes_nothing(demo, images, sampler):
    """The second pass goes on where the first was, with the noise that a whole pass would get."""
    two = images[:2]
    frames = [
        rerender(demo, two, sampler_name=sampler, steps=6, pixel_fusion_strength=strength)
        for strength in (0.0, 1e-7)
    ]
    assert tiny.error(frames[1][0]["samples"], frames[0][0]["samples"]) < 1e-4


@pytest.mark.parametrize("sampler", ["heunpp2", "dpmpp_2m", "sa_solver_pece", "dpmpp_3m_sde"])
def test_samplers_that_remember_steps_take_the_same_for_every_frame(demo, images, sampler):
    frames = rerender(demo, images[:3], sampler_name=sampler, steps=6, **ALL)[0]["samples"]
    assert frames.isfinite().all()
    assert frames.std() < 4  # nothing has run away


@pytest.mark.parametrize("sampler", ["uni_pc", "uni_pc_bh2", "dpm_fast"])
def test_samplers_that_plan_several_steps_are_refused(demo, images, sampler):
    inputs = prepared(demo, images, sampler_name=sampler, **ALL)
    bench.refuses(
        lambda: execute(**inputs),
        match=rf"'sampler_name': {sampler}.* plans several steps at once",
    )
    rerender(demo, images[:2], sampler_name=sampler, steps=2)  # nothing happens between its steps


PLANNING = {"uni_pc", "uni_pc_bh2", "dpm_fast", "dpm_adaptive"}  # several steps at once


@pytest.mark.parametrize(
    ("scheduler", "steps", "denoise"),
    [("karras", 20, 0.5), ("exponential", 50, 0.3), ("ddim_uniform", 20, 0.75), ("normal", 5, 1.0)],
)
def test_which_samplers_can_be_stopped_does_not_hang_on_the_schedule(
    demo, scheduler, steps, denoise
):
    """Steps that are small, and stops that lie far apart, hide nothing."""
    import comfy.samplers
    from crossframe.hosts.comfy.orders.sampler_nodes import schedule
    from crossframe.hosts.comfy.rerender.node import ChosenStages
    from crossframe.hosts.comfy.rerender.single_steps import takes_single_steps

    sigmas = schedule(demo[0], steps, "ddim", scheduler, denoise)
    stops = ChosenStages().resolved().stops(len(sigmas) - 1)
    refused = {
        name
        for name in comfy.samplers.KSampler.SAMPLERS
        if not takes_single_steps(comfy.samplers.sampler_object(name), demo[0], sigmas, stops)
    }
    assert refused == PLANNING


def test_a_single_picture_needs_no_motion(demo, images):
    """Whether stages are on or off; nothing is held to anything."""
    one = images[:1]
    off, on = (rerender(demo, one, motion=None, **stages)[0]["samples"] for stages in ({}, ALL))
    assert tiny.error(on, off) < 1e-4


def test_every_frame_has_a_noise_of_its_own_if_asked(demo, images):
    """Re-noising, too; and the frames do not depend on how many there are."""
    chosen = {"frame_noise": tiny.DIFFERENT, **ALL}
    whole = rerender(demo, images, **chosen)[0]["samples"]
    assert tiny.error(rerender(demo, images[:3], **chosen)[0]["samples"], whole[:3]) < 1e-4
    assert tiny.error(rerender(demo, images, **ALL)[0]["samples"], whole) > 0.05


def test_a_mask_keeps_the_rest(demo, images):
    import nodes

    with torch.inference_mode():
        (latent,) = nodes.VAEEncode().encode(demo[2], images)
    mask = torch.zeros(1, 1, *latent["samples"].shape[-2:])
    mask[..., 8:20, 8:20] = 1
    chosen = {"latent_image": {**latent, "noise_mask": mask}, **ALL}
    frames = rerender(demo, images, **chosen)[0]["samples"]
    outside = (mask == 0).expand_as(frames)
    assert torch.allclose(frames[outside], latent["samples"][outside], atol=1e-4)
    assert tiny.error(frames[~outside], latent["samples"][~outside]) > 0.1


def test_scenes_begin_anew(demo, images):
    """The first frame of a scene is painted once, and later ones are held to it."""
    scenes = {"scene_starts": "2"}
    model, calls = bench.spied(demo[0])
    frames = rerender(demo, images, model=tiny.patch(model, **scenes), **ALL)[0]["samples"]
    assert len(calls) == 2 * STEPS + 2 * (STEPS + STEPS // 2)
    first = rerender(demo, images[:2], **ALL)[0]["samples"]
    assert tiny.error(frames[:2], first) < 1e-4
    second = rerender(demo, images[2:], motion=Drift(2, images.shape[1]), **ALL)[0]["samples"]
    assert tiny.error(frames[2:3], second[:1]) < 1e-4  # the hidden band lies elsewhere after that


@pytest.mark.parametrize("stop", [3, 14, 22, 30])
def test_an_interrupted_run_goes_on(demo, images, painted, monkeypatch, tmp_path, stop):
    """Stopped in the first frame, in a first pass, in a second pass, in the last frame."""
    import folder_paths
    from crossframe.hosts.comfy.orders import sampler_nodes
    from crossframe.hosts.comfy.page.notes import Notes
    from crossframe.hosts.comfy.state.record import Record

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(sampler_nodes, "open_record", lambda *_: Record("run", Notes()))
    model, _ = bench.spied(demo[0], stop_at(stop))
    with pytest.raises(KeyboardInterrupt):
        rerender(demo, images, model=tiny.patch(model), resume=True, **ALL)
    model, calls = bench.spied(demo[0])
    resumed = rerender(demo, images, model=tiny.patch(model), resume=True, **ALL)
    assert torch.equal(resumed[0]["samples"], painted)
    assert len(resumed[1]) == FRAMES
    each = STEPS + STEPS // 2
    finished = 0 if stop < STEPS else 1 + (stop - STEPS) // each
    whole = STEPS + (FRAMES - 1) * each
    assert len(calls) == whole - (0 if finished == 0 else STEPS + (finished - 1) * each)


def test_one_bar_over_both_passes(demo, images):
    import comfy.utils

    states = []
    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, **_: states.append((value, total))
    )
    try:
        rerender(demo, images, **ALL)
    finally:
        comfy.utils.set_progress_bar_global_hook(before)
    total = FRAMES * (STEPS + STEPS // 2)
    painting = [value for value, most in states if most == total]
    assert painting == sorted(painting)
    assert painting[-1] == total


def test_a_reference_picture(demo, images):
    """Frames look at the state's picture, and are held to the first frame that is painted here."""
    from crossframe.nodes.sampling import CrossFrameKSampler

    import nodes

    picture = conditions_of(demo, images[:1], "a dark drawing")
    settings = {"seed": 1, "steps": STEPS, "cfg": CFG, "sampler_name": "euler", "denoise": 0.7}
    with torch.inference_mode():
        (latent,) = nodes.VAEEncode().encode(demo[2], images[:1])
        output = CrossFrameKSampler.execute(
            model=tiny.patch(demo[0]),
            positive=picture[0],
            negative=picture[1],
            latent_image=latent,
            scheduler="simple",
            frame_noise=tiny.SAME,
            keep_state=True,
            **settings,
        ).args
    model = tiny.patch(demo[0], state=output[1])
    frames = rerender(demo, images, model=model, **ALL)[0]["samples"]
    alone = rerender(demo, images, **ALL)[0]["samples"]
    assert frames.isfinite().all()
    assert tiny.error(frames[:1], alone[:1]) > 0.02


def test_colours_are_matched_to_the_first_result(demo):
    """What is encoded has the colours of the first painted frame; its first frame is as before."""
    clip = world.random_clip(FRAMES, torch.Generator().manual_seed(3))
    images = world.render(clip, random_look(Random(1))[0]).movedim(1, -1).clone()
    images[1:] *= torch.tensor([0.6, 1.0, 1.0])  # the camera sees later frames in another light
    gentle = {"denoise": 0.3, "steps": 10}
    kept = rerender(demo, images, **gentle)
    matched = rerender(demo, images, keep_colors=False, **gentle)
    assert torch.equal(matched[0]["samples"][:1], kept[0]["samples"][:1])
    first = kept[1][0].mean(dim=(0, 1))

    def away(pictures):
        return (pictures[1:].mean(dim=(1, 2)) - first).norm(dim=-1).mean()

    assert away(matched[1]) < away(kept[1])


def test_a_transformer(images):
    """In flow matching a latent is made of other shares of picture and noise."""
    from crossframe.demo.in_comfyui import conditions, load_in_comfyui

    import nodes

    dit = load_in_comfyui("DiT")
    with torch.inference_mode():
        conds = conditions(dit, "a neon drawing", images)
    model = tiny.patch(dit[0], layers="mid + up")
    usual = {"model": model, "conds": conds, "cfg": 1.0, "steps": 4, "denoise": 0.8}
    plain, nearly, whole = (
        rerender(dit, images, **usual, **stages)[0]["samples"]
        for stages in ({}, {"pixel_fusion_strength": 1e-7}, ALL)
    )
    assert tiny.error(nearly, plain) < 1e-3
    assert whole.isfinite().all()
    assert tiny.error(whole[:1], plain[:1]) < 1e-4
    assert tiny.error(whole[1:], plain[1:]) > 0.02
    with torch.inference_mode():
        latent = nodes.VAEEncode().encode(dit[2], images)[0]["samples"]
    assert 0.3 < whole.std() / latent.std() < 3  # nothing has run away


WRONG = {
    "no motion": (
        {"motion": None, **ALL},
        r"'motion': nothing is connected, and shape fusion and pixel fusion need it.*CrossFrameMot",
    ),
    "motion for nothing": (
        {"motion": Drift(FRAMES, 64)},
        r"'motion': shape fusion and pixel fusion are off",
    ),
    "motion of another length": (
        {"motion": Drift(3, 64), **ALL},
        r"'motion': it is that of 3 frames, but images has 4",
    ),
    "no motion at all": ({"motion": torch.zeros(2), **ALL}, r"'motion': it is not the motion of"),
    "a part the wrong way round": (
        {**ALL, "adain_start": 0.9, "adain_end": 0.2},
        r"'adain_start': it is 0.9, and adain_end is 0.2",
    ),
    "latents of other frames": (
        {"latent_image": {"samples": torch.zeros(2, 4, 32, 32)}},
        r"'latent_image': it holds 2 frames, but there are 4 images",
    ),
    "latents of another shape": (
        {"latent_image": {"samples": torch.zeros(4, 4, 24, 32)}},
        r"'latent_image': it has 32 x 24 cells, but latents of these images have 32 x 32",
    ),
    "tiny latents": (
        {"latent_image": {"samples": torch.zeros(4, 4, 2, 2)}},
        r"'latent_image': it has 2 x 2 cells",
    ),
    "a broken picture": (
        {"images": torch.full((4, 64, 64, 3), torch.nan)},
        r"'images': picture 0, counted from 0, has values that are nan",
    ),
    "motion of keyframes": (
        {"motion": lambda: of_keyframes(9, 2), **ALL},
        r"'motion': it is that of 5 frames.* or that of CrossFrameKeyframes if they are its images",
    ),
    "other colours of given latents": (
        {"latent_image": {"samples": torch.zeros(4, 4, 32, 32)}, "keep_colors": False},
        r"'keep_colors': it is off, .* latent_image does nothing",
    ),
    "no VAE": ({"vae": None}, r"'vae': there is none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(demo, images, name):
    inputs, words = WRONG[name]
    inputs = {key: value() if callable(value) else value for key, value in inputs.items()}
    inputs = prepared(demo, inputs.pop("images", images), **inputs)
    bench.refuses(lambda: execute(**inputs), match=words)


def of_keyframes(frames, every):
    """The motion between some frames of a longer clip."""
    from crossframe.motion.chosen_frames import ChosenFrames

    return ChosenFrames(Drift(frames, 64), tuple(range(0, frames, every)))


class Wide(Drift):
    size = (64, 128)


def test_motion_of_another_shape_is_refused(demo, images):
    inputs = prepared(demo, images, motion=Wide(FRAMES, 64), **ALL)
    bench.refuses(
        lambda: execute(**inputs),
        match=r"'motion': .* pictures of 128 x 64 pixels, but images has pictures of 64 x 64",
    )


@pytest.mark.parametrize("kind", ["plain", "fused", "keyframes"])
def test_models_that_do_not_fit_are_refused(demo, images, kind):
    from crossframe.nodes.fusion import CrossFrameFusion

    if kind == "plain":
        model, words = demo[0], r"'model': the MODEL carries no cross-frame attention"
    elif kind == "fused":
        fusion = {"strength": 1.0, "start_percent": 0.0, "end_percent": 0.9}
        (model,) = CrossFrameFusion.execute(
            model=tiny.patch(demo[0]),
            motion=Drift(FRAMES, 64),
            to="first + previous",
            **fusion,
        ).args
        words = r"'model': its frames are fused by CrossFrameFusion"
    else:
        model = tiny.patch(demo[0], references="keyframes", keyframes="0, 2")
        words = r"'model': its frames look at keyframes .* painted together"
    inputs = prepared(demo, images, model=model, **ALL)
    bench.refuses(lambda: execute(**inputs), match=words)
