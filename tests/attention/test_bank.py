"""The bank keeps copies, counts bytes, and never confuses addresses."""

import logging

import pytest
import torch
from crossframe.attention import Bank, Key, Layer, Storage
from crossframe.attention.storage import AS_COMPUTED, INT8, Stored

KEY = Key(3, Layer("output", 4, 0), (0, 0), 16)


def test_keeps_a_copy():
    bank, batch = Bank(), torch.zeros(5, 16, 8)
    bank.store(KEY, 0, (batch[2],))
    batch += 1
    (kept,) = bank.load(KEY, 0)
    assert torch.equal(kept, torch.zeros(16, 8))
    assert kept.untyped_storage().nbytes() == 16 * 8 * 4


@pytest.mark.parametrize(
    "other",
    [
        KEY._replace(step=4),
        KEY._replace(layer=Layer("output", 4, 1)),
        KEY._replace(entry=(1, 0)),
        KEY._replace(tokens=64),
    ],
)
def test_addresses_are_apart(other):
    bank = Bank()
    bank.store(KEY, 0, (torch.zeros(16, 8),))
    assert not bank.frames(other)
    bank.store(other, 0, (torch.ones(16, 8),))
    assert torch.equal(bank.load(KEY, 0)[0], torch.zeros(16, 8))


def test_a_second_write_is_refused():
    bank = Bank()
    bank.store(KEY, 0, (torch.zeros(16, 8),))
    with pytest.raises(ValueError, match="already stored"):
        bank.store(KEY, 0, (torch.ones(16, 8),))


def test_counts_bytes_and_says_what_it_holds():
    bank = Bank()
    assert repr(bank) == "Bank(0 layers, 0 steps, 0 B, empty)"
    bank.store(KEY, 0, (torch.zeros(16, 8), torch.zeros(16, 8)))
    bank.store(KEY._replace(step=4), 1, (torch.zeros(16, 8, dtype=torch.float16),))
    assert bank.nbytes == 2 * 16 * 8 * 4 + 16 * 8 * 2
    assert repr(bank) == "Bank(1 layers, 2 steps, 1.2 KiB, cpu)"
    bank.drop(KEY, 0)
    assert bank.nbytes == 16 * 8 * 2
    with pytest.raises(KeyError):
        bank.drop(KEY, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_int8_loses_little_and_takes_a_byte_per_number(dtype):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(64, 320, generator=generator)
    tokens[3] *= 100  # one loud token does not cost the others their precision
    tokens[5] = 0
    tokens = tokens.to(dtype)
    bank = Bank(Storage(precision=INT8))
    bank.store(KEY, 0, (tokens,))
    assert bank.nbytes == 64 * (320 + 4) == 64 * bank.storage.bytes_per_token(320, 4)
    (kept,) = bank.load(KEY, 0)
    assert kept.dtype == dtype
    error = (kept.float() - tokens.float()).norm(dim=1)
    size = tokens.float().norm(dim=1)
    assert error[5] == 0
    assert (error[size > 0] / size[size > 0]).max() < 0.015


ALLOCATOR = torch.cuda.OutOfMemoryError  # torch.OutOfMemoryError is the same class since 2.5
# torch before 2.8 has no such class.
ACCELERATOR = getattr(torch, "AcceleratorError", RuntimeError)
FULL = [
    ALLOCATOR("Allocation on device"),
    ACCELERATOR("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."),
    RuntimeError("Could not allocate tensor with 8 bytes. There is not enough GPU video memory"),
    RuntimeError("Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)"),
    RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
]
NOT_FULL = [
    RuntimeError("expected all tensors to be on the same device"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 98304 bytes."),
    ACCELERATOR("CUDA error: an illegal memory access was encountered"),
    MemoryError("out of memory"),  # of Python: nothing that a device says
    ValueError("out of memory"),
]
DEVICE = torch.device("mps")
FREE = (torch.Tensor.dtype.__get__, torch.Tensor.as_subclass)  # take no memory


class OnFullDevice(torch.Tensor):
    """Tokens on a device that has no memory left: they can only be read from it."""

    error: BaseException

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.detach:
            return args[0]
        if func == torch.Tensor.device.__get__:
            return DEVICE
        to_system_memory = func == torch.Tensor.to and args[1] == torch.device("cpu")
        if not to_system_memory and func not in FREE:
            raise cls.error
        result = super().__torch_function__(func, types, args, kwargs)
        return result.as_subclass(torch.Tensor) if to_system_memory else result


def on_full_device(tokens, error):
    """The tokens on a device that raises an error for whatever would take memory there."""
    kind = type("OnFullDevice", (OnFullDevice,), {"error": error})
    return tokens.as_subclass(kind)


SYSTEM = torch.device("cpu")
STORAGES = [(None, AS_COMPUTED), (None, INT8), (SYSTEM, INT8)]  # those that take device memory


@pytest.mark.parametrize(("place", "precision"), STORAGES)
@pytest.mark.parametrize("error", FULL, ids=str)
def test_out_of_memory_goes_on_in_system_memory_and_says_so(caplog, error, place, precision):
    """This includes rounding, which needs memory itself, wherever its result is kept."""
    bank, usual = Bank(Storage(place, precision)), Bank(Storage(None, precision))
    with caplog.at_level(logging.WARNING):
        for frame in range(3):
            tokens = torch.randn(16, 8, generator=torch.Generator().manual_seed(frame))
            usual.store(KEY, frame, (tokens, tokens + 1))
            bank.store(KEY, frame, tuple(on_full_device(t, error) for t in (tokens, tokens + 1)))
    assert caplog.text.count("no memory left on mps") == 1
    assert caplog.text.count("kept in system memory") == 1
    for frame in range(3):
        for kept, expected in zip(bank.stored(KEY, frame), usual.stored(KEY, frame)):
            assert torch.equal(kept.computed_on(kept.values.device).restored(), expected.restored())
            assert kept.device == DEVICE
    assert bank.nbytes == usual.nbytes


@pytest.mark.parametrize("error", NOT_FULL, ids=str)
def test_other_errors_pass_through(error, caplog):
    bank = Bank()
    with pytest.raises(type(error)) as caught:
        bank.store(KEY, 0, (on_full_device(torch.zeros(16, 8), error),))
    assert caught.value is error
    assert bank.storage == Storage()
    assert not caplog.messages


@pytest.mark.parametrize(("place", "precision"), [*STORAGES, (SYSTEM, AS_COMPUTED)])
@pytest.mark.parametrize("error", FULL, ids=str)
def test_out_of_system_memory_is_an_error(error, place, precision):
    class Full(Storage):
        def keep(self, tokens):
            raise error

    with pytest.raises(type(error)) as caught:
        Bank(Full(place, precision)).store(KEY, 0, (torch.zeros(16, 8),))
    assert caught.value is error


def test_a_state_is_taken_over_where_the_device_has_no_room_for_it(caplog):
    class FullDevice(Stored):
        def moved(self, target):
            if target != torch.device("cpu"):
                raise RuntimeError("MPS backend out of memory")
            return self

    kept = FullDevice(torch.ones(16, 8), None, torch.device("cpu"), torch.float32)
    bank = Bank()
    bank.adopt(KEY, {0: (kept,), 1: (kept,)}, DEVICE)
    assert bank.frames(KEY) == {0, 1}
    assert {stored.values.device for stored in bank.stored(KEY, 0)} == {torch.device("cpu")}
    assert caplog.text.count("kept in system memory") == 1
