"""The bank keeps copies, counts bytes, and never confuses addresses."""

import pytest
import torch
from crossframe.attention import Bank, Key, Layer

KEY = Key(3, Layer("output", 4, 0), (0, 0), 16)


def test_keeps_a_copy():
    bank, batch = Bank(), torch.zeros(5, 16, 8)
    bank.store(KEY, 0, (batch[2],))
    batch += 1
    (kept,) = bank.load(KEY)[0]
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
    assert not bank.load(other)
    bank.store(other, 0, (torch.ones(16, 8),))
    assert torch.equal(bank.load(KEY)[0][0], torch.zeros(16, 8))


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
