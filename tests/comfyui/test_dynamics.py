"""A clip from a prompt in real ComfyUI, against diffusers' own pipeline of Text2Video-Zero."""

import bench
import pytest
import tiny
import torch
from crossframe.demo import world

STEPS, TO, FROM = 10, 2, 5
CFG, SEED, PROMPT = 2.0, 3, "a neon drawing"
CELLS = world.SIZE // 2  # the autoencoder halves both sides
SHIFT = 12  # of the published field, in pixels of 512
MODULE = "diffusers.pipelines.deprecated.text_to_video_synthesis.pipeline_text_to_video_zero"


@pytest.fixture(scope="module")
def conds(demo):
    return prompts_of(demo)


@torch.inference_mode()
def prompts_of(demo):
    import nodes

    return [nodes.CLIPTextEncode().encode(demo[1], words)[0] for words in (PROMPT, "")]


def field(frames, x=-SHIFT / 8, y=-SHIFT / 8, size=world.SIZE, **more):
    """The motion; 8 pixels of the published field are one of this world."""
    from crossframe.nodes.dynamics import CrossFrameMotionField

    usual = {"width": size, "height": size, "zoom": 1.0, "turn": 0.0}
    return CrossFrameMotionField.execute(frames=frames, x=x, y=y, **{**usual, **more}).args[0]


@torch.inference_mode()
def part(model, conds, latent, start, end, add_noise="disable"):
    """Some steps, as KSampler (Advanced) takes them."""
    import nodes

    last = end >= STEPS
    return nodes.KSamplerAdvanced().sample(
        model,
        add_noise,
        SEED,
        STEPS,
        CFG,
        "ddim",
        "simple",
        *conds,
        latent,
        start,
        end,
        "disable" if last else "enable",
    )[0]


def first_frame(model, conds, latent=None):
    """The latents of frame 0 at the earlier and at the later step."""
    latent = latent or {"samples": torch.zeros(1, 4, CELLS, CELLS)}
    earlier = part(model, conds, latent, 0, TO, "enable")
    return earlier, part(model, conds, earlier, TO, FROM)


@torch.inference_mode()
def dynamics(model, latent, motion, **inputs):
    from crossframe.nodes.dynamics import CrossFrameDynamics

    usual = {
        "seed": SEED + 1,
        "steps": STEPS,
        "sampler_name": "ddim",
        "scheduler": "simple",
        "from_step": FROM,
        "to_step": TO,
        "frame_noise": tiny.DIFFERENT,
    }
    return CrossFrameDynamics.execute(model, latent, motion, **{**usual, **inputs}).args[0]


def first_only(model, **more):
    return tiny.patch(model, references="first", layers="all", **more)


def paint(demo, conds, motion, frames_per_batch=0):
    """The latents of a clip, (frames, 4, CELLS, CELLS)."""
    model = first_only(demo[0], frames_per_batch=frames_per_batch)
    earlier, later = first_frame(model, conds)
    clip = dynamics(model, later, motion, earlier_latent=earlier)
    return part(model, conds, clip, TO, STEPS)["samples"]


@pytest.fixture
def published(monkeypatch):
    """A function that paints with diffusers' pipeline, with ComfyUI's noise."""
    import importlib

    import comfy.sample
    from crossframe.demo.shipped import load_pipeline
    from diffusers import DDIMScheduler

    module = importlib.import_module(MODULE)
    shipped = load_pipeline()
    scheduler = DDIMScheduler.from_config(
        shipped.scheduler.config,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )
    names = ("vae", "text_encoder", "tokenizer", "unet")
    pipeline = module.TextToVideoZeroPipeline(
        **{name: getattr(shipped, name) for name in names},
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    shape = (4, CELLS, CELLS)

    @torch.inference_mode()
    def run(frames, shift, off_by_one=False):
        rows = comfy.sample.prepare_noise(torch.zeros(frames, *shape), SEED + 1)[1:]
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **options: rows)
        if not off_by_one:
            pipeline.forward_loop = lambda **given: by_the_paper(scheduler, rows, **given)
        start = comfy.sample.prepare_noise(torch.zeros(1, *shape), SEED)
        return (
            pipeline(
                PROMPT,
                video_length=frames,
                height=world.SIZE,
                width=world.SIZE,
                num_inference_steps=STEPS,
                guidance_scale=CFG,
                negative_prompt="",
                latents=start,
                motion_field_strength_x=shift,
                motion_field_strength_y=shift,
                t1=STEPS - 1 - TO,
                t0=STEPS - 1 - FROM,
                output_type="latent",
            ).images
            * pipeline.vae.config.scaling_factor**-1
        )

    return run


