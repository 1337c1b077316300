"""Frames do not depend on which conds ComfyUI runs, groups or splits, nor on their order."""

import itertools

import bench
import pytest
import tiny
import torch


@pytest.mark.parametrize("memory", ["full", "low", "changing"])
def test_cond_and_uncond_together_or_apart(sd15, canny, prompts, sample, memory, monkeypatch):
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images())
    model = tiny.patch(sd15, frames_per_batch=2)
    together = sample(model, *conds, tiny.clip())
    needs = {"full": itertools.repeat(0), "low": itertools.repeat(1e30)}
    needs["changing"] = itertools.cycle([0, 0, 1e30, 0, 1e30])
    need = needs[memory]
    monkeypatch.setattr(sd15.model, "memory_required", lambda *_, **__: next(need))
    model, calls = bench.spied(model)
    assert tiny.error(sample(model, *conds, tiny.clip()), together) < 1e-4
    sizes = {len(call.conds) for call in calls}
    assert sizes == {"full": {2}, "low": {1}, "changing": {1, 2}}[memory]


@pytest.mark.parametrize(("free", "batch"), [(1e9, 7), (100.0, 4), (70.0, 3), (1.0, 1)])
def test_frames_per_batch_by_free_memory(sd15, prompts, monkeypatch, free, batch):
    """0 takes what fits with cond and uncond together; the frames stay the same."""
    fixed = tiny.ksampler(tiny.patch(sd15, frames_per_batch=2), *prompts, tiny.clip(7))
    model, calls = bench.spied(tiny.patch(sd15))
    monkeypatch.setattr(sd15.model, "memory_required", lambda shape, **_: 7.0 * shape[0])
    monkeypatch.setattr(model, "get_free_memory", lambda device: free)
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip(7)), fixed) < 1e-4
    assert max(call.frames for call in calls) == batch


def test_cfg_1_runs_one_cond(sd15, prompts):
    model, calls = bench.spied(tiny.patch(sd15, frames_per_batch=2))
    frames = tiny.frame_ksampler(model, *prompts, tiny.clip(), cfg=1.0)
    assert tiny.error(tiny.ksampler(model, *prompts, tiny.clip(), cfg=1.0), frames) < 1e-4
    assert {call.conds for call in calls} == {(0,)}


