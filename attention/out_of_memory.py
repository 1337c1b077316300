"""Recognise the errors that mean that a device has no memory left.

Every kind of device has its own.
"""

import torch

CUDA_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation, the code that a torch.AcceleratorError carries
# Texts of a plain RuntimeError, in this order: CUDA, ROCm, MPS and XPU; Intel's drivers (three
# texts); DirectML. System memory that has run out gives other texts, which are left out on purpose:
# there is no other place to store anything then.
TEXTS = (
    "out of memory",
    "out of device memory",
    "out_of_device_memory",
    "out_of_resources",
    "not enough gpu video memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device that computes has no memory left.

    Newer versions of torch raise torch.OutOfMemoryError on most devices. Other devices, older
    versions and calls that do not go through torch's allocator raise a RuntimeError that says so
    only in its text. torch.AcceleratorError is a kind of RuntimeError.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):  # torch.OutOfMemoryError since torch 2.5
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    code = getattr(error, "error_code", None)
    return code == CUDA_OUT_OF_MEMORY or any(words in text for words in TEXTS)
