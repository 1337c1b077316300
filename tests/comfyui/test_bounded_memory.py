"""What is remembered between model calls, measured on the tensors themselves."""

import dataclasses
import gc
import math
import types
import weakref

import bench
import pytest
import tiny

SIZE = 4  # latents as small as they go: many frames and steps are run here


class LiveTensors:
    """Watches every tensor that a bank keeps, and the most bytes alive at once."""

    def __init__(self, monkeypatch) -> None:
        from crossframe.attention.bank import Bank

        self.references: list[weakref.ref] = []
        self.most = 0
        store = Bank.store

        def watched(bank, key, frame, tokens):
            store(bank, key, frame, tokens)
            self.references += [weakref.ref(t) for t in bank.load(key, frame)]
            self.most = max(self.most, self.now())

        monkeypatch.setattr(Bank, "store", watched)

    def now(self) -> int:
        self.references = [r for r in self.references if r() is not None]
        storages = {
            r().untyped_storage().data_ptr(): r().untyped_storage() for r in self.references
        }
        return sum(storage.nbytes() for storage in storages.values())


@pytest.fixture
def live(monkeypatch):
    return LiveTensors(monkeypatch)


def most_bytes(live, sample, model, prompts, frames, steps) -> int:
    live.most = 0
    sample(model, *prompts, tiny.clip(frames, size=SIZE), steps=steps)
    assert live.now() == 0, "a run has left hidden states behind"
    return live.most


def test_all_frames_per_step(sd15, prompts, live):
    whole, chunks = tiny.patch(sd15), tiny.patch(sd15, frames_per_batch=4)
    assert most_bytes(live, tiny.ksampler, whole, prompts, 8, 2) == 0
    sizes = {most_bytes(live, tiny.ksampler, chunks, prompts, n, 2) for n in (8, 32, 128)}
    sizes |= {most_bytes(live, tiny.ksampler, chunks, prompts, 8, n) for n in (8, 32)}
    # First and previous frame, for both conds, in all chosen layers.
    layers = tiny.settings_of(chunks).layers
    expected = sum(a.tokens(SIZE, SIZE) * a.channels * 4 for a in layers) * 2 * 2
    assert sizes == {expected}


def test_frame_by_frame(sd15, prompts, live):
    model = tiny.patch(sd15)
    by_frames = {most_bytes(live, tiny.frame_ksampler, model, prompts, n, 2) for n in (8, 32, 128)}
    assert len(by_frames) == 1
    by_steps = [most_bytes(live, tiny.frame_ksampler, model, prompts, 4, n) for n in (2, 8, 32)]
    assert by_steps == [by_steps[0], by_steps[0] * 4, by_steps[0] * 16]


PART = {"start_percent": 0.3, "end_percent": 0.7}


@pytest.mark.parametrize(
    ("sampler", "inputs"),
    [
        *((name, PART) for name in ("euler", "heun", "dpmpp_2m", "uni_pc", "dpm_2")),
        ("res_multistep", PART),
        ("dpm_2", {}),
        ("euler", {"references": "first"}),
        ("euler", {"layers": "all"}),
    ],
    ids=str,
)
def test_the_announced_size_is_the_allocated_one(
    sd15, prompts, live, caplog, monkeypatch, sampler, inputs
):
    from crossframe.hosts.comfy.orders import frame_by_frame

    monkeypatch.setattr(frame_by_frame, "readable_size", str)  # exact numbers of bytes
    sampling = {"steps": 6, "denoise": 1.0, "sampler_name": sampler}
    tiny.frame_ksampler(tiny.patch(sd15, **inputs), *prompts, tiny.clip(3), **sampling)
    (announced,) = (m for m in caplog.messages if "bank of up to" in m)
    (held,) = (m for m in caplog.messages if "held at most" in m)
    assert live.most > 0
    assert f"bank of up to {live.most} in" in announced
    assert f"held at most {live.most}." in held


@pytest.mark.parametrize("size", [9, 11, 14])
def test_odd_sizes(sd15, prompts, live, size):
    """Halving rounds up, and both orders agree on such sizes too."""
    model, latent = tiny.patch(sd15, layers="all", frames_per_batch=2), tiny.clip(4, size=size)
    stock = tiny.ksampler(model, *prompts, latent, steps=1)
    layers = tiny.settings_of(model).layers
    assert live.most == sum(a.tokens(size, size) * a.channels * 4 for a in layers) * 2 * 2
    assert tiny.error(tiny.frame_ksampler(model, *prompts, latent, steps=1), stock) < 1e-4


def test_half_precision_halves_the_bank(prompts, live):
    """Hidden states are kept as the model computes them."""
    import torch

    model = tiny.model({**tiny.SD15, "dtype": torch.bfloat16})
    model.model.diffusion_model.to(torch.bfloat16)
    patched = tiny.patch(model)
    tiny.frame_ksampler(patched, *prompts, tiny.clip(3), steps=2)
    layers = tiny.settings_of(patched).layers
    frame = sum(a.tokens(tiny.SIZE, tiny.SIZE) * a.channels * 2 for a in layers)
    assert live.most == frame * 2 * 2 * 2  # conds, kept frames, steps


