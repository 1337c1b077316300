"""Noise that is drawn during a sampling is the same in both orders, whatever code draws it."""

import functools

import bench
import pytest
import tiny
import torch
from bench import refuses
from graphs import Graph, Plan
from tiny import DIFFERENT, SAME

FRAMES = 4


def bent(name):
    """A SAMPLER whose function bends the noise levels and calls another sampler's function."""
    from comfy.samplers import KSAMPLER, sampler_object

    inner = sampler_object(name)

    def bend(model, x, sigmas, **kwargs):
        return inner.sampler_function(model, x, sigmas * 0.98, **kwargs)

    return KSAMPLER(bend)


def in_options(name):
    """A SAMPLER that holds another one in its options, as wrappers from packs do."""
    from comfy.samplers import KSAMPLER, sampler_object

    def call(model, x, sigmas, *, wrapped, **kwargs):
        return wrapped.sampler_function(model, x, sigmas, **kwargs, **wrapped.extra_options)

    return KSAMPLER(call, extra_options={"wrapped": sampler_object(name)})


def step(model, x, sigmas, i, extra_args):
    """One Euler step."""
    denoised = model(x, sigmas[i] * x.new_ones(len(x)), **extra_args)
    return x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])


def from_torch(draw):
    """A SAMPLER that adds noise which `draw(x)` draws from torch's own generator."""
    from comfy.samplers import KSAMPLER

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            x = step(model, x, sigmas, i, extra_args) + 0.2 * sigmas[i + 1] * draw(x)
        return x

    return KSAMPLER(sample)


class SamplerObject:
    """A SAMPLER that is no KSAMPLER."""

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, *args, **kwargs):
        x = noise * sigmas[0]
        for i in range(len(sigmas) - 1):
            x = step(model_wrap, x, sigmas, i, extra_args)
            x = x + 0.2 * sigmas[i + 1] * torch.randn_like(x)
        return x


class Callable:
    """A sampler function that is an object, and so has no name."""

    def __call__(self, model, x, sigmas, **kwargs):
        from comfy.k_diffusion.sampling import sample_euler_ancestral

        return sample_euler_ancestral(model, x, sigmas, **kwargs)


def partly():
    from comfy.k_diffusion.sampling import sample_euler_ancestral
    from comfy.samplers import KSAMPLER

    return KSAMPLER(functools.partial(sample_euler_ancestral, eta=0.5))


def partly_sde():
    from comfy.k_diffusion.sampling import sample_dpmpp_2m_sde
    from comfy.samplers import KSAMPLER

    return KSAMPLER(functools.partial(sample_dpmpp_2m_sde, eta=0.5))


def nameless():
    from comfy.samplers import KSAMPLER

    return KSAMPLER(Callable())


def churned():
    """ComfyUI's Euler with noise that it draws from torch's own generator."""
    from comfy.samplers import ksampler

    return ksampler("euler", {"s_churn": 2.0})


def growing():
    """ComfyUI's sampler that makes the latent larger on its way."""
    from comfy_extras.nodes_advanced_samplers import SamplerLCMUpscale

    return SamplerLCMUpscale.execute(1.5, 2, "bilinear").args[0]


SAMPLERS = {
    **{
        f"bent {name}": functools.partial(bent, name)
        for name in ("euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde_gpu", "lcm")
    },
    "in options": functools.partial(in_options, "dpmpp_2s_ancestral"),
    "randn_like": lambda: from_torch(torch.randn_like),
    "randn": lambda: from_torch(lambda x: torch.randn(x.shape, dtype=x.dtype)),
    "randn of numbers": lambda: from_torch(lambda x: torch.randn(*x.shape)),
    "rand": lambda: from_torch(lambda x: torch.rand(size=x.shape) - 0.5),
    "normal_": lambda: from_torch(lambda x: torch.empty_like(x).normal_(0, 0.5)),
    "normal": lambda: from_torch(lambda x: torch.normal(0.0, 1.0, x.shape)),
    "normal of tensors": lambda: from_torch(lambda x: torch.normal(torch.zeros_like(x), 0.5)),
    "no KSAMPLER": SamplerObject,
    "partial": partly,
    "partial of SDE": partly_sde,
    "nameless": nameless,
    "churned": churned,
    "growing": growing,
}


def paint(graph, sampler, sigmas=None, frame_by_frame=False, model=None, latent=None):
    """Paint the frames of a graph with a SAMPLER, or with the name of one of ComfyUI's."""
    from comfy_extras.nodes_custom_sampler import BasicScheduler

    model = graph.patched() if model is None else model
    noise = bench.clip_noise(3, graph.plan.frame_noise)
    if sigmas is None:
        sigmas = BasicScheduler.execute(model, "normal", 3, 1.0).args[0]
    latent = graph.latent if latent is None else latent
    return bench.custom(graph.guider(model), sampler, sigmas, latent, noise, frame_by_frame)


@pytest.fixture(params=[DIFFERENT, SAME])
def graph(request, parts):
    return Graph.build(Plan(frames=FRAMES, layers="up", frame_noise=request.param), parts)


