"""Everything with one row per frame reaches the right frame, in both orders.

The other road: the stock sampler on each frame alone, with that frame's own rows. The pack
is attached with each frame attending to itself, so that nothing but the rows can differ.
"""

import bench
import pytest
import tiny
import torch

FRAMES = 4
SIDES = (tiny.PIXELS, tiny.PIXELS)


def conditioning_set_values(conds, **values):
    return [[tokens, {**extra, **values}] for tokens, extra in conds]


def row(value, frame):
    """Row `frame` of a tensor with one row per frame."""
    is_clip = isinstance(value, torch.Tensor) and value.shape[0] == FRAMES
    return value[frame : frame + 1] if is_clip else value


def check(model, make_conds, latent=None, orders=("batch", "chunks", "frames"), **inputs):
    """Compare a clip's frames with each frame sampled alone by the stock sampler.

    make_conds(cut): builds (positive, negative), with `cut` applied to all that has rows.
    """
    latent = latent or tiny.clip(FRAMES)
    inputs = {"steps": 3, **inputs}
    alone = []
    for frame in range(FRAMES):
        part = {key: row(value, frame) for key, value in latent.items()}
        part["batch_index"] = [frame]  # the stock sampler's noise of this frame in the clip
        conds = make_conds(lambda value, frame=frame: row(value, frame))
        alone.append(tiny.ksampler(model, *conds, part, **inputs))
    alone = torch.cat(alone)
    latent = {**latent, "batch_index": list(range(FRAMES))}
    conds = make_conds(lambda value: value)
    if "batch" in orders:
        assert (
            tiny.error(tiny.ksampler(tiny.patch_own(model), *conds, latent, **inputs), alone) < 1e-4
        )
    if "chunks" in orders:
        result = tiny.ksampler(tiny.patch_own(model, 3), *conds, latent, **inputs)
        assert tiny.error(result, alone) < 1e-4
    if "frames" in orders:
        result = tiny.frame_ksampler(tiny.patch_own(model), *conds, latent, **inputs)
        assert tiny.error(result, alone) < 1e-4
    return alone


def test_controlnet_hints(sd15, canny, prompts):
    hints = tiny.images(FRAMES)
    alone = check(sd15, lambda cut: tiny.apply_controlnet(*prompts, canny, cut(hints)))
    first_hint = tiny.apply_controlnet(*prompts, canny, hints[:1])
    assert tiny.error(tiny.ksampler(sd15, *first_hint, tiny.clip(FRAMES), steps=3), alone) > 0.1


def test_a_chain_of_controlnets_with_ranges(sd15, canny, prompts):
    other = tiny.controlnet(tiny.SD15, seed=21)
    a, b = tiny.images(FRAMES, seed=1), tiny.images(FRAMES, seed=2)

    def conds(cut):
        first = tiny.apply_controlnet(*prompts, canny, cut(a), start=0.0, end=0.6)
        return tiny.apply_controlnet(*first, other, cut(b), start=0.4, end=1.0)

    check(sd15, conds, denoise=1.0)


def test_t2i_adapter_hints(sd15, prompts):
    adapter, hints = tiny.t2i_adapter(), tiny.images(FRAMES)
    alone = check(sd15, lambda cut: tiny.apply_controlnet(*prompts, adapter, cut(hints)))
    first_hint = tiny.apply_controlnet(*prompts, adapter, hints[:1])
    assert tiny.error(tiny.ksampler(sd15, *first_hint, tiny.clip(FRAMES), steps=3), alone) > 0.1


def test_prompts_with_one_row_per_frame(sdxl):
    positive = tiny.prompt(1, FRAMES, pooled=True)
    negative = tiny.prompt(2, 1, pooled=True)

    def conds(cut):
        ((tokens, extra),) = positive
        return [[cut(tokens), {k: cut(v) for k, v in extra.items()}]], negative

    check(sdxl, conds)


def test_noise_mask(sd15, prompts):
    latent = tiny.clip(FRAMES, noise_mask=tiny.masks(FRAMES).unsqueeze(1))
    check(sd15, lambda cut: prompts, latent)


@pytest.mark.parametrize("shape", [(1, 1, *SIDES), (1, *SIDES), SIDES])
def test_one_noise_mask_for_all_frames(sd15, prompts, shape):
    latent = tiny.clip(FRAMES, noise_mask=tiny.masks(1).reshape(shape))
    check(sd15, lambda cut: prompts, latent)


def test_one_prompt_mask_without_a_row(sd15, prompts):
    """The mask is as high as the clip is long, but its lines must not be taken for rows."""
    for mask in (tiny.masks(1, size=1)[0, :FRAMES], tiny.masks(1)[0]):
        positive = conditioning_set_values(prompts[0], mask=mask, mask_strength=0.8)
        conds = positive + tiny.prompt(5), prompts[1]
        check(sd15, lambda cut, conds=conds: conds)