@pytest.mark.parametrize(("family", "size", "bank_gib"), [("SD15", 64, 1.03), ("SDXL", 128, 8.2)])
def test_full_size_models(family, size, bank_gib):
    """The figures of docs/how-it-works.md: 20 steps, CFG, fp16. No weights are allocated."""
    import comfy.model_base
    import comfy.supported_models
    from crossframe.attention import LAYER_SETS
    from crossframe.benchmarks.random_models import FULL, GEOMETRY
    from crossframe.hosts.comfy.model.unet import self_attention_layers

    small = tiny.SD15 if family == "SD15" else tiny.SDXL
    config = {**small, **GEOMETRY[family.lower()], "model_channels": FULL}
    settings = getattr(comfy.supported_models, family)(config)
    base = comfy.model_base.BaseModel if family == "SD15" else comfy.model_base.SDXL
    patcher = types.SimpleNamespace(model=base(settings, device="meta"))
    layers = self_attention_layers(patcher, LAYER_SETS["up"])
    frame = sum(attn1.tokens(size, size) * attn1.channels * 2 for attn1 in layers) * 2
    assert frame * 2 * 20 / 1024**3 == pytest.approx(bank_gib, rel=0.01)
    print(f"{family}: in chunks {frame * 2 / 1024**2:.1f} MiB, frame by frame {bank_gib} GiB")


def record_budgets(monkeypatch) -> list[int]:
    """A list that gets the frames of every memory estimate that ComfyUI makes room by."""
    import comfy.sampler_helpers

    asked = []
    estimate = comfy.sampler_helpers.estimate_memory

    def record(model, noise_shape, conds):
        asked.append(noise_shape[0])
        return estimate(model, noise_shape, conds)

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", record)
    return asked


@pytest.mark.parametrize(("frames_per_batch", "budget"), [(0, 8), (4, 4), (64, 40)])
def test_sampling_memory_is_asked_for_one_batch(
    sd15, prompts, monkeypatch, frames_per_batch, budget
):
    """ComfyUI makes room for the frames of one batch, not of the clip."""
    asked = record_budgets(monkeypatch)
    model = tiny.patch(sd15, frames_per_batch=frames_per_batch, bank_device="system memory")
    tiny.ksampler(model, *prompts, tiny.clip(40, size=SIZE), steps=1)
    assert asked == [budget]


def test_the_batch_leaves_room_for_controlnets(sd15, canny, prompts, monkeypatch):
    """Memory that ControlNets and their work take is not available for frames."""
    import comfy.model_management

    frame, work = 1_000_000, 3_000_000
    loaded = sd15.model_size() + canny.control_model_wrapped.model_size()
    total = loaded + work + 5 * 2 * 1.5 * frame + 1  # 5 frames, cond and uncond, headroom
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda *_: total)
    monkeypatch.setattr(comfy.model_management, "extra_reserved_memory", lambda: 0)
    monkeypatch.setattr(sd15.model, "memory_required", lambda shape, **_: frame * shape[0])
    conds = tiny.apply_controlnet(*prompts, canny, tiny.images(1, size=SIZE))
    monkeypatch.setattr(
        type(conds[0][0][1]["control"]), "inference_memory_requirements", lambda *_: work
    )
    asked = record_budgets(monkeypatch)
    model = tiny.patch(sd15, bank_device="system memory")
    tiny.ksampler(model, *conds, tiny.clip(40, size=SIZE), steps=1)
    assert asked == [5]


@pytest.mark.parametrize(
    ("device", "free", "frames"),
    [
        ("cuda", 1e12, 200),  # all that fit
        ("cuda", 2 * 1.5 * 50 + 1, 46),  # 50 fit, less the bank between batches
        ("cuda", 0, 1),
        ("cpu", 1e12, 8),  # the fastest
        ("cpu", 2 * 1.5 * 5 + 1, 1),
    ],
)
def test_frames_per_batch_0(sd15, device, free, frames):
    """What fits and runs fastest, on simulated devices where a frame with one cond takes 1 byte."""
    import torch
    from crossframe.attention import PaintingOrder
    from crossframe.hosts.comfy.run.memory import MemoryPlan

    settings = tiny.settings_of(tiny.patch(sd15))
    order = PaintingOrder.of(settings.policy, 200)
    plan = MemoryPlan(settings, order, one_batch=False, has_state=False)
    plan.expect_bank(12)
    model = types.SimpleNamespace(memory_required=lambda shape: shape[0])
    shape = (200, 4, 16, 16)
    assert plan.frames_per_batch(model, shape, free, torch.device(device)) == frames
    plan.one_batch = True  # another node needs it, whatever fits
    assert plan.frames_per_batch(model, shape, free, torch.device(device)) == 200
    plan.settings = dataclasses.replace(settings, frames_per_batch=3)
    assert plan.frames_per_batch(model, shape, free, torch.device(device)) == 3


