"""Find out from the noise which frames of a clip a latent holds.

Stock sampler nodes pass on noise and seed, but not the `batch_index` that says which frames of a
longer clip a latent holds (LatentFromBatch). The stock nodes draw the noise of each frame by the
frame's number, so the number can be found from the noise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .clip_noise import later_rows

# How many random numbers may be drawn to find the frames, which takes one core two seconds.
MOST_NUMBERS = 200_000_000
# How many frames may be drawn. Of tiny latents each draw takes more time than its numbers do.
MOST_DRAWS = 50_000


def numbers_of(noise: Tensor, seed: int, first: int) -> Sequence[int]:
    """Return the numbers in the clip of the frames that have this noise.

    noise: (frames, channels, height, width); no frame is all zeros. seed: the seed that it may have
    been drawn from. first: the number of the first frame, used if the noise was not drawn by
    ComfyUI's nodes and therefore does not show the numbers.
    """
    noise = noise.cpu()
    usual = range(first, first + len(noise))
    if _is_whole_clip(noise, seed, first):
        return usual
    return _told(noise, seed) or usual


def _is_whole_clip(noise: Tensor, seed: int, first: int) -> bool:
    """Return whether this is the noise of consecutive frames from `first` on, drawn at once."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> Tensor:
        return torch.randn((rows, *noise.shape[1:]), generator=generator)

    return torch.equal(later_rows(draw, len(noise), first).to(noise.dtype), noise)


def _told(noise: Tensor, seed: int) -> list[int] | None:
    """Return the draw number of each row of noise, or None if a row is not found."""
    places: dict[float, list[int]] = {}
    for place, row in enumerate(noise):
        places.setdefault(float(row.flatten()[0]), []).append(place)
    numbers: dict[int, int] = {}
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *noise.shape[1:])
    most = min(MOST_NUMBERS // noise[0].numel(), MOST_DRAWS)
    for number in range(max(most, len(noise))):
        draw = torch.randn(shape, dtype=torch.float32, generator=generator)[0].to(noise.dtype)
        for place in places.get(float(draw.flatten()[0]), []):
            if torch.equal(noise[place], draw):
                numbers[place] = number
        if len(numbers) == len(noise):
            return [numbers[place] for place in range(len(noise))]
    return None
