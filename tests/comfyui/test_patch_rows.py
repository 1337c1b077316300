"""Patches of other nodes that hold one row per frame: every frame gets its own row.

The expected frames are those of one batch, where every patch sees the clip as it does without the
pack; batches of any size and frame by frame must give the same.
"""

import functools

import bench
import pytest
import tiny
import torch

FRAMES = 5


def supir(model):
    """ComfyUI's SUPIRApply: a control picture per frame, and a pull of x0 towards it."""
    from comfy_extras.nodes_model_patch import SUPIRApply

    pixels = tiny.images(FRAMES, seed=30)
    model_patch = StandInPatch()
    return SUPIRApply.execute(
        model=model,
        model_patch=model_patch,
        vae=StandInVAE(),
        image=pixels,
        strength_start=1.0,
        strength_end=0.5,
        restore_cfg=0.5,
        restore_cfg_s_tmin=0.05,
    ).args[0]


class StandInVAE:
    def encode(self, pixels):
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return torch.cat([small, small[:, :1]], dim=1) * 2 - 1

    def decode(self, latent):
        pixels = torch.nn.functional.interpolate(latent[:, :3] / 2 + 0.5, scale_factor=8)
        return pixels.movedim(1, -1)


class Adapter(torch.nn.Module):
    """Brings the mean of a control feature in, as many channels as the layer may have."""

    def forward(self, control, h, h_ori=None, control_scale=1):
        h = h + control.mean(dim=(1, 2, 3), keepdim=True) * control_scale
        return h if h_ori is None else torch.cat([h_ori, h], dim=1)


class StandInPatch:
    """A MODEL_PATCH with ComfyUI's control encoder of SUPIR, small and with random weights."""

    def __init__(self):
        import comfy.ops
        from comfy.ldm.supir.supir_modules import GLVControl

        control = GLVControl(
            model_channels=32,
            num_res_blocks=1,
            attention_resolutions=(2,),
            channel_mult=(1, 2),
            num_head_channels=16,
            transformer_depth=(1, 1),
            context_dim=tiny.CONTEXT,
            operations=comfy.ops.disable_weight_init,
        ).requires_grad_(False)
        tiny.randomize(control, 4)
        self.model = torch.nn.Module()
        self.model.control_model = control
        self.model.project_modules = torch.nn.ModuleList([Adapter() for _ in range(8)])

    def __getattr__(self, name):  # ComfyUI asks for what it needs to load a model
        raise AttributeError(name)


def per_frame(seed, *shape):
    return torch.randn(FRAMES, *shape, generator=torch.Generator().manual_seed(seed))


