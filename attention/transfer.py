"""Hidden states on their way between a graphics card and system memory, with nobody waiting.

The processor runs far ahead of the card, and a card can copy while it computes. Both are lost if
a copy goes through ordinary memory, for which the processor has to stand still; so hidden states
go to page-locked memory, and come back on a stream of their own.
"""

import torch
from torch import Tensor


class Lane:
    """The way from a CUDA device to system memory and back, for one run.

    A copy waits on the card for what it needs, and what needs it waits there for the copy; the
    processor waits for neither. Copies back run beside what the card computes meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._back = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def out(self, tensor: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Begin to copy a tensor out. Returns the copy, and what tells that it is complete."""
        try:
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError:  # no more may be locked: ordinary memory, for which copies wait
            host = torch.empty(tensor.shape, dtype=tensor.dtype)
        host.copy_(tensor, non_blocking=True)
        return host, torch.cuda.current_stream(self.device).record_event()

    def back(self, host: Tensor, complete: torch.cuda.Event) -> tuple[Tensor, torch.cuda.Event]:
        """Begin to copy back what `out` has returned. Returns what `take` wants."""
        with torch.cuda.stream(self._back):
            self._back.wait_event(complete)
            tensor = host.to(self.device, non_blocking=True)
            return tensor, self._back.record_event()

    def take(self, tensor: Tensor, there: torch.cuda.Event) -> Tensor:
        """What `back` has brought, for the stream that computes now."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(there)
        # Its memory belongs to the other stream, which must not give it away too early.
        tensor.record_stream(current)
        return tensor


def lane_between(source: torch.device, target: torch.device) -> Lane | None:
    """A lane for tensors that are computed on one device and kept on another, if there is one."""
    return Lane(source) if source.type == "cuda" and target.type == "cpu" else None
