"""Fusion: the same place keeps its colour because predictions are mixed along the motion.

At every step the predicted clean latent of a frame (x0) is mixed with those of frames that were
painted before it, each brought along the motion to where this frame shows the same things. It is
the idea of Rerender A Video (Yang et al., 2023, section 4.2, shape-aware and pixel-aware fusion)
and FRESCO (Yang et al., 2024), done on latents, and only where the motion can be trusted.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..motion import Motion, PairMotion

STRENGTH = 0.5  # half and half, which has been measured to be the steadiest


def fuse_frame(
    x0: Tensor, others: Sequence[tuple[Tensor, PairMotion]], strength: float = STRENGTH
) -> Tensor:
    """Mix the prediction of one frame with those of others.

    x0: (..., h, w). others: predictions of other frames at the same step, in the same shape, each
    with the motion from this frame to that one on the grid (h, w). strength: the share of the
    others where the motion is fully trusted, from 0 to 1. Where several are trusted they count by
    their trust; where none is, x0 stays as it is. Raises ValueError for a motion on another grid.
    """
    if not others or strength == 0:
        return x0
    total, most = torch.zeros_like(x0), x0.new_zeros(x0.shape[-2:])
    weights = torch.zeros_like(most)
    for prediction, motion in others:
        if motion.grid != tuple(x0.shape[-2:]):
            raise ValueError(f"a motion on {motion.grid} cells for a latent of {x0.shape[-2:]}")
        here = motion.to(x0.device)
        trust = here.trust.to(x0)
        total = total + trust * here.carry(prediction)
        weights = weights + trust
        most = torch.maximum(most, trust)
    mean = total / weights.clamp(min=1e-6)
    return torch.where(most > 0, x0 + strength * most * (mean - x0), x0)


def fuse_clip(
    x0: Tensor,
    order: Iterable[int],
    fused_to: Callable[[int], Sequence[int]],
    motion: Motion,
    strength: float = STRENGTH,
) -> Tensor:
    """Mix the predictions of all frames of a clip, in the order in which they are painted.

    x0: (frames, ..., h, w). order: all frames. fused_to: with which others a frame is mixed, for
    example the keyframes, or the first and the previous one. Those that come later in the order,
    and the frame itself, do not count. A frame is mixed with what the others have become, so
    painting frame after frame gives the same. Returns the shape of x0.
    """
    grid = (x0.shape[-2], x0.shape[-1])
    done: dict[int, Tensor] = {}
    for frame in order:
        earlier = [other for other in fused_to(frame) if other in done]
        others = [(done[other], motion.between(frame, other, grid)) for other in earlier]
        done[frame] = fuse_frame(x0[frame], others, strength)
    return torch.stack([done[frame] for frame in range(len(x0))])
