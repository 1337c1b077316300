"""The bank keeps copies, counts bytes, and never confuses addresses."""

import logging

import pytest
import torch
from crossframe.attention import Bank, Key, Layer, Storage
from crossframe.attention.storage import INT8

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


class FullDevice(Storage):
    """A device without memory left."""

    def keep(self, tokens):
        if self.device != torch.device("cpu"):
            raise torch.cuda.OutOfMemoryError("out of memory")
        return super().keep(tokens)


def test_out_of_memory_goes_on_in_system_memory_and_says_so(caplog):
    bank = Bank(FullDevice())
    with caplog.at_level(logging.WARNING):
        for frame in range(3):
            bank.store(KEY, frame, (torch.full((16, 8), float(frame)),))
    assert [float(bank.load(KEY, frame)[0].mean()) for frame in range(3)] == [0, 1, 2]
    assert caplog.text.count("system memory") == 1


def test_out_of_system_memory_is_an_error():
    class Full(Storage):
        def keep(self, tokens):
            raise torch.cuda.OutOfMemoryError("out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        Bank(Full()).store(KEY, 0, (torch.zeros(16, 8),))
