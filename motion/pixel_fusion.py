"""Pixel fusion: lay earlier results over a new one where the motion brings them along.

Rerender A Video (Yang et al. 2023, section 4.1.3) makes the picture that its second pass is pulled
to in this way: the previous result over the new one, and the first result over both.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .occlusion import soft_occlusion
from .pair import PairMotion


def laid_over(
    picture: Tensor, others: Sequence[tuple[Tensor, PairMotion]]
) -> tuple[Tensor, Tensor]:
    """Lay pictures of other frames over that of this frame, one after another.

    picture: (height, width, colours). others: pictures of the same shape, each with the motion from
    this frame to that one on its pixels. The last lies on top. Where the motion cannot be trusted,
    what is below shows through (see `soft_occlusion`).
    Returns the picture, and how much each pixel is hidden in all of the others, (height, width).
    """
    hidden = torch.ones(picture.shape[:2], device=picture.device)
    for other, motion in others:
        here = motion.to(picture.device)
        own = soft_occlusion(here.trust)[..., None]
        # (height, width, colours) -> (colours, height, width) and back
        carried = here.carry(other.movedim(-1, 0)).movedim(0, -1)
        picture = own * picture + (1 - own) * carried
        hidden = (hidden - here.trust).clamp(min=0)
    return picture, soft_occlusion(1 - hidden)
