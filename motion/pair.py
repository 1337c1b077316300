"""The motion between two frames on any grid: where each cell lies in the other frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .correspondence import pixel_grid, sample

AGREE = 0.5  # cells of the grid; pixels of a cell that move otherwise by more do not count


@dataclass(frozen=True)
class PairMotion:
    """Where each cell of a grid on one frame lies in the other frame.

    positions: coordinates (x, y) in the other frame, in cells of the same grid, (h, w, 2); the
    centre of the top left cell is (0.5, 0.5). trust: from 0, not to be used, to 1, (h, w). Both
    are single precision.
    """

    positions: Tensor
    trust: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """The number of rows and columns."""
        height, width = self.trust.shape
        return height, width

    def to(self, device: torch.device | str) -> PairMotion:
        """Return the same motion on a device."""
        return PairMotion(self.positions.to(device), self.trust.to(device))

    def carry(self, values: Tensor) -> Tensor:
        """Bring values of the other frame to the places where this frame shows the same things.

        values: (..., h, w), on this grid. Returns the same shape; places beyond the rim get the
        value at the rim, and trust says nothing here.
        """
        flat = values.reshape(1, -1, *values.shape[-2:]).float()
        moved = sample(flat, self.positions[None])  # half precision is too coarse for positions
        return moved.reshape(values.shape).to(values.dtype)


def on_grid(flow: Tensor, trusted: Tensor, grid: tuple[int, int]) -> PairMotion:
    """Bring a flow to a grid.

    flow: how far each pixel moves, in pixels, (2, h, w), x before y. trusted: (h, w), bool. grid:
    rows and columns. A cell moves as the trusted pixels in it do that agree with the one at its
    centre. Its trust is their share of the cell.
    """
    rows, columns = grid
    height, width = trusted.shape
    unit = flow.new_tensor([columns / width, rows / height])[:, None, None]
    cells = flow * unit  # in cells of the grid
    if rows >= height and columns >= width:
        finer = torch.nn.functional.interpolate(
            cells[None], grid, mode="bilinear", align_corners=False
        )[0]
        trust = torch.nn.functional.interpolate(trusted[None, None].to(flow), grid)[0, 0]
        return PairMotion(_positions(finer), trust)
    down = _nearest(rows, height, flow.device)
    right = _nearest(columns, width, flow.device)
    centre = cells[:, down][:, :, right]  # (2, rows, columns)
    around = torch.nn.functional.interpolate(centre[None], (height, width))[0]
    agrees = (trusted & ((cells - around).norm(dim=0) < AGREE)).to(flow)
    pool = torch.nn.functional.adaptive_avg_pool2d
    share = pool(agrees[None], grid)[0]  # (rows, columns)
    mean = pool(cells * agrees, grid) / share.clamp(min=1e-6)
    return PairMotion(_positions(torch.where(share > 0, mean, centre)), share)


def _nearest(cells: int, pixels: int, device: torch.device) -> Tensor:
    """Return the pixel at the centre of each cell along one axis, (cells,)."""
    middle = (torch.arange(cells, device=device) + 0.5) * pixels / cells
    return middle.long().clamp(max=pixels - 1)


def _positions(flow: Tensor) -> Tensor:
    """Return where the cells of a flow in cells, (2, rows, columns), lie: (rows, columns, 2)."""
    moved = flow.permute(1, 2, 0)
    return pixel_grid(moved) + moved