def repeated(rows, batch):
    """Patches take rows like this, from the top of what they hold."""
    return rows.repeat(-(-batch // len(rows)), *[1] * (rows.ndim - 1))[:batch]


def attention_output(model):
    """An attn2 output patch whose closure holds tokens."""
    rows = per_frame(1, 1, 1)

    def patch(n, extra_options):
        return n + repeated(rows, len(n))

    model = model.clone()
    model.set_model_attn2_output_patch(patch)
    return model


class InputBlock:
    """A patch object with its rows in a dict."""

    def __init__(self):
        self.held = {"rows": [per_frame(2, 1, 1, 1)]}

    def __call__(self, h, transformer_options):
        return h + repeated(self.held["rows"][0], len(h))


def input_block(model):
    model = model.clone()
    model.set_model_input_block_patch(InputBlock())
    return model


def function_wrapper(model):
    """A partial around the call of the model."""

    def add(rows, apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        return out + repeated(rows, len(out))

    model = model.clone()
    model.set_model_unet_function_wrapper(
        functools.partial(add, per_frame(3, 4, tiny.SIZE, tiny.SIZE))
    )
    return model


def apply_wrapper(model):
    """A wrapper around the call of the model."""
    from comfy.patcher_extension import WrappersMP

    rows = per_frame(4, 1, 1, 1)

    def add(executor, *args, **kwargs):
        out = executor(*args, **kwargs)
        return out + repeated(rows, len(out))

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "another pack", add)
    return model


def option_of_a_pack(model):
    """A patch that reads its rows from transformer options."""

    def patch(n, extra_options):
        return n + repeated(extra_options["another_pack"], len(n))

    model = model.clone()
    model.model_options["transformer_options"]["another_pack"] = per_frame(5, 1, 1)
    model.set_model_attn1_output_patch(patch)
    return model


def guidance(model):
    """A post-cfg function that pulls every frame to a picture of its own."""
    rows = per_frame(6, 4, tiny.SIZE, tiny.SIZE)

    def pull(args):
        return args["denoised"] * 0.9 + 0.1 * repeated(rows, len(args["denoised"]))

    model = model.clone()
    model.set_model_sampler_post_cfg_function(pull)
    return model


PATCHES = [
    attention_output,
    input_block,
    function_wrapper,
    apply_wrapper,
    option_of_a_pack,
    guidance,
]


@pytest.fixture(scope="module")
def alone(sd15):
    """The frames without another node's patch."""
    with torch.inference_mode():
        return paint(tiny.ksampler, tiny.patch(sd15), (tiny.prompt(1), tiny.prompt(2)))


@pytest.mark.parametrize("patch", PATCHES)
def test_every_frame_gets_its_own_row(sd15, prompts, alone, patch):
    whole = check_orders(lambda n: patch(tiny.patch(sd15, frames_per_batch=n)), prompts)
    assert tiny.error(alone, whole) > 0.01


def test_supir_controls_every_frame_with_its_own_picture(sdxl):
    pytest.importorskip("comfy.ldm.supir.supir_patch")
    prompts = tiny.prompt(1, pooled=True), tiny.prompt(2, pooled=True)
    whole = check_orders(lambda n: supir(tiny.patch(sdxl, frames_per_batch=n)), prompts)
    assert tiny.error(paint(tiny.ksampler, tiny.patch(sdxl), prompts), whole) > 0.01


def test_supir_keeps_features_of_an_earlier_sampling(sdxl):
    """Five frames with cond and uncond leave ten rows, which are none that a node has given."""
    pytest.importorskip("comfy.ldm.supir.supir_patch")
    prompts = tiny.prompt(1, pooled=True), tiny.prompt(2, pooled=True)
    model = supir(tiny.patch(sdxl))
    whole = paint(tiny.ksampler, model, prompts)
    assert tiny.error(paint(tiny.frame_ksampler, model, prompts), whole) < 1e-4


def paint(sample, model, prompts) -> torch.Tensor:
    """The clip of these tests; three steps, so that a patch may change from one to the next."""
    return sample(model, *prompts, tiny.clip(FRAMES), steps=3)


def check_orders(patched, prompts) -> torch.Tensor:
    """Paint a clip in one batch, in batches and frame by frame; return the one batch's frames.

    patched: a function from frames_per_batch to a MODEL.
    """
    whole = paint(tiny.ksampler, patched(0), prompts)
    for batch in (1, 2):
        assert tiny.error(paint(tiny.ksampler, patched(batch), prompts), whole) < 1e-4
    model = patched(0)
    assert tiny.error(paint(tiny.frame_ksampler, model, prompts), whole) < 1e-4
    assert torch.equal(paint(tiny.ksampler, model, prompts), whole), "the patch itself is as it was"
    return whole


def test_a_patch_that_is_told_which_frames_are_run_picks_its_rows_itself(sd15, prompts):
    rows = per_frame(7, 1, 1)

    def patch(n, extra_options):
        told = extra_options.get("ad_params", {}).get("sub_idxs")
        own = rows if told is None else rows[told]
        return n + repeated(own, len(n))

    def patched(batch):
        model = tiny.patch(sd15, frames_per_batch=batch)
        model.set_model_attn2_output_patch(patch)
        return model

    check_orders(patched, prompts)


def embeddings(model):
    """A closure over one embedding per frame, or so it seems: a table of numbers has two sides."""
    table = per_frame(8, 64)

    def patch(n, extra_options):
        return n + repeated(table, len(n))[:, None, :1]

    model = model.clone()
    model.set_model_attn2_output_patch(patch)
    return model


def weights(model):
    """A list of numbers, one per frame, for a batch of two conds."""
    numbers = [0.1 * i for i in range(FRAMES)]

    def patch(n, extra_options):
        return n * torch.tensor(numbers * 2).view(-1, 1, 1)

    model = model.clone()
    model.set_model_attn2_output_patch(patch)
    return model


ROADS = {"batches": (tiny.ksampler, 2), "frames": (tiny.frame_ksampler, 0)}


@pytest.mark.parametrize("road", ROADS)
def test_a_table_that_may_have_a_row_per_frame_is_refused_by_name(sd15, prompts, road):
    sample, batch = ROADS[road]
    model = embeddings(tiny.patch(sd15, frames_per_batch=batch))
    words = r"^CrossFrame\w+: input 'model': embeddings holds numbers that may be one row"
    with pytest.raises(ValueError, match=words):
        sample(model, *prompts, tiny.clip(FRAMES))


def test_with_such_a_table_the_clip_is_run_in_one_batch(sd15, prompts, monkeypatch):
    """This holds whatever ComfyUI's memory estimate says, unless frames_per_batch is set."""
    model = embeddings(tiny.patch(sd15))
    expected = tiny.ksampler(model, *prompts, tiny.clip(FRAMES))
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip(FRAMES)), expected) < 1e-4


