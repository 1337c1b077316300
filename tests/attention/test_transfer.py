"""Copies that nobody waits for: right numbers whatever the order in which they arrive.

On a graphics card a copy is complete only some time after it was begun. `SlowLane` is as slow as
can be: what is copied is not there before somebody waits for it. The lane itself needs a CUDA
device; its tests run where there is one.
"""

import pytest
import torch
from crossframe.attention import REFERENCES, Layer, Run, Storage, bank
from crossframe.attention.storage import PRECISIONS
from crossframe.attention.transfer import Lane

CPU = torch.device("cpu")
LAYERS = [Layer("output", number, 0) for number in range(3)]
ENTRIES = ["positive", "negative"]
STEPS, FRAMES, TOKENS = 2, 5, 4


class Copy:
    """A copy under way: what is read before it is complete is not a number."""

    def __init__(self, source, wait=lambda: None):
        self.target = (
            torch.full_like(source, float("nan")) if source.is_floating_point() else -source
        )
        self._source, self._wait = source, wait

    def synchronize(self):
        self._wait()
        self._wait = lambda: None
        self.target.copy_(self._source)


class SlowLane:
    """A lane whose copies are made when they are waited for. now: counts calls of layers."""

    def __init__(self):
        self.now = 0
        self.begun_ahead = []
        self.hosts = []
        self._out = None

    def out(self, tensor):
        # One after the other, as on the stream that computes.
        before = self._out
        self._out = Copy(tensor.clone(), before.synchronize if before else lambda: None)
        self.hosts.append(self._out.target)
        return self._out.target, self._out

    def back(self, host, complete):
        return (copy := Copy(host, complete.synchronize)).target, (self.now, copy)

    def take(self, tensor, there):
        begun, copy = there
        self.begun_ahead.append(self.now - begun)
        copy.synchronize()
        return tensor


@pytest.fixture
def lane(monkeypatch):
    lane = SlowLane()
    monkeypatch.setattr(bank, "lane_between", lambda source, target: lane)
    return lane


def tokens(frame, step, layer):
    seed = 1000 * frame + 100 * step + layer.number
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(ENTRIES), TOKENS, 3, generator=generator)


def attended(run, orders, lane=None):
    """What every layer attends to in a run, in one of the two orders of work."""
    outputs = []

    def evaluate(frames, step):
        evaluation = run.evaluate(frames, LAYERS)
        for layer in LAYERS:
            if lane is not None:
                lane.now += 1
            batch = torch.stack([tokens(frame, step, layer) for frame in frames], 1).flatten(0, 1)
            outputs.extend(evaluation.attend(layer, ENTRIES, (batch,)))

    if orders == "frames":
        for frame in range(run.start, FRAMES):
            run.start_frame(frame)
            for step in range(STEPS):
                run.next_step(float(step))
                evaluate([frame], step)
    else:
        for step in range(STEPS):
            run.forget()
            for frames in ([0, 1], [2, 3], [4]):
                evaluate(frames, step)
    return outputs


@pytest.mark.parametrize("orders", ["frames", "steps"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", REFERENCES)
def test_the_same_tokens_as_without_a_lane(lane, monkeypatch, orders, precision, name):
    storage = Storage(CPU, precision)
    slow = attended(Run(REFERENCES[name], FRAMES, storage), orders, lane)
    monkeypatch.undo()
    expected = attended(Run(REFERENCES[name], FRAMES, storage), orders)
    assert len(slow) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(slow, expected))
    assert lane.begun_ahead


def test_copies_back_are_begun_one_layer_ahead(lane):
    """All but those of the very first layer, of which nobody knew that it would come."""
    attended(Run(REFERENCES["first"], FRAMES, Storage(CPU)), "frames", lane)
    loads = (FRAMES - 1) * STEPS * len(LAYERS) * len(ENTRIES)
    assert len(lane.begun_ahead) == loads
    # The first layer of a frame comes after the last of the frame before, which is not known.
    at_once = (FRAMES - 1) * len(ENTRIES)
    assert sorted(lane.begun_ahead) == [0] * at_once + [1] * (loads - at_once)


def test_a_state_is_complete_and_holds_no_locked_memory(lane):
    run = Run(REFERENCES["first + previous"], FRAMES, Storage(CPU), carry=True)
    attended(run, "frames", lane)
    state = run.leave()
    assert state.held == {0, FRAMES - 1}
    for key, frames in state.kept.items():
        for frame, (stored,) in frames.items():
            assert stored.lane is None
            assert all(stored.values.data_ptr() != host.data_ptr() for host in lane.hosts)
            entry = ENTRIES.index(key.entry)
            assert torch.equal(stored.values, tokens(frame, key.step, key.layer)[entry])


def test_memory_that_cannot_be_fetched_ahead_is_fetched_when_wanted(lane, monkeypatch):
    expected = attended(Run(REFERENCES["first"], FRAMES, Storage(CPU)), "frames", lane)
    back = SlowLane.back

    def full(self, host, complete):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls % 5 == 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return back(self, host, complete)

    fetch, ahead = bank.Bank.fetch_after, []

    def fetch_after(self, key):
        with monkeypatch.context() as patch:
            patch.setattr(SlowLane, "back", full)
            fetch(self, key)
        ahead.append(key)

    monkeypatch.setattr(bank.Bank, "fetch_after", fetch_after)
    again = attended(Run(REFERENCES["first"], FRAMES, Storage(CPU)), "frames", lane)
    assert all(torch.equal(a, b) for a, b in zip(again, expected))
    assert lane.calls > 5


@pytest.mark.cuda
@pytest.mark.parametrize("precision", PRECISIONS)
def test_on_a_graphics_card(precision):
    """The same tokens as with a bank on the card, and the processor waits for nothing."""
    device = torch.device("cuda")

    def run(storage):
        bank_, outputs = bank.Bank(storage), []
        keys = [bank.Key(0, layer, "positive", 4096) for layer in LAYERS * 4]
        keys = [key._replace(step=number) for number, key in enumerate(keys)]
        work = torch.randn(4096, 4096, device=device)
        for number, key in enumerate(keys):
            work = work @ work / 64  # something for the card to be busy with
            generator = torch.Generator(device).manual_seed(number)
            new = torch.randn(4096, 640, generator=generator, device=device).half()
            bank_.store(key, 0, (new,))
            new.zero_()  # the owner may change it at once
        for key in keys:
            (tokens_,) = bank_.load(key, 0)
            bank_.fetch_after(key)
            work = work @ work / 64
            outputs.append(tokens_.clone())
        return outputs

    run(Storage(CPU, precision))  # allocations and streams, which may wait, are made once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        through_the_lane = run(Storage(CPU, precision))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_the_card = run(Storage(None, precision))
    assert all(torch.equal(a, b) for a, b in zip(through_the_lane, on_the_card))
    assert isinstance(Lane(device), Lane)