def by_the_paper(scheduler, noise, x_t0, t0, t1, generator):
    """Diffusion from step t0 to t1, which is the product of the steps after t0, up to t1."""
    kept = scheduler.alphas_cumprod[t1] / scheduler.alphas_cumprod[t0]
    return kept.sqrt() * x_t0 + (1 - kept).sqrt() * noise


@pytest.mark.parametrize("frames", [4, 8])
@pytest.mark.parametrize("moves", [True, False], ids=["motion", "no motion"])
def test_the_published_pipeline(demo, conds, published, frames, moves):
    shift = SHIFT if moves else 0
    expected = published(frames, shift)
    found = paint(demo, conds, field(frames, -shift / 8, -shift / 8))
    assert tiny.error(found, expected) < 1e-3
    if moves:
        assert tiny.error(found[1:], found[:1].expand_as(found[1:])) > 0.1


def test_the_published_pipeline_adds_the_noise_of_a_step_beside(demo, conds, published):
    """It multiplies alphas[t0:t1], which leaves out the last step and has one before the first."""
    found = paint(demo, conds, field(4))
    assert tiny.error(published(4, SHIFT, off_by_one=True), found) < 0.02
    assert tiny.error(published(4, SHIFT, off_by_one=True), published(4, SHIFT)) > 1e-5


def test_batches_give_the_same_frames(demo, conds):
    motion = field(5)
    whole, split = (paint(demo, conds, motion, frames_per_batch=count) for count in (0, 2))
    assert tiny.error(split, whole) < 1e-4


def test_frame_by_frame_gives_the_same_frames(demo, conds):
    from crossframe.nodes.sampling import CrossFrameKSampler

    model = first_only(demo[0])
    earlier, later = first_frame(model, conds)
    clip = dynamics(model, later, field(4), earlier_latent=earlier)
    whole = part(model, conds, clip, TO, STEPS)["samples"]
    with torch.inference_mode():
        one_by_one = CrossFrameKSampler.execute(
            model=model,
            seed=SEED,
            steps=STEPS,
            cfg=CFG,
            sampler_name="ddim",
            scheduler="simple",
            positive=conds[0],
            negative=conds[1],
            latent_image=clip,
            denoise=1.0,
            frame_noise=tiny.SAME,
            add_noise="disable",
            start_at_step=TO,
        ).args[0]["samples"]
    assert tiny.error(one_by_one, whole) < 1e-4


def test_frames_do_not_depend_on_how_many_there_are(demo, conds):
    earlier, later = first_frame(demo[0], conds)
    short, long = (
        dynamics(demo[0], later, field(frames), earlier_latent=earlier)["samples"]
        for frames in (3, 6)
    )
    assert torch.equal(long[:3], short)
    assert torch.equal(short[:1], earlier["samples"])


def test_without_the_earlier_latent_the_first_frame_gets_noise_too(demo, conds):
    earlier, later = first_frame(demo[0], conds)
    given, alone = (
        dynamics(demo[0], later, field(3), **more)["samples"]
        for more in ({"earlier_latent": earlier}, {})
    )
    assert torch.equal(given[1:], alone[1:])
    assert tiny.error(alone[:1], given[:1]) > 0.1
    assert 0.9 < alone[0].std() / given[0].std() < 1.1