@pytest.mark.parametrize("road", ROADS)
def test_a_size_that_does_not_fit_is_said_in_words(sd15, prompts, road):
    """The pack does not look into lists; a size that does not fit for that reason is explained."""
    sample, batch = ROADS[road]
    model = weights(tiny.patch(sd15, frames_per_batch=batch))
    words = r"^CrossFrame\w+: input 'model': the model cannot be run on .* frames: weights \("
    with pytest.raises(ValueError, match=words):
        sample(model, *prompts, tiny.clip(FRAMES))


class Dispatching:
    """A patch object that leads back to itself, as one with a table of its methods does."""

    def __init__(self):
        self.rows = per_frame(9, 1, 1)
        self.how = {"add": self.add}

    def add(self, n):
        return n + repeated(self.rows, len(n))

    def __call__(self, n, extra_options):
        return self.how["add"](n)


class WithState:
    """A patch with rows that counts the steps by the noise level, and fades out."""

    def __init__(self):
        self.rows = per_frame(10, 1, 1)
        self.last, self.step = None, 0

    def __call__(self, n, extra_options):
        sigma = float(extra_options["sigmas"][0])
        if sigma != self.last:
            self.step = self.step + 1 if self.last is not None and sigma < self.last else 0
            self.last = sigma
        return n + repeated(self.rows, len(n)) / (1 + self.step)


def attribute_of_function(model):
    def patch(n, extra_options):
        return n + repeated(patch.rows, len(n))

    patch.rows = per_frame(11, 1, 1)
    return with_output_patch(model, patch)


def default_argument(model):
    rows = per_frame(12, 1, 1)

    def patch(n, extra_options, held=(rows, "more")):
        return n + repeated(held[0], len(n))

    return with_output_patch(model, patch)


def shared_with_guidance(model):
    """An attention patch and a post-cfg function share a dict, which holds rows as well."""
    shared = {"rows": per_frame(13, 1, 1), "sigma": 1.0}

    def patch(n, extra_options):
        shared["sigma"] = float(extra_options["sigmas"][0])
        return n + repeated(shared["rows"], len(n))

    def fade(args):
        return args["denoised"] / (1 + shared["sigma"])

    model = with_output_patch(model, patch)
    model.set_model_sampler_post_cfg_function(fade)
    return model


def with_output_patch(model, patch):
    model = model.clone()
    model.set_model_attn2_output_patch(patch)
    return model


ODD = {
    "leads back to itself": lambda model: with_output_patch(model, Dispatching()),
    "counts steps": lambda model: with_output_patch(model, WithState()),
    "attribute of a function": attribute_of_function,
    "default argument": default_argument,
    "shared with guidance": shared_with_guidance,
}


@pytest.mark.parametrize("name", ODD)
def test_wherever_a_patch_holds_its_rows(sd15, prompts, name):
    check_orders(lambda n: ODD[name](tiny.patch(sd15, frames_per_batch=n)), prompts)


def test_what_a_patch_holds_is_put_back_after_an_error(sd15, prompts):
    patch = Dispatching()
    rows = patch.rows
    model = bench.broken(with_output_patch(tiny.patch(sd15, frames_per_batch=2), patch))
    for sample in tiny.ORDERS.values():
        with pytest.raises(bench.Planted):
            sample(model, *prompts, tiny.clip(FRAMES))
        assert patch.rows is rows


@pytest.mark.parametrize("road", ROADS)
def test_as_many_rows_as_a_latent_has_channels_are_not_cut(sd15, prompts, road):
    """With four numbers, four channels and four frames, the numbers may be for either."""
    sample, batch = ROADS[road]
    weights_of_channels = torch.tensor([1.0, 0.5, 2.0, 1.5]).view(4, 1, 1)

    def weigh(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"]) * weights_of_channels

    def patched(batch):
        model = tiny.patch(sd15, frames_per_batch=batch)
        model.set_model_unet_function_wrapper(weigh)
        return model

    words = r"^CrossFrame\w+: input 'model': .* holds numbers that may be one row for each"
    with pytest.raises(ValueError, match=words):
        sample(patched(batch), *prompts, tiny.clip(4))
    tiny.ksampler(patched(0), *prompts, tiny.clip(4))
    whole = tiny.ksampler(patched(0), *prompts, tiny.clip(3))
    assert tiny.error(sample(patched(batch), *prompts, tiny.clip(3)), whole) < 1e-4


def test_guidance_with_a_number_per_channel_is_not_cut(sd15, prompts):
    weights_of_channels = torch.tensor([1.0, 0.5, 2.0, 1.5]).view(4, 1, 1)

    def weigh(args):
        return args["denoised"] * weights_of_channels

    model = tiny.patch(sd15)
    model.set_model_sampler_post_cfg_function(weigh)
    whole = tiny.ksampler(model, *prompts, tiny.clip(4))
    assert tiny.error(tiny.frame_ksampler(model, *prompts, tiny.clip(4)), whole) < 1e-4