@pytest.mark.parametrize("name", SAMPLERS)
def test_both_orders_and_all_batches_give_the_same_frames(parts, name):
    for choice in (DIFFERENT, SAME):
        graph = Graph.build(Plan(frames=FRAMES, layers="up", frame_noise=choice), parts)
        frames = paint(graph, SAMPLERS[name](), frame_by_frame=True)
        batches = [graph.patched(3), graph.patched()] if choice == DIFFERENT else [graph.patched(3)]
        for model in batches:
            assert tiny.error(paint(graph, SAMPLERS[name](), model=model), frames) < 1e-4


@pytest.mark.parametrize(
    "name", ["bent euler_ancestral", "bent dpmpp_sde", "randn_like", "churned"]
)
def test_frame_noise_decides_whether_frames_share_it(parts, name):
    """On latents that are all the same, frames differ by their noise alone."""
    spread = {}
    for choice in (DIFFERENT, SAME):
        graph = Graph.build(Plan(frames=FRAMES, references="first", frame_noise=choice), parts)
        latent = {"samples": graph.latent["samples"][:1].repeat(FRAMES, 1, 1, 1)}
        frames = paint(graph, SAMPLERS[name](), latent=latent)
        spread[choice] = tiny.error(frames[1:], frames[:1].expand_as(frames[1:]))
    assert spread[SAME] < 1e-4 < 0.1 < spread[DIFFERENT]


@pytest.mark.parametrize(
    "name", ["bent euler_ancestral", "bent dpmpp_sde", "randn_like", "partial"]
)
def test_frame_0_gets_what_the_stock_sampler_gives_a_batch_of_one(parts, name):
    graph = Graph.build(Plan(frames=FRAMES, layers="up"), parts)
    one = {"samples": graph.latent["samples"][:1]}
    expected = paint(graph, SAMPLERS[name](), model=graph.model, latent=one)
    assert tiny.error(paint(graph, SAMPLERS[name]())[:1], expected) < 1e-4


TOGETHER = {
    "std": lambda x: x.std(),
    "mean": lambda x: x.mean(dim=(0, 2, 3), keepdim=True),
    "max": torch.max,
    "norm": lambda x: torch.linalg.vector_norm(x.flatten()),
    "roll": lambda x: x.roll(1, 0).abs(),
    "mse_loss": lambda x: torch.nn.functional.mse_loss(x, torch.zeros_like(x)),
}


@pytest.mark.parametrize("function", TOGETHER)
def test_a_sampler_that_looks_at_all_frames_together_is_refused_frame_by_frame(parts, function):
    """The pack notices it when it happens; frame by frame, the sampler would see one frame only."""
    from comfy.samplers import KSAMPLER

    def normalizing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i in range(len(sigmas) - 1):
            x = step(model, x / (1 + 0.1 * TOGETHER[function](x)), sigmas, i, extra_args)
        return x

    graph = Graph.build(Plan(frames=FRAMES, layers="up"), parts)
    whole, apart = (
        paint(graph, KSAMPLER(normalizing), (3.0, 1.0, 0.3), model=graph.patched(n)) for n in (0, 2)
    )
    assert tiny.error(apart, whole) < 1e-4
    with pytest.raises(ValueError, match=rf"^CrossFrameSampler: input 'sampler': .*{function}"):
        paint(graph, KSAMPLER(normalizing), frame_by_frame=True)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
@pytest.mark.parametrize("sigmas", [[0.0], [3.0, 0.0]])
def test_hardly_any_steps(graph, name, sigmas):
    """SplitSigmasDenoise leaves such parts, and the stock sampler takes them."""
    sigmas = torch.tensor(sigmas)
    whole = paint(graph, name, sigmas)
    assert torch.isfinite(whole).all()
    assert tiny.error(paint(graph, name, sigmas, True), whole) < 1e-4
    if len(sigmas) == 1:
        stock = paint(graph, name, sigmas, model=graph.model)
        assert tiny.error(whole, stock) < 1e-4


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde", "ddim"])
def test_a_part_of_a_clip_has_the_noise_of_its_frames(parts, name):
    """LatentFromBatch says which frames a latent holds; noise on the way follows, too."""
    from nodes import LatentFromBatch

    graph = Graph.build(Plan(frames=FRAMES, layers="up"), parts)
    own = tiny.patch_own(graph.model)  # so that frames depend on nothing but themselves
    whole = paint(graph, name, model=own)
    for start, stop in ((2, 4), (3, 4), (1, 3)):
        part = LatentFromBatch().frombatch(graph.latent, start, stop - start)[0]
        for frame_by_frame in (False, True):
            found = paint(graph, name, None, frame_by_frame, own, part)
            assert tiny.error(found, whole[start:stop]) < 1e-4


