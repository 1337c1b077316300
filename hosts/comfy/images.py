"""ComfyUI's IMAGE batches, (frames, height, width, channels), as other code takes them."""

from torch import Tensor


def planes(images: Tensor) -> Tensor:
    """Return RGB without alpha, (frames, 3, height, width), in single precision, on the CPU.

    Grey pictures get three equal channels.
    """
    grey = images.shape[-1] < 3
    colours = images[..., :1].expand(-1, -1, -1, 3) if grey else images[..., :3]
    return colours.movedim(-1, 1).float().cpu()