@pytest.mark.parametrize("size", [(2, 2), (1, 32), (31, 33)])
def test_any_size(demo, conds, size):
    """Also one that is too small to say how much noise there is."""
    earlier, later = first_frame(demo[0], conds, {"samples": torch.zeros(1, 4, *size)})
    motion = field(3, width=8 * size[1], height=8 * size[0])
    clip = dynamics(demo[0], later, motion, earlier_latent=earlier)["samples"]
    assert clip.shape == (3, 4, *size)
    assert clip.isfinite().all()


def test_one_noise_for_all_frames(demo, conds):
    _, later = first_frame(demo[0], conds)
    still = {"motion": field(3, 0, 0), "latent": later, "model": demo[0]}
    same = dynamics(**still, frame_noise=tiny.SAME)["samples"]
    assert torch.equal(same[1], same[2])
    different = dynamics(**still)["samples"]
    assert tiny.error(different[1], different[2]) > 0.1
    assert not torch.equal(different, dynamics(**still, seed=1)["samples"])


def test_what_comes_with_the_latent_stays_with_it(demo, conds):
    _, later = first_frame(demo[0], conds)
    mask = torch.ones(1, world.SIZE, world.SIZE)
    given = {**later, "noise_mask": mask, "batch_index": [7]}
    clip = dynamics(demo[0], given, field(3))
    assert clip["noise_mask"] is mask
    assert "batch_index" not in clip  # it names one frame, and there are three
    assert given["samples"].shape[0] == 1