def test_later_frames_of_a_long_clip_do_not_draw_all_noise_before_them(monkeypatch):
    """For frames 60,000 and 60,001 all of it is drawn, but never much at once."""
    from crossframe.hosts.comfy.noise.clip_noise import SeededNoise, noise_from

    largest = 0
    randn = torch.randn

    def noting(size, *args, **kwargs):
        nonlocal largest
        largest = max(largest, torch.Size(size).numel())
        return randn(size, *args, **kwargs)

    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    whole = randn((60_002, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(torch, "randn", noting)
    found = noise_from(SeededNoise(5), latent, 60_000)
    assert torch.equal(found, whole[60_000:])
    assert largest < 100 * 4 * 8 * 8


@pytest.mark.parametrize("first", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("size", [8, 5])
def test_pieces_of_noise_are_the_whole_bit_for_bit(first, size):
    from crossframe.hosts.comfy.noise.clip_noise import SeededNoise, noise_from

    latent = {"samples": torch.zeros(4, 4, size, size)}
    whole = torch.randn((first + 4, 4, size, size), generator=torch.Generator().manual_seed(5))
    assert torch.equal(noise_from(SeededNoise(5), latent, first), whole[first:])


class RowsOfItsOwn:
    """A NOISE that brings one row per frame, whatever latent it is asked for."""

    seed = 3

    def __init__(self, rows):
        self.rows = rows

    def generate_noise(self, latent):
        generator = torch.Generator().manual_seed(8)
        return torch.randn(self.rows, 4, tiny.SIZE, tiny.SIZE, generator=generator)


@pytest.mark.parametrize("frame_by_frame", [False, True])
@pytest.mark.parametrize("rows", [1, FRAMES])
def test_one_noise_of_a_noise_that_brings_rows_of_its_own(parts, rows, frame_by_frame):
    graph = Graph.build(Plan(frames=FRAMES, layers="up"), parts)
    noise = bench.clip_noise(RowsOfItsOwn(rows), SAME)
    drawn = noise.generate_noise(graph.latent)
    assert drawn.shape == graph.latent["samples"].shape
    assert (drawn == RowsOfItsOwn(1).generate_noise(None)[:1]).all() or rows > 1
    assert (drawn == drawn[:1]).all()
    guider = graph.guider(graph.patched())
    bench.custom(guider, "euler", (3.0, 1.0, 0.0), graph.latent, noise, frame_by_frame)


def test_a_noise_with_other_rows_than_the_clip_is_refused(parts):
    graph = Graph.build(Plan(frames=FRAMES, layers="up"), parts)
    guider = graph.guider(graph.patched())
    refuses(
        lambda: bench.custom(guider, latent=graph.latent, noise=RowsOfItsOwn(3)),
        match=r"^CrossFrameSampler: input 'noise': it has 3 rows",
    )


def upscaler():
    """A MODEL of the SD x4 upscaler's family, which draws noise for its pictures by itself."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    settings = comfy.supported_models.SD_X4Upscaler({**tiny.SD15, "in_channels": 7})
    settings.unet_config |= {"num_heads": 4, "num_classes": 1000}
    settings.unet_config["disable_self_attentions"] = [False, False]
    real = comfy.model_base.SD_X4Upscaler(settings)
    tiny.randomize(real.diffusion_model)
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(real, device, device)


def test_a_model_that_draws_noise_for_its_pictures(prompts):
    from comfy_extras.nodes_sdupscale import SD_4XUpscale_Conditioning

    pixels = tiny.images(FRAMES, size=(2, 2))
    *conds, latent = SD_4XUpscale_Conditioning.execute(pixels, *prompts, 1.0, 0.3).args
    real = upscaler()
    latent = {"samples": latent["samples"].expand(FRAMES, -1, -1, -1)}

    def patched(batch=0):
        return tiny.patch(real, layers="all", frames_per_batch=batch)

    settings = {"denoise": 1.0, "steps": 2, "cfg": 2.0}
    whole = tiny.ksampler(patched(), *conds, latent, **settings)
    assert tiny.error(tiny.ksampler(patched(2), *conds, latent, **settings), whole) < 1e-4
    assert tiny.error(tiny.frame_ksampler(patched(), *conds, latent, **settings), whole) < 1e-4
    one = [
        [[c[0], {**c[1], "concat_image": c[1]["concat_image"][:1]}] for c in cond] for cond in conds
    ]
    first = tiny.ksampler(real, *one, {"samples": latent["samples"][:1]}, **settings)
    assert tiny.error(whole[:1], first) < 1e-4, "frame 0 is that of a batch of one"


@pytest.mark.parametrize("numbers", [[], [0], [0, 1, 2, 3, 4]])
def test_numbers_of_other_frames_than_the_latent_holds_are_refused(parts, numbers):
    graph = Graph.build(Plan(frames=FRAMES, layers="up"), parts)
    latent = {**graph.latent, "batch_index": numbers}
    refuses(
        lambda: paint(graph, "euler", frame_by_frame=True, latent=latent),
        match=r"^CrossFrameSampler: input 'latent_image': its batch_in",
    )


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2"])
def test_a_sampler_that_writes_into_its_noise_levels(parts, name):
    """ComfyUI's uni_pc does; every frame gets the levels as they were given."""
    graph = Graph.build(Plan(frames=FRAMES, layers="up"), parts)
    frames = [paint(graph, name, torch.tensor([0.0]), order) for order in (False, True)]
    assert tiny.error(*frames) < 1e-4
