"""Which point of a later frame shows what a pixel of an earlier frame shows.

Coordinates are (x, y) in pixels; the centre of the top left pixel is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Correspondence:
    """Pairs of frames, and where the pixels of the earlier frame lie in the later frame.

    earlier, later: frame numbers, (pairs,). points: coordinates in the later frame, in pixels,
    (pairs, height, width, 2). valid: whether the point shows the same thing,
    (pairs, height, width), bool; false where it is hidden, out of the picture or not to be
    compared.
    """

    earlier: Tensor
    later: Tensor
    points: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.earlier)

    def then(self, following: Correspondence) -> Correspondence:
        """Follow every pixel of these pairs through the pairs that begin where these end.

        following: pairs with exactly one pair that begins at each later frame to be followed. A
        pair here that has no such continuation is left out.
        A followed point is valid if it is valid in both, at all four pixels around it.
        """
        starts = {int(frame): number for number, frame in enumerate(following.earlier)}
        mine = [n for n, frame in enumerate(self.later.tolist()) if frame in starts]
        theirs = [starts[frame] for frame in self.later[mine].tolist()]
        points = self.points[mine]
        flow = following.points[theirs] - pixel_grid(following.points)  # (pairs, h, w, 2)
        onward = sample(flow.permute(0, 3, 1, 2), points).permute(0, 2, 3, 1)
        seen = sample(following.valid[theirs][:, None].to(points.dtype), points)[:, 0]
        return Correspondence(
            self.earlier[mine],
            following.later[theirs],
            points + onward,
            self.valid[mine] & (seen > 0.999) & inside(points + onward),
        )

    def and_also(self, others: Correspondence) -> Correspondence:
        """Return these pairs together with others."""
        return Correspondence(
            torch.cat((self.earlier, others.earlier)),
            torch.cat((self.later, others.later)),
            torch.cat((self.points, others.points)),
            torch.cat((self.valid, others.valid)),
        )

    def last(self, count: int) -> Correspondence:
        """Return the last pairs, at most `count` of them."""
        start = max(len(self) - count, 0)
        return Correspondence(
            self.earlier[start:], self.later[start:], self.points[start:], self.valid[start:]
        )

    def where(self, chosen: Tensor) -> Correspondence:
        """Return the chosen pairs. chosen: (pairs,), bool."""
        return Correspondence(
            self.earlier[chosen], self.later[chosen], self.points[chosen], self.valid[chosen]
        )


def pixel_grid(like: Tensor) -> Tensor:
    """Return the centres of all pixels, (height, width, 2).

    like: points of shape (..., height, width, 2).
    """
    height, width = like.shape[-3:-1]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device) + 0.5,
        torch.arange(width, dtype=like.dtype, device=like.device) + 0.5,
        indexing="ij",
    )
    return torch.stack((x, y), dim=-1)


def inside(points: Tensor) -> Tensor:
    """Return whether points lie on the picture, at least half a pixel away from its rim.

    points: (..., height, width, 2). Returns (..., height, width), bool.
    """
    height, width = points.shape[-3:-1]
    x, y = points.unbind(-1)
    return (x >= 0.5) & (x <= width - 0.5) & (y >= 0.5) & (y <= height - 0.5)


def sample(pictures: Tensor, points: Tensor) -> Tensor:
    """Read pictures at points, bilinearly; points beyond the rim get the value at the rim.

    pictures: (pairs, channels, height, width). points: (pairs, h, w, 2).
    Returns (pairs, channels, h, w).
    """
    height, width = pictures.shape[-2:]
    size = torch.tensor([width, height], dtype=points.dtype, device=points.device)
    return torch.nn.functional.grid_sample(
        pictures, 2 * points / size - 1, padding_mode="border", align_corners=False
    )