def test_noise_mask_with_a_sampler_that_draws_its_own_noise(sd15, prompts):
    """ddim renews the noise around the mask with one draw for the whole batch."""
    latent = tiny.clip(FRAMES, noise_mask=tiny.masks(FRAMES).unsqueeze(1))
    model = tiny.patch(sd15, frames_per_batch=2)
    frames = tiny.frame_ksampler(model, *prompts, latent, "ddim")
    assert tiny.error(tiny.ksampler(model, *prompts, latent, "ddim"), frames) < 1e-4


def test_prompt_masks(sd15, prompts):
    mask = tiny.masks(FRAMES)

    def conds(cut):
        positive = conditioning_set_values(prompts[0], mask=cut(mask), mask_strength=0.8)
        return positive + tiny.prompt(5), prompts[1]

    check(sd15, conds)


def test_prompt_masks_whose_bounds_set_the_area(sd15, prompts):
    """The area is the same for all frames, so only the two orders can be compared."""
    mask = torch.zeros(FRAMES, *SIDES)
    for frame in range(FRAMES):
        mask[frame, 8 * frame : 8 * frame + 24, :32] = 1
    values = {"mask": mask, "mask_strength": 1.0, "set_area_to_bounds": True}
    positive = conditioning_set_values(prompts[0], **values) + tiny.prompt(5)
    model = tiny.patch(sd15, frames_per_batch=3)
    frames = tiny.frame_ksampler(model, positive, prompts[1], tiny.clip(FRAMES))
    stock = tiny.ksampler(model, positive, prompts[1], tiny.clip(FRAMES))
    assert tiny.error(stock, frames) < 1e-4


def test_inpaint_model(prompts):
    """Inpaint latents and masks are concatenated to the input, one row per frame."""
    model = tiny.model(tiny.INPAINT)
    latents, mask = tiny.clip(FRAMES, seed=12)["samples"], tiny.masks(FRAMES).unsqueeze(1)

    def conds(cut):
        values = {"concat_latent_image": cut(latents), "concat_mask": cut(mask)}
        return tuple(conditioning_set_values(c, **values) for c in prompts)

    alone = check(model, conds)
    plain = tiny.ksampler(model, *prompts, tiny.clip(FRAMES), steps=3)
    assert tiny.error(alone, plain) > 0.1


def test_inpaint_model_without_inpaint_latents(prompts):
    """The concatenated latents then come from the clip itself."""
    model = tiny.model(tiny.INPAINT)
    latent = tiny.clip(FRAMES, noise_mask=tiny.masks(FRAMES).unsqueeze(1))
    check(model, lambda cut: prompts, latent)


def test_positive_and_negative_run_in_one_call(sd15, canny, prompts):
    """They do so only as long as both hold the same ControlNet object."""
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images(FRAMES))
    model, calls = bench.spied(tiny.patch(sd15, frames_per_batch=2))
    tiny.ksampler(model, *conds, tiny.clip(FRAMES), steps=3)
    assert [call.rows for call in calls] == [4] * 2 * 3
    calls.clear()
    tiny.frame_ksampler(model, *conds, tiny.clip(FRAMES), steps=3)
    assert [call.rows for call in calls] == [2] * FRAMES * 3


def test_the_users_controlnet_stays_untouched(sd15, canny, prompts):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images(FRAMES))
    control = conds[0][0][1]["control"]
    before = control.cond_hint_original.clone()
    for sample in (tiny.ksampler, tiny.frame_ksampler):
        sample(tiny.patch(sd15), *conds, tiny.clip(FRAMES))
        assert control.cond_hint is None
        assert control.timestep_range is None
        assert torch.equal(control.cond_hint_original, before)


@pytest.mark.parametrize("order", ["batch", "frames"])
@pytest.mark.parametrize("make", [tiny.controlnet, tiny.t2i_adapter])
def test_hints_after_an_interrupted_stock_run(sd15, prompts, order, make):
    """ComfyUI then leaves prepared hints of the whole clip on the user's ControlNet."""
    conds = tiny.apply_controlnet(*prompts, make(), tiny.images(FRAMES))
    sample = tiny.ksampler if order == "batch" else tiny.frame_ksampler
    model = tiny.patch(sd15, frames_per_batch=2)
    clean = sample(model, *conds, tiny.clip(FRAMES))
    with pytest.raises(bench.Planted):
        tiny.ksampler(bench.broken(sd15), *conds, tiny.clip(FRAMES))
    assert conds[0][0][1]["control"].cond_hint is not None
    assert torch.equal(sample(model, *conds, tiny.clip(FRAMES)), clean)
