"""Motion dynamics: the frames of a clip as copies of one noisy latent that move.

Text2Video-Zero (Khachatryan et al. 2023, section 3.3.1) denoises one frame part of the way, gives
every further frame a copy of its latent that is moved along a motion field, adds noise up to an
earlier step, and denoises all frames together from there. So the frames share what is settled early
(what there is, and where), and the model paints the rest of each frame anew.

Latents are here as "clean + level * noise". The level of a latent that is mixed in another way, as
in flow matching, is the ratio of the two shares.
"""

import torch
from torch import Tensor

from ..motion import Motion, PairMotion

NEAREST, SMOOTH = "nearest", "smooth"
READINGS = (NEAREST, SMOOTH)  # how a latent is read between its cells
# Positions halfway between two cells all go to the lower one. Otherwise rounding to even numbers
# would take each second cell twice.
TIE = 1e-3  # cells


def moved_copies(latent: Tensor, motion: Motion, reading: str) -> tuple[Tensor, Tensor]:
    """Return a latent once for every frame of a motion, moved as frame 0 moves.

    latent: that of frame 0, (1, channels, ..., h, w). reading: a name in READINGS. NEAREST is what
    was published; it keeps the noise as it is, and moves by whole cells. SMOOTH reads between the
    cells, which weakens the noise. Beyond the rim, the picture is mirrored, as published.
    Returns (frames, channels, ..., h, w), and how much of the noise's variance is left, from 0 to
    1, (frames, h, w).
    """
    grid = (latent.shape[-2], latent.shape[-1])
    read = _READ[reading]
    copies, left = [], []
    for frame in range(motion.frames):
        copy, variance = read(latent[0], motion.between(frame, 0, grid).to(latent.device))
        copies.append(copy)
        left.append(variance)
    return torch.stack(copies), torch.stack(left)


def with_more_noise(
    latent: Tensor, noise: Tensor, level: float, wanted: float, left: Tensor | float = 1.0
) -> Tensor:
    """Add noise to a latent up to an earlier noise level.

    latent: clean + level * noise, (frames, channels, ..., h, w). noise: new noise of the same
    shape. left: how much of the noise's variance is left in it, from 0 to 1, (frames, h, w).
    wanted: the level of the result. Raises ValueError if it is below the latent's own.
    """
    if wanted < level:
        raise ValueError(f"a noise level of {wanted:g} is wanted, but the latent has {level:g}")
    missing = wanted**2 - level**2 * torch.as_tensor(left).to(latent)  # variance
    if missing.ndim:
        # (frames, h, w) -> (frames, 1, ..., h, w)
        ones = [1] * (latent.ndim - 3)
        missing = missing.reshape(len(missing), *ones, *missing.shape[-2:])
    return latent + missing.sqrt() * noise


def _nearest(values: Tensor, motion: PairMotion) -> tuple[Tensor, Tensor]:
    """Read cells nearest to where they lie. values: (channels, ..., h, w)."""
    flat = values.reshape(1, -1, *values.shape[-2:])
    copy = _sampled(flat, motion.positions - TIE, "nearest").reshape(values.shape)
    return copy, torch.ones_like(motion.trust)


def _smooth(values: Tensor, motion: PairMotion) -> tuple[Tensor, Tensor]:
    """Read between cells, bilinearly. values: (channels, ..., h, w)."""
    flat = values.reshape(1, -1, *values.shape[-2:]).float()
    copy = _sampled(flat, motion.positions, "bilinear").reshape(values.shape).to(values.dtype)
    across = (motion.positions - 0.5).frac().abs()  # (h, w, 2), the share of the next cell
    kept = across**2 + (1 - across) ** 2
    return copy, kept.prod(dim=-1)


def _sampled(flat: Tensor, positions: Tensor, mode: str) -> Tensor:
    """Read values, (1, n, h, w), at positions in cells, (h, w, 2); the rim mirrors."""
    height, width = flat.shape[-2:]
    size = positions.new_tensor([width, height])
    return torch.nn.functional.grid_sample(
        flat,
        (2 * positions / size - 1)[None].to(flat),
        mode=mode,
        padding_mode="reflection",
        align_corners=False,
    )


_READ = {NEAREST: _nearest, SMOOTH: _smooth}