@pytest.mark.parametrize("order", ["batch", "frames"])
def test_nothing_outlives_a_failed_run(sd15, prompts, live, order):
    def fail_late(number, args):
        if number == 6:
            raise bench.Planted

    model, _ = bench.spied(tiny.patch(sd15, frames_per_batch=2), fail_late)
    with pytest.raises(bench.Planted) as caught:
        tiny.ORDERS[order](model, *prompts, tiny.clip(6))
    assert live.most > 0
    del caught  # its traceback holds the frames of the functions that ran
    gc.collect()
    assert live.now() == 0


def test_the_memory_rule():
    """As many frames as fit with the headroom ComfyUI itself keeps, never less than one."""
    from crossframe.hosts.comfy.run.batches import frames_that_fit

    def required(frames):
        return 10 * frames

    assert frames_that_fit(required, free=1e9, frames=40) == 40
    assert frames_that_fit(required, free=151, frames=40) == 10
    assert frames_that_fit(required, free=150, frames=40) == 9
    assert frames_that_fit(required, free=0, frames=40) == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_of_groups_of_one_size(size):
    """Batches are as few as possible and of nearly equal size, and no group is split."""
    from crossframe.hosts.comfy.run.batches import batches

    for count in range(1, 30):
        groups = [tuple(range(size * i, size * (i + 1))) for i in range(count)]
        for most in range(1, 12):
            parts = batches(groups, most)
            assert [f for part in parts for f in part] == list(range(size * count))
            assert all(len(part) % size == 0 for part in parts)
            assert max(map(len, parts)) <= max(most, size)
            assert len(parts) == -(-count // max(most // size, 1))
            assert max(map(len, parts)) - min(map(len, parts)) <= size


def test_batches_of_groups_of_several_sizes():
    from crossframe.hosts.comfy.run.batches import batches

    groups = [(0, 4, 8), (1,), (2,), (3,), (5, 6)]
    assert batches(groups, 2) == [(0, 4, 8), (1, 2), (3,), (5, 6)]
    assert batches(groups, 4) == [(0, 1, 4, 8), (2, 3, 5, 6)]


def test_the_bank_is_asked_for(sd15, prompts, monkeypatch):
    """ComfyUI makes room for the part of the bank that is still to come, counted in frames."""
    per_frame = 100_000.0
    monkeypatch.setattr(sd15.model, "memory_required", lambda shape, **_: per_frame * shape[0] / 2)
    asked = record_budgets(monkeypatch)

    def asked_for(sample, **inputs):
        asked.clear()
        sample(tiny.patch(sd15, **inputs), *prompts, tiny.clip(6), steps=5, denoise=1.0)
        return [*asked]

    layers = tiny.settings_of(tiny.patch(sd15)).layers
    conds = 2
    one_frame = conds * sum(a.tokens(tiny.SIZE, tiny.SIZE) * a.channels * 4 for a in layers)
    frames = [1 + math.ceil(n * 5 * one_frame / per_frame) for n in (2, 1, 0, 0, 0, 0)]
    assert asked_for(tiny.frame_ksampler) == frames
    assert asked_for(tiny.frame_ksampler, bank_device="system memory") == [1] * 6
    assert asked_for(tiny.ksampler, frames_per_batch=6) == [6]
    between = math.ceil(2 * one_frame / per_frame)
    assert asked_for(tiny.ksampler, frames_per_batch=2) == [2 + between]


@pytest.mark.parametrize("sample", tiny.ORDERS.values())
@pytest.mark.parametrize("device", ["with the model", "system memory"])
def test_int8_changes_frames_by_less_than_can_be_seen(sd15, prompts, live, sample, device):
    exact = sample(tiny.patch(sd15, frames_per_batch=2, layers="all"), *prompts, tiny.clip())
    whole = live.most
    rounded = tiny.patch(
        sd15,
        frames_per_batch=2,
        layers="all",
        bank_device=device,
        bank_precision="int8 per token",
    )
    difference = (sample(rounded, *prompts, tiny.clip()) - exact).std() / exact.std()
    assert 0 < difference < 0.01
    assert whole > 0


def test_a_device_without_memory(sd15, prompts, monkeypatch, caplog):
    """Running out of memory while storing changes where, not what."""
    import torch
    from crossframe.attention import Storage

    expected = tiny.frame_ksampler(tiny.patch(sd15), *prompts, tiny.clip())
    keep, calls = Storage.keep, []

    def full_after_ten(self, tokens):
        calls.append(self.device)
        if len(calls) > 10 and self.device != torch.device("cpu"):
            raise torch.cuda.OutOfMemoryError("out of memory")
        return keep(self, tokens)

    monkeypatch.setattr(Storage, "keep", full_after_ten)
    assert torch.equal(tiny.frame_ksampler(tiny.patch(sd15), *prompts, tiny.clip()), expected)
    assert calls.count(None) == 11
    assert caplog.text.count("kept in system memory") == 1


def test_a_long_clip_costs_its_latents():
    """Measured in fresh processes, one more frame costs a few latents and no activations."""
    from crossframe.benchmarks import memory

    short, long = (memory.in_a_process(memory.ORDERS[0], frames) for frames in (128, 1408))
    slope = (long - short) / 1280
    assert slope < 20 * memory.LATENT_BYTES
