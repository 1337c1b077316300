"""Measure what one sampling takes beside its time: FLOP, U-Net rows, memory, kinds of kernels.

Each is measured in a separate run, because measuring slows a run down.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from torch.utils.weak import WeakIdKeyDictionary

# Readable kinds of operations, and words in the names of these operations.
KINDS = {
    "attention": ("scaled_dot_product", "flash", "softmax", "baddbmm", "bmm", "fmha"),
    "convolution": ("conv",),
    "projections": ("addmm", "aten::mm", "gemm"),
    "copies": ("copy_", "aten::cat", "aten::stack", "memcpy", "fill_"),
}
REST = "elementwise and the rest"


def count_flop(sample: Callable[[], object]) -> int:
    """Return the FLOP of all matrix products, convolutions and attentions in a call."""
    with FlopCounterMode(display=False, custom_mapping={_cpu_attention(): _attention_flop}) as c:
        sample()
    return c.get_total_flops()


def _cpu_attention():
    """Return the attention operation that torch's own counter does not know."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention_flop(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


@contextmanager
def counted_rows(unet: torch.nn.Module) -> Iterator[list[int]]:
    """Collect the number of rows of every call of a U-Net."""
    rows: list[int] = []
    handle = unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        handle.remove()


def peak_bytes(sample: Callable[[], object]) -> int:
    """Return the most bytes that tensors made in a call take at once on the computing device."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        sample()
        return torch.cuda.max_memory_allocated() - before
    with _LiveTensors() as live:
        sample()
    return live.most


class _LiveTensors(TorchDispatchMode):
    """Adds up the tensors that operations return, but not what a kernel needs internally."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Inputs are not new: they are weights, or tensors that were added when they were made.
        tree_map_only(torch.Tensor, lambda tensor: self._know(tensor, 0), (args, kwargs))
        made = func(*args, **kwargs)
        tree_map_only(torch.Tensor, lambda t: self._know(t, t.untyped_storage().nbytes()), made)
        self.most = max(self.most, self.now)
        return made

    def _know(self, tensor: torch.Tensor, nbytes: int) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known[storage] = True
            self._change(nbytes)
            weakref.finalize(storage, self._change, -nbytes)

    def _change(self, nbytes: int) -> None:
        self.now += nbytes


def seconds_by_kind(sample: Callable[[], object]) -> dict[str, float]:
    """Return the seconds in kernels of each kind, on the GPU if there is one, else on the CPU."""
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        sample()
    seconds: Counter[str] = Counter()
    for event in profiler.key_averages():
        time = event.self_device_time_total if cuda else event.self_cpu_time_total
        seconds[_kind(event.key)] += time / 1e6
    return {kind: seconds[kind] for kind in (*KINDS, REST)}


def _kind(operation: str) -> str:
    name = operation.lower()
    return next((kind for kind, words in KINDS.items() if any(w in name for w in words)), REST)