def swapped_guider(model, conds):
    """A guider that evaluates the negative before the positive."""
    import comfy.samplers

    class NegativeFirst(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            conds = [self.conds["negative"], self.conds["positive"]]
            negative, positive = comfy.samplers.calc_cond_batch(
                self.inner_model, conds, x, timestep, model_options
            )
            return negative + self.cfg * (positive - negative)

    return bench.guider(model, conds, tiny.SAMPLING["cfg"], kind=NegativeFirst)


@pytest.mark.parametrize("frame_by_frame", [False, True])
def test_swapped_order_of_conds(sd15, prompts, frame_by_frame):
    model = tiny.patch(sd15, frames_per_batch=2)
    usual = bench.guider(model, prompts, tiny.SAMPLING["cfg"])
    expected, swapped = (
        bench.custom(guider, frame_by_frame=frame_by_frame)
        for guider in (usual, swapped_guider(model, prompts))
    )
    assert tiny.error(swapped, expected) < 1e-4


def test_three_conds(sd15, prompts):
    """DualCFGGuider has a third cond, of index 2."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    conds = prompts[0], tiny.prompt(3), prompts[1]
    model = tiny.patch(sd15, frames_per_batch=2)
    guider = bench.guider(model, conds, 3.0, 2.0, kind=Guider_DualCFG)
    stock, ours = (bench.custom(guider, frame_by_frame=order) for order in (False, True))
    assert tiny.error(ours, stock) < 1e-4


def test_perp_neg_in_batches(sd15, prompts):
    """PerpNeg projects over all frames at once, so only all frames per step can agree."""
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    conds = *prompts, tiny.prompt(3)
    whole, apart = (
        bench.guider(tiny.patch(sd15, frames_per_batch=n), conds, 3.0, 1.0, kind=Guider_PerpNeg)
        for n in (0, 2)
    )
    whole, apart = (bench.custom(guider, frame_by_frame=False) for guider in (whole, apart))
    assert tiny.error(apart, whole) < 1e-4


def test_prompts_that_share_a_cond_index(sd15, prompts, monkeypatch):
    """Regional prompts: full frame, masked, cropped to an area, limited in time."""
    mask = tiny.masks(tiny.FRAMES)
    positive = [
        *prompts[0],
        [tiny.prompt(11)[0][0], {"mask": mask, "mask_strength": 0.7}],
        [tiny.prompt(12)[0][0], {"area": (4, 4, 2, 2), "strength": 0.9}],
        [tiny.prompt(13)[0][0], {"start_percent": 0.5, "end_percent": 0.8}],
        [tiny.prompt(14)[0][0], {"mask": 1 - mask, "mask_strength": 1.0}],
    ]
    inputs = {"denoise": 1.0, "steps": 5}
    model = tiny.patch(sd15, frames_per_batch=2, layers="all")
    stock = tiny.ksampler(model, positive, prompts[1], tiny.clip(), **inputs)
    ours = tiny.frame_ksampler(model, positive, prompts[1], tiny.clip(), **inputs)
    assert tiny.error(ours, stock) < 1e-4
    need = itertools.cycle([0, 0, 1e30, 0, 1e30])
    monkeypatch.setattr(sd15.model, "memory_required", lambda *_, **__: next(need))
    split = tiny.frame_ksampler(model, positive, prompts[1], tiny.clip(), **inputs)
    assert tiny.error(split, stock) < 1e-4


def test_conds_that_another_wrapper_brings_in(sd15, prompts):
    """They reach the model under labels that were not there when a batch was prepared."""
    import uuid

    from comfy.patcher_extension import WrappersMP

    renamed = {}

    def rename(executor, model, conds, *args):
        for cond in filter(None, conds):
            for entry in cond:
                entry["uuid"] = renamed.setdefault(entry["uuid"], uuid.uuid4())
        return executor(model, conds, *args)

    expected = tiny.ksampler(tiny.patch(sd15), *prompts, tiny.clip())
    model = tiny.patch(sd15, frames_per_batch=2)
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "other", rename)
    for sample in tiny.ORDERS.values():
        assert tiny.error(sample(model, *prompts, tiny.clip()), expected) < 1e-4


@pytest.mark.parametrize("order", list(tiny.ORDERS))
def test_prompts_that_another_wrapper_runs_in_another_order(sd15, prompts, order):
    """Every other call of the model gets the prompts of a cond in reversed order."""
    from comfy.patcher_extension import WrappersMP

    calls = itertools.count()

    def reverse(executor, model, conds, *args):
        step = -1 if next(calls) % 2 else 1
        return executor(model, [cond and cond[::step] for cond in conds], *args)

    positive = [*prompts[0], *tiny.prompt(11), *tiny.prompt(12)]
    sampling = {"denoise": 1.0, "steps": 3}
    expected = tiny.ksampler(tiny.patch(sd15), positive, prompts[1], tiny.clip(), **sampling)
    model = tiny.patch(sd15, frames_per_batch=1)
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "other", reverse)
    frames = tiny.ORDERS[order](model, positive, prompts[1], tiny.clip(), **sampling)
    assert tiny.error(frames, expected) < 1e-4


def test_a_default_prompt_that_only_some_frames_need(sd15, prompts):
    """ComfyUI runs a default prompt only where masks leave something uncovered."""
    mask = torch.ones(tiny.FRAMES, tiny.PIXELS, tiny.PIXELS)
    mask[2, : tiny.PIXELS // 2] = 0
    positive = [
        [prompts[0][0][0], {"mask": mask, "mask_strength": 1.0}],
        [tiny.prompt(12)[0][0], {"area": (4, 4, 2, 2), "strength": 0.5}],
        [tiny.prompt(11)[0][0], {"default": True}],
    ]
    model = tiny.patch(sd15, frames_per_batch=1)
    stock = tiny.ksampler(model, positive, prompts[1], tiny.clip())
    ours = tiny.frame_ksampler(model, positive, prompts[1], tiny.clip())
    assert tiny.error(ours, stock) < 1e-4


@pytest.mark.parametrize("layers", ["up", "all"])
@pytest.mark.parametrize("node", ["pag", "sag"])
def test_nodes_that_evaluate_the_model_again(sd15, prompts, layers, node):
    """PAG and SAG run extra passes at the same step, and replace a layer's attention."""
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance
    from comfy_extras.nodes_sag import SelfAttentionGuidance

    if node == "pag":
        model = tiny.patch(sd15, frames_per_batch=2, layers=layers)
        model = PerturbedAttentionGuidance.execute(model, 2.0).args[0]
    else:  # SAG remembers the attention of one model call, so the clip must be one batch
        model = tiny.patch(sd15, layers=layers)
        model = SelfAttentionGuidance.execute(model, 0.5, 2.0).args[0]
    stock = tiny.ksampler(model, *prompts, tiny.clip())
    ours = tiny.frame_ksampler(model, *prompts, tiny.clip())
    assert tiny.error(ours, stock) < 1e-4
