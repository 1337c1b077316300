"""Fusion: the same place keeps its colour because predictions are mixed along the motion.

At every step the predicted clean latent of a frame (x0) is mixed with those of frames that were
painted before it, each brought along the motion to where this frame shows the same things. It is
the idea of Rerender A Video (Yang et al. 2023, sections 4.1.2 and 4.1.3, shape-aware and
pixel-aware fusion) and FRESCO (Yang et al. 2024), done on latents, and only where the motion can
be trusted.

If several frames show the same thing, the earliest of them decides. A mean of several looks would
be paler than each of them, and looks would differ less from seed to seed. Both were measured.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..motion import Motion, PairMotion


def fuse_frame(x0: Tensor, others: Sequence[tuple[Tensor, PairMotion]], strength: float) -> Tensor:
    """Mix the prediction of one frame with those of others.

    x0: (..., h, w). others: predictions of other frames at the same step, in the same shape, each
    with the motion from this frame to that one on the grid (h, w). strength: the share of the
    others where the motion is fully trusted, from 0 to 1. The first of the others counts by its
    trust, each further one by its trust in what is left. Where none is trusted, x0 stays as it is.
    Raises ValueError for a motion on another grid.
    """
    if not others or strength == 0:
        return x0
    total, left = torch.zeros_like(x0), x0.new_ones(x0.shape[-2:])
    for prediction, motion in others:
        if motion.grid != tuple(x0.shape[-2:]):
            raise ValueError(f"a motion on {motion.grid} cells for a latent of {x0.shape[-2:]}")
        here = motion.to(x0.device)
        share = left * here.trust.to(x0)
        total = total + share * here.carry(prediction)
        left = left - share
    return x0 + strength * (total - (1 - left) * x0)


def fuse_clip(
    x0: Tensor,
    order: Iterable[int],
    fused_to: Callable[[int], Sequence[int]],
    motion: Motion,
    strength: float,
) -> Tensor:
    """Mix the predictions of all frames of a clip, in the order in which they are painted.

    x0: (frames, ..., h, w). order: all frames. fused_to: with which others a frame is mixed, for
    example the keyframes, or the first and the previous one. The first of them that shows a thing
    decides. Those that come later in the order, and the frame itself, do not count. A frame is
    mixed with what the others have become, so painting frame after frame gives the same. Returns
    the shape of x0.
    """
    grid = (x0.shape[-2], x0.shape[-1])
    done: dict[int, Tensor] = {}
    for frame in order:
        earlier = [other for other in fused_to(frame) if other in done]
        others = [(done[other], motion.between(frame, other, grid)) for other in earlier]
        done[frame] = fuse_frame(x0[frame], others, strength)
    return torch.stack([done[frame] for frame in range(len(x0))])
