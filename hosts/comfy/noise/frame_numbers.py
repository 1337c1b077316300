"""Which frames of a clip a latent holds, told by its noise.

Stock sampler nodes hand on noise and seed, but not the `batch_index` that says which frames of a
longer clip a latent holds (LatentFromBatch). The stock nodes draw a frame's noise as its number
says, so that the noise itself tells the numbers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .clip_noise import later_rows

# Random numbers that may be drawn to find the frames: two seconds of one core.
MOST_NUMBERS = 200_000_000


def numbers_of(noise: Tensor, seed: int, first: int) -> Sequence[int]:
    """The frames whose noise this is, by their numbers in the clip.

    noise: (frames, channels, height, width), none of which is all zeros. seed: that it may have
    been drawn from. first: number of the first frame where the noise does not tell, as it was
    drawn by something else than ComfyUI's nodes.
    """
    noise = noise.cpu()
    usual = range(first, first + len(noise))
    if _is_whole_clip(noise, seed, first):
        return usual
    return _told(noise, seed) or usual


def _is_whole_clip(noise: Tensor, seed: int, first: int) -> bool:
    """Whether noise is that of all frames from `first` on, which were drawn at once."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> Tensor:
        return torch.randn((rows, *noise.shape[1:]), generator=generator)

    return torch.equal(later_rows(draw, len(noise), first).to(noise.dtype), noise)


def _told(noise: Tensor, seed: int) -> list[int] | None:
    """The number of the draw that each row of noise is, or None if one of them is not found."""
    places: dict[float, list[int]] = {}
    for place, row in enumerate(noise):
        places.setdefault(float(row.flatten()[0]), []).append(place)
    numbers: dict[int, int] = {}
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *noise.shape[1:])
    for number in range(max(MOST_NUMBERS // noise[0].numel(), len(noise))):
        draw = torch.randn(shape, dtype=torch.float32, generator=generator)[0].to(noise.dtype)
        for place in places.get(float(draw.flatten()[0]), []):
            if torch.equal(noise[place], draw):
                numbers[place] = number
        if len(numbers) == len(noise):
            return [numbers[place] for place in range(len(noise))]
    return None
