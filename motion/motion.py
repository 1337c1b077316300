"""The motion in a clip: between any two frames that somebody asks for, on any grid."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .estimators import BuiltIn, Estimator
from .pair import PairMotion, on_grid
from .trust import trusted
from .variational import after, places, shrunk

MOST_BYTES = 512 * 2**20  # of estimated flows that are kept; 3,200 pairs of 128 x 128 pixels
FARTHEST_CHAIN = 48  # frames; beyond, going from frame to frame leads nowhere
SHORTEST_SIDE = 16  # pixels; no side is shrunk below this


@runtime_checkable
class Motion(Protocol):
    """Where things of one frame lie in another one. Whoever needs motion relies on this alone.

    It is a value: the same question always gets the same answer, in whatever order questions come.
    """

    @property
    def frames(self) -> int:
        """The number of frames of the clip."""

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the frames, in pixels."""

    @property
    def fingerprint(self) -> str:
        """Two motions with the same fingerprint give the same answers."""

    def between(self, frame: int, other: int, grid: tuple[int, int] | None = None) -> PairMotion:
        """Return where each cell of a grid on one frame lies in another frame.

        grid: rows and columns, for example of a latent or of tokens; by default the pixels of the
        frames. Raises IndexError for a frame that the clip does not have.
        """


def check_frames(motion: Motion, *asked: int) -> None:
    """Raise IndexError for a frame that a clip does not have."""
    for frame in asked:
        if not 0 <= frame < motion.frames:
            raise IndexError(f"frame {frame} of a clip of {motion.frames} frames")


@dataclass(frozen=True, eq=False)
class EstimatedMotion:
    """Motion that is estimated from the frames when somebody asks for it.

    Neighbouring frames are compared first. Frames that lie further apart are compared with the help
    of the way from frame to frame. What has been found is kept as long as there is room.

    pictures: the frames, as `shrunk_to` gives them, (frames, 3, h, w), uint8. size: the height and
    width of the frames that they were made from. most_bytes: of flows that are kept. device: where
    flows are estimated; answers lie in system memory. before_each: called before each pair of
    frames is estimated; what it raises ends the search.
    """

    pictures: Tensor
    size: tuple[int, int]
    estimator: Estimator = field(default_factory=BuiltIn)
    most_bytes: int = MOST_BYTES
    device: torch.device | str = "cpu"
    before_each: Callable[[], None] = lambda: None
    _steps: Recent = field(init=False, repr=False)
    _pairs: Recent = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("_steps", "_pairs"):
            object.__setattr__(self, name, Recent(self.most_bytes // 2))

    @property
    def frames(self) -> int:
        """See `Motion`."""
        return len(self.pictures)

    @property
    def kept_bytes(self) -> int:
        """How much memory the flows take that are kept."""
        return self._steps.bytes + self._pairs.bytes

    @cached_property
    def fingerprint(self) -> str:
        """See `Motion`."""
        told = f"{self.estimator.name} {tuple(self.pictures.shape)} {self.size}"
        found = hashlib.sha256(told.encode())
        for picture in self.pictures:
            found.update(picture.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def between(self, frame: int, other: int, grid: tuple[int, int] | None = None) -> PairMotion:
        """See `Motion`."""
        check_frames(self, frame, other)
        grid = grid or self.size
        if frame == other:
            still = places(torch.empty(grid)).permute(1, 2, 0)
            return PairMotion(still, torch.ones(grid))
        flows, trust = self._both_ways(min(frame, other), max(frame, other))
        way = 0 if frame < other else 1
        return on_grid(flows[way].float(), trust[way], grid)

    def _both_ways(self, earlier: int, later: int) -> tuple[Tensor, Tensor]:
        """Return the flows between two frames, (2, 2, h, w), and where to trust them, (2, h, w).

        Flows are kept in half precision: in pixels of small pictures it is exact enough.
        """
        kept = self._steps if later == earlier + 1 else self._pairs
        flows, trust = kept.get((earlier, later), lambda: self._estimated(earlier, later))
        return flows, trust

    def _estimated(self, earlier: int, later: int) -> tuple[Tensor, Tensor]:
        near = 1 < later - earlier <= FARTHEST_CHAIN
        chained = self._chained(earlier, later) if near else None
        self.before_each()
        pictures = self.pictures[[earlier, later]].to(self.device).float() / 255
        flows = self.estimator(pictures, chained)
        return flows.half().cpu(), trusted(pictures, flows).cpu()

    def _chained(self, earlier: int, later: int) -> Tensor:
        """Return the flows of going from frame to frame, (2, 2, h, w)."""
        first = self._both_ways(earlier, earlier + 1)[0].to(self.device).float()
        there, back = first[:1], first[1:]
        for frame in range(earlier + 1, later):
            step = self._both_ways(frame, frame + 1)[0].to(self.device).float()
            there, back = after(there, step[:1]), after(step[1:], back)
        return torch.cat((there, back))


class Recent:
    """Keeps what was asked for last, up to a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what is kept for a key, or else make it and keep it."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = make()
        self._kept[key] = made
        self.bytes += _bytes(made)
        while self.bytes > self.most_bytes and len(self._kept) > 1:
            self.bytes -= _bytes(self._kept.popitem(last=False)[1])
        return made


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def shrunk_to(longest_side: int, frames: Tensor) -> Tensor:
    """Return frames as an EstimatedMotion keeps them: (frames, 3, h, w), uint8.

    frames: (frames, 3, height, width), RGB in 0..1. Their longer side gets at most `longest_side`
    pixels, but the shorter one no fewer than SHORTEST_SIDE.
    """
    height, width = frames.shape[-2:]
    factor = max(longest_side / max(height, width), SHORTEST_SIDE / min(height, width))
    if factor < 1:
        frames = shrunk(frames, (round(height * factor), round(width * factor)))
    return (frames.clamp(0, 1) * 255).round().byte()