def test_a_zoom_and_a_turn_keep_the_centre(demo, conds):
    _, later = first_frame(demo[0], conds)
    for more in ({"zoom": 1.5}, {"turn": 30.0}):
        clip = dynamics(demo[0], later, field(3, 0, 0, **more), frame_noise=tiny.SAME)["samples"]
        still = dynamics(demo[0], later, field(3, 0, 0), frame_noise=tiny.SAME)["samples"]
        centre = slice(CELLS // 2 - 1, CELLS // 2 + 1)
        kept = (clip - still)[..., centre, centre].abs().mean()
        assert kept < 0.5 * (clip - still)[1:].abs().mean()


def test_a_transformer_gets_noise_as_flow_matching_does():
    """x = (1 - s) * clean + s * noise; a LATENT with noise left is x / (1 - s)."""
    import comfy.sample
    import comfy.samplers
    from crossframe.demo.in_comfyui import load_in_comfyui

    dit = load_in_comfyui("DiT")
    conds = prompts_of(dit)
    model = tiny.patch(dit[0], references="first", layers="mid + up")
    empty = {"samples": torch.zeros(1, 4, CELLS, CELLS)}
    _, later = first_frame(model, conds, empty)
    clip = dynamics(model, later, field(3, -2, 0))
    sigmas = comfy.samplers.KSampler(dit[0], STEPS, "cpu", "ddim", "simple").sigmas
    high, low = sigmas[TO], sigmas[FROM]
    inside = dit[0].model.process_latent_in
    x = inside(later["samples"]) * (1 - low)
    noise = comfy.sample.prepare_noise(torch.zeros(3, 4, CELLS, CELLS), SEED + 1)
    for frame in range(3):
        moved = torch.cat((x[0][..., frame:], x[0][..., CELLS - frame :].flip(-1)), dim=-1)
        scale = (1 - high) / (1 - low)
        wanted = scale * moved + (high**2 - (scale * low) ** 2).sqrt() * noise[frame]
        found = inside(clip["samples"][frame]) * (1 - high)
        assert tiny.error(found, wanted) < 1e-4
    painted = part(model, conds, clip, TO, STEPS)["samples"]
    assert painted.isfinite().all()


WRONG = {
    "no motion": ({"motion": torch.zeros(2)}, r"'motion': it is not the motion of a clip"),
    "motion of another shape": (
        {"motion": lambda: field(3, height=128)},
        r"'motion': it is that of pictures of 64 x 128 pixels, but the latents have 32 x 32",
    ),
    "steps the wrong way round": (
        {"from_step": 2, "to_step": 5},
        r"'to_step': it is 5, and from_step is 2\. Choose a step before",
    ),
    "the same step": ({"to_step": FROM}, r"'to_step': it is 5, and from_step is 5"),
    "a step beyond the last": (
        {"from_step": STEPS},
        r"'from_step': it is 10 of 10 steps, where no noise is left",
    ),
    "a clean latent": (
        {"latent": {"samples": torch.randn(1, 4, CELLS, CELLS)}},
        r"'latent': it has less noise than belongs to this step.*with_leftover_noise",
    ),
    "a latent of an earlier step": (
        {"latent": lambda: "earlier", "from_step": 8},
        r"'latent': it has more noise than belongs to this step",
    ),
    "two frames": (
        {"latent": {"samples": torch.zeros(2, 4, CELLS, CELLS)}},
        r"'latent': it holds 2 frames, and one is wanted",
    ),
    "an earlier latent of another step": (
        {"earlier_latent": lambda: "later"},
        r"'earlier_latent': it has less noise than belongs to this step",
    ),
    "an earlier latent of another size": (
        {"earlier_latent": {"samples": 8 * torch.randn(1, 4, CELLS, 8)}},
        r"'earlier_latent': its shape is \(4, 32, 8\), and that of latent is \(4, 32, 32\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(demo, conds, name):
    inputs, words = WRONG[name]
    earlier, later = first_frame(demo[0], conds)
    inputs = {key: value() if callable(value) else value for key, value in inputs.items()}
    left = {"earlier": earlier, "later": later}
    for key in ("latent", "earlier_latent"):
        if isinstance(inputs.get(key), str):
            inputs[key] = left[inputs[key]]
    given = {"model": demo[0], "latent": later, "motion": field(3), **inputs}
    bench.refuses(lambda: dynamics(**given), match=words)


def test_at_full_noise_a_transformer_has_nothing_that_could_move(demo):
    from crossframe.demo.in_comfyui import load_in_comfyui

    dit = load_in_comfyui("DiT")
    latent = {"samples": torch.randn(1, 4, CELLS, CELLS)}
    bench.refuses(
        lambda: dynamics(dit[0], latent, field(3), to_step=0),
        match=r"'to_step': at this step the model knows nothing but noise",
    )


class Curve:
    """As a Curve Editor gives it."""

    def interp(self, x):
        return 0.2 + 0.5 * x


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"curve": Curve(), "pace": "ease in"}, r"'pace': it is 'ease in', but a curve is conn"),
        ({"curve": [1, 2]}, r"'curve': it is not a curve, but a list"),
    ],
)
def test_a_field_with_a_wrong_pace(inputs, words):
    bench.refuses(lambda: field(4, **inputs), match=words)


def test_the_page_shows_a_socket_for_the_curve():
    """As a widget, it would send a curve of its own that nobody has drawn."""
    from crossframe.nodes.dynamics import CrossFrameMotionField

    (_, options) = CrossFrameMotionField.GET_NODE_INFO_V1()["input"]["optional"]["curve"]
    assert options["forceInput"]


def test_a_curve_says_how_far_it_has_moved():
    motion = field(5, x=2.0, y=0.0, curve=Curve())
    there = motion.between(0, 4).positions - motion.between(0, 0).positions
    assert torch.allclose(there[..., 0], torch.tensor(0.5 * 4 * 2.0), atol=1e-4)


def test_the_field_brings_keyframes_and_pictures():
    from crossframe.nodes.dynamics import CrossFrameMotionField

    motion, listed, preview = CrossFrameMotionField.execute(
        frames=20, width=512, height=256, x=32.0, y=0.0, zoom=1.0, turn=0.0
    ).args
    assert listed == "0, 9, 18"
    assert motion.keyframes == (0, 9, 18)
    assert preview.shape == (20, 64, 128, 3)
    assert preview.min() >= 0
    assert preview.max() <= 1
