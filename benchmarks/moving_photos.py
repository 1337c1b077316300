"""Clips of photos that move over each other, whose exact motion is known.

The photos come with scikit-image. A background pans, turns and grows slowly; two blossoms cut out
of other photos move over it. Every frame has its own exposure and noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from ..motion import PairMotion, inside, pixel_grid

SIDE = 512  # pixels
FINER = 2  # samples per pixel along each axis
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
EXPOSURE = 0.02  # the standard deviation of the factor of brightness
NOISE = 0.01  # the standard deviation of the noise, RGB


@dataclass(frozen=True)
class Layer:
    """A photo on its way: where it lies in each frame.

    centres: in pixels, (frames, 2). angles: in radians, scales: (frames,). radii: of the blossom
    along its axes, in pixels, or None for a background. petals: their number.
    """

    photo: Tensor
    centres: Tensor
    angles: Tensor
    scales: Tensor
    radii: Tensor | None
    petals: int

    def own(self, points: Tensor, frame: int) -> Tensor:
        """Return points of a frame as points of the photo, counted from its middle."""
        x, y = ((points - self.centres[frame]) / self.scales[frame]).unbind(-1)
        cos, sin = self.angles[frame].cos(), self.angles[frame].sin()
        return torch.stack((x * cos + y * sin, y * cos - x * sin), dim=-1)

    def placed(self, own: Tensor, frame: int) -> Tensor:
        """Return points of the photo as points of a frame."""
        x, y = own.unbind(-1)
        cos, sin = self.angles[frame].cos(), self.angles[frame].sin()
        turned = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)
        return turned * self.scales[frame] + self.centres[frame]

    def covers(self, points: Tensor, frame: int) -> Tensor:
        """Return whether the photo lies at points of a frame."""
        if self.radii is None:
            return torch.ones_like(points[..., 0], dtype=torch.bool)
        own = self.own(points, frame) / self.radii
        direction = torch.atan2(own[..., 1], own[..., 0])
        return own.norm(dim=-1) < 1 + 0.15 * torch.cos(self.petals * direction)

    def colours(self, points: Tensor, frame: int) -> Tensor:
        """Return the photo's colours at points of a frame, (3, h, w)."""
        size = points.new_tensor([self.photo.shape[-1], self.photo.shape[-2]])
        places = 2 * self.own(points, frame) / size
        return grid_sample(
            self.photo, places[None], padding_mode="reflection", align_corners=False
        )[0]


class MovingPhotos:
    """A clip of three layers."""

    def __init__(self, seed: int, frames: int = 8) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(PHOTOS), generator=self._generator)[:3].tolist()
        names = [PHOTOS[number] for number in order]
        time = torch.arange(frames, dtype=torch.float32)
        self.layers = [self._background(names[0], time)]
        self.layers += [self._blossom(name, time, 4 + k) for k, name in enumerate(names[1:])]
        self.exposures = 1 + EXPOSURE * torch.randn(frames, generator=self._generator)

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def _background(self, name: str, time: Tensor) -> Layer:
        centres = SIDE / 2 + time[:, None] * self._uniform(-4, 4, 2)
        angles = time * self._uniform(-0.006, 0.006)
        scales = 1 + time * self._uniform(-0.008, 0.008)
        return Layer(photo(name), centres, angles, scales, None, 0)

    def _blossom(self, name: str, time: Tensor, petals: int) -> Layer:
        centres = self._uniform(0.25 * SIDE, 0.75 * SIDE, 2) + time[:, None] * self._uniform(
            -16, 16, 2
        )
        sway = torch.sin(time[:, None] * self._uniform(0.2, 0.7, 2))
        centres = centres + self._uniform(2, 8, 2) * sway
        angles = time * self._uniform(-0.05, 0.05)
        scales = 1 + time * self._uniform(-0.02, 0.02)
        radii = self._uniform(0.12 * SIDE, 0.22 * SIDE, 2)
        return Layer(photo(name), centres, angles, scales, radii, petals)

    def frame(self, number: int) -> Tensor:
        """Paint a frame, (3, SIDE, SIDE), RGB in 0..1."""
        points = pixel_grid(torch.empty(FINER * SIDE, FINER * SIDE, 2)) / FINER
        picture = torch.zeros(3, FINER * SIDE, FINER * SIDE)
        for layer in self.layers:
            colours = layer.colours(points, number)
            picture = torch.where(layer.covers(points, number), colours, picture)
        picture = avg_pool2d(picture[None], FINER)[0] * self.exposures[number]
        noise = torch.randn(picture.shape, generator=self._generator)
        return (picture + NOISE * noise).clamp(0, 1)

    def between(self, frame: int, other: int) -> PairMotion:
        """Return the exact motion of all pixels, with trust where they are visible."""
        points = pixel_grid(torch.empty(SIDE, SIDE, 2))
        shown, moved = self._top(points, frame), points
        for number, layer in enumerate(self.layers):
            there = layer.placed(layer.own(points, frame), other)
            moved = torch.where((shown == number)[..., None], there, moved)
        visible = (self._top(moved, other) == shown) & inside(moved)
        return PairMotion(moved, visible.float())

    def _top(self, points: Tensor, frame: int) -> Tensor:
        """Return the number of the layer that lies on top, (h, w)."""
        top = torch.zeros(points.shape[:-1], dtype=torch.long)
        for number, layer in enumerate(self.layers):
            top = torch.where(layer.covers(points, frame), number, top)
        return top


def photo(name: str) -> Tensor:
    """Return one of scikit-image's photos, (1, 3, h, w), large enough for a frame."""
    from skimage import data

    pixels = torch.from_numpy(getattr(data, name)().copy())[..., :3].permute(2, 0, 1)[None] / 255
    factor = math.ceil(1.4 * SIDE) / min(pixels.shape[-2:])
    return interpolate(
        pixels, scale_factor=factor, mode="bilinear", antialias=True, align_corners=False
    )
