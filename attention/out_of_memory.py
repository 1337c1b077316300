"""Which errors mean that a device has no memory left; every kind of device has its own."""

import torch

CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, the code that a torch.AcceleratorError carries
# What a RuntimeError says that is no class of its own: CUDA, ROCm, MPS and XPU; Intel's drivers;
# DirectML. System memory that has run out reads otherwise, and there is no other place to go to.
TEXTS = (
    "out of memory",
    "out of device memory",
    "out_of_device_memory",
    "out_of_resources",
    "not enough gpu video memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device which computes has no memory left.

    Newer versions of torch raise torch.OutOfMemoryError on most devices. Other devices, older
    versions and calls that do not go through torch's allocator raise a RuntimeError (of which
    torch.AcceleratorError is a kind) that says so in its text alone.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):  # torch.OutOfMemoryError since torch 2.5
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    code = getattr(error, "error_code", None)
    return code == CUDA_OUT_OF_MEMORY or any(words in text for words in TEXTS)
