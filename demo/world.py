"""A small world of moving shapes in which positions and motions are known exactly.

A clip shows a few discs, squares and triangles that move, rotate, overlap, enter and leave in front
of a tiled background that may pan. Every point of the plane belongs to one *part*: an instance
(object or background) in one of two tones (its ground or its mark). Parts are defined by
formulas, so class, instance, optical flow and occlusion are exact at any point of any frame.

A *look* gives each class two colours, one per tone, which all objects of the class share. The
source video has one fixed plain look. Coordinates are (x, y) in pixels, and the centre of the top
left pixel is (0.5, 0.5). Time is counted in frames.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..motion import Correspondence, inside

SIZE = 64  # height and width of a frame in pixels
CLASSES = ("background", "disc", "square", "triangle")
BACKGROUND, DISC, SQUARE, TRIANGLE = range(len(CLASSES))
TILE = 16  # side of a background tile in pixels
REACH = 1.21  # the largest distance of a corner from the centre, in units of the radius
SUBSAMPLES = 3  # subsamples per pixel along each axis when a frame is rendered

# The plain look (class, tone, RGB) has muted colours, so that it only shows what is where.
PLAIN = torch.tensor(
    [
        [[0.80, 0.80, 0.80], [0.66, 0.66, 0.66]],
        [[0.30, 0.42, 0.55], [0.45, 0.60, 0.75]],
        [[0.32, 0.50, 0.34], [0.50, 0.70, 0.50]],
        [[0.58, 0.38, 0.30], [0.78, 0.58, 0.45]],
    ]
)


@dataclass(frozen=True)
class Clip:
    """The positions of all things in every frame. Later objects lie over earlier ones.

    kinds: the class of each object, (objects,). radii: in pixels, (objects,). centres: in pixels,
    (frames, objects, 2). angles: in radians, (frames, objects). pans: how far the background has
    moved, in pixels, (frames, 2). enters: the first frame that shows each object, (objects,), 0 if
    it is there from the beginning.
    """

    kinds: Tensor
    radii: Tensor
    centres: Tensor
    angles: Tensor
    pans: Tensor
    enters: Tensor

    def __len__(self) -> int:
        return len(self.centres)


def random_clip(frames: int, generator: torch.Generator) -> Clip:
    """Return a clip of three to six objects; some enter later, some leave, some stay.

    In about half of the clips one class has no object in the first frame and enters later.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    objects = int(torch.randint(3, 7, (), generator=generator))
    kinds = torch.randint(1, len(CLASSES), (objects,), generator=generator)
    # Whether an object enters, leaves or stays; the first two stay, so that no frame is empty.
    fate = torch.rand(objects, generator=generator)
    fate[:2] = 1.0
    enters_late, leaves = fate < 0.3, (fate >= 0.3) & (fate < 0.45)
    if torch.rand((), generator=generator) < 0.5:
        newcomer = _class_other_than(kinds[:2], kinds[-1])
        kinds[-1] = newcomer
        enters_late, leaves = enters_late | (kinds == newcomer), leaves & (kinds != newcomer)
    radii = uniform(8.5, 14.0, objects)

    time = torch.arange(frames, dtype=torch.float32)[:, None]  # (frames, 1)
    home = uniform(12, SIZE - 12, objects, 2)
    sway = uniform(3, 10, objects, 2)
    period = uniform(24, 60, objects, 2)
    phase = uniform(0, 2 * math.pi, objects, 2)
    swing = torch.sin(2 * math.pi * time[..., None] / period + phase)  # (frames, objects, 2)
    # Objects enter and leave over the nearest side at constant speed. `away` says how far from its
    # home an object is; 0 means at home.
    way, distance = _shortest_way_out(home, REACH * radii + sway.amax(dim=-1))
    arrival = uniform(0.4, 0.7, objects) * min(frames, 32)
    departure = uniform(0.3, 0.6, objects) * min(frames, 32)
    takes = torch.minimum(distance / 3, arrival - 1)  # frames
    away = torch.where(enters_late, (arrival - time) / takes, 0.0)
    away = torch.where(leaves, (time - departure) / takes, away).clamp(0, 1)
    centres = home + sway * swing + (away * distance)[..., None] * way
    angles = uniform(0, 2 * math.pi, objects) + time * uniform(-0.08, 0.08, objects)
    pans = time * (uniform(-0.6, 0.6, 2) * (torch.rand((), generator=generator) < 0.5))
    return Clip(kinds, radii, centres, angles, pans, _first_frames(centres, radii))


def random_stills(count: int, generator: torch.Generator) -> Clip:
    """Return `count` unrelated frames of six objects each, as a clip for training.

    The Clip's kinds and radii have one row per frame, (count, objects).
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    objects = 6
    kinds = torch.randint(1, len(CLASSES), (count, objects), generator=generator)
    centres = uniform(-4, SIZE + 4, count, objects, 2)
    shown = torch.randint(1, objects + 1, (count, 1), generator=generator)
    centres[torch.arange(objects) >= shown] = 4.0 * SIZE  # out of sight
    return Clip(
        kinds,
        uniform(8.5, 14.0, count, objects),
        centres,
        uniform(0, 2 * math.pi, count, objects),
        uniform(-2 * TILE, 2 * TILE, count, 2),
        torch.zeros(objects, dtype=torch.long),
    )


def parts_at(clip: Clip, points: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return what lies at points of frames.

    points: in pixels, (rows, n, 2). frames: the frame of each row, (rows,).
    Returns the instance, (rows, n), which is 0 for the background and 1 + the object's number for
    objects, and the tone, (rows, n), which is 0 for the ground and 1 for the mark.
    """
    tiles = torch.div(points - clip.pans[frames, None], TILE, rounding_mode="floor")
    tone = tiles.sum(dim=-1).remainder(2).long()
    instance = torch.zeros_like(tone)
    kinds = clip.kinds.expand(len(clip), -1)[frames]  # (rows, objects)
    radii = clip.radii.expand(len(clip), -1)[frames]
    for number in range(kinds.shape[1]):
        offset = points - clip.centres[frames, number][:, None]
        turn = clip.angles[frames, number][:, None]
        u = (offset[..., 0] * turn.cos() + offset[..., 1] * turn.sin()) / radii[:, number, None]
        v = (offset[..., 1] * turn.cos() - offset[..., 0] * turn.sin()) / radii[:, number, None]
        inside, mark = _shape(kinds[:, number, None], u, v)
        instance = torch.where(inside, number + 1, instance)
        tone = torch.where(inside, mark.long(), tone)
    return instance, tone


def classes_of(clip: Clip, instance: Tensor, frames: Tensor) -> Tensor:
    """Return the class of each instance. The shapes are those of `parts_at`."""
    kinds = clip.kinds.expand(len(clip), -1)[frames]
    table = torch.cat((torch.zeros_like(kinds[:, :1]), kinds), dim=1)  # (rows, 1 + objects)
    return table.gather(1, instance)


def render(clip: Clip, looks: Tensor) -> Tensor:
    """Paint all frames of a clip.

    looks: (classes, 2, 3), or one look per frame, (frames, classes, 2, 3); RGB in 0..1.
    Returns (frames, 3, SIZE, SIZE). Every pixel is the mean of its subsamples.
    """
    instance, tone = (found.flatten(1) for found in _subsamples(clip))
    part = classes_of(clip, instance, torch.arange(len(clip))) * 2 + tone
    looks = looks.expand(len(clip), -1, -1, -1).flatten(1, 2)  # (frames, classes * 2, 3)
    colours = looks.gather(1, part[..., None].expand(-1, -1, 3))
    colours = colours.reshape(len(clip), SUBSAMPLES**2, SIZE, SIZE, 3).mean(dim=1)
    return colours.permute(0, 3, 1, 2)


def labels(clip: Clip) -> tuple[Tensor, Tensor]:
    """Return what every pixel shows: (instance, part), both (frames, SIZE, SIZE), long.

    A part is 2 * class + tone. Pixels that show more than one part are -1 in both.
    """
    instance, tone = _subsamples(clip)  # (frames, SUBSAMPLES**2, SIZE * SIZE)
    kinds = classes_of(clip, instance[:, 0], torch.arange(len(clip)))
    part = kinds * 2 + tone[:, 0]
    pure = ((instance == instance[:, :1]) & (tone == tone[:, :1])).all(dim=1)
    shape = (len(clip), SIZE, SIZE)
    return instance[:, 0].where(pure, -1).reshape(shape), part.where(pure, -1).reshape(shape)


def correspondence(clip: Clip, lag: int, pure: bool = True) -> Correspondence:
    """Return the exact motion between frames `lag` apart, for all pairs of the clip.

    pure: whether only pixels that show a single part are compared, with points whose four
    surrounding pixels also show that part. Then a perfect clip's warp error is 0. Otherwise
    everything that is visible in both frames is compared, including edges.
    """
    earlier = torch.arange(len(clip) - lag)
    later = earlier + lag
    points = pixel_centres(SIZE).reshape(1, -1, 2).expand(len(earlier), -1, -1)
    instance, _ = parts_at(clip, points, earlier)
    moved = moved_points(clip, points, instance, earlier, later)
    shown, _ = parts_at(clip, moved, later)
    grid = (len(earlier), SIZE, SIZE)
    points = moved.reshape(*grid, 2)
    valid = (shown == instance).reshape(grid) & inside(points)
    if pure:
        instance, part = labels(clip)
        both = torch.where(part >= 0, instance * 2 * len(CLASSES) + part, -1)
        valid &= both[earlier] >= 0
        for pixel in _surrounding(both[later], points):
            valid &= pixel == both[earlier]
    return Correspondence(earlier, later, points, valid)


def _subsamples(clip: Clip) -> tuple[Tensor, Tensor]:
    """Return instance and tone at all subsamples, both (frames, SUBSAMPLES**2, SIZE * SIZE)."""
    frames = torch.arange(len(clip))
    steps = (pixel_centres(SUBSAMPLES) / SUBSAMPLES - 0.5).reshape(-1, 1, 1, 2)
    points = pixel_centres(SIZE) + steps  # (SUBSAMPLES**2, SIZE, SIZE, 2)
    points = points.reshape(1, -1, 2).expand(len(clip), -1, -1)
    return tuple(
        found.reshape(len(clip), SUBSAMPLES**2, SIZE * SIZE)
        for found in parts_at(clip, points, frames)
    )


def _surrounding(values: Tensor, points: Tensor) -> list[Tensor]:
    """Return the values of the four pixels around points.

    values: (pairs, SIZE, SIZE). points: (pairs, SIZE, SIZE, 2). Returns four (pairs, SIZE, SIZE).
    """
    first = (points - 0.5).floor().long()
    found = []
    for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = (first + torch.tensor(step)).clamp(0, SIZE - 1).unbind(-1)
        found.append(values.flatten(1).gather(1, (y * SIZE + x).flatten(1)).reshape(values.shape))
    return found


def pixel_centres(size: int) -> Tensor:
    """Return the coordinates (x, y) of all pixel centres of a square picture, (size, size, 2)."""
    line = torch.arange(size) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), dim=-1)


def moved_points(
    clip: Clip, points: Tensor, instance: Tensor, start: Tensor, end: Tensor
) -> Tensor:
    """Return where points of instances in start frames lie in end frames.

    points: (rows, n, 2). instance: (rows, n). start, end: (rows,). Returns (rows, n, 2).
    """
    moved = points + (clip.pans[end] - clip.pans[start])[:, None]
    turns = clip.angles[end] - clip.angles[start]  # (rows, objects)
    for number in range(clip.centres.shape[1]):
        cos, sin = turns[:, number, None].cos(), turns[:, number, None].sin()
        x, y = (points - clip.centres[start, number][:, None]).unbind(-1)
        rigid = torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)
        rigid = rigid + clip.centres[end, number][:, None]
        moved = torch.where((instance == number + 1)[..., None], rigid, moved)
    return moved


def _shape(kind: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether points, in units of the radius, lie inside a shape, and also on its mark."""
    square = torch.maximum(u.abs(), v.abs())
    round_ = u * u + v * v
    # The largest distance from the centre towards the three sides of an equilateral triangle. Each
    # side is 0.6 from the centre.
    slope = math.sqrt(3) / 2
    sides = torch.maximum(v, torch.maximum(slope * u - v / 2, -slope * u - v / 2))
    disc, box = kind == DISC, kind == SQUARE
    inside = torch.where(disc, round_ < 1, torch.where(box, square < 0.85, sides < 0.6))
    mark = torch.where(disc, v.abs() < 0.36, torch.where(box, square < 0.42, round_ < 0.11))
    return inside, mark & inside


def _class_other_than(taken: Tensor, wish: Tensor) -> Tensor:
    """Return the wanted class of objects, or the next one that is not taken."""
    while (taken == wish).any():
        wish = wish % (len(CLASSES) - 1) + 1
    return wish


def _shortest_way_out(home: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors towards the nearest side, (objects, 2), and the way out of sight."""
    sides = torch.cat((home, SIZE - home), dim=-1)  # left, top, right, bottom
    ways = torch.tensor([[-1.0, 0.0], [0.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    nearest = sides.min(dim=-1)
    return ways[nearest.indices], nearest.values + margin + 1


def _first_frames(centres: Tensor, radii: Tensor) -> Tensor:
    """Return the first frame in which each object can be seen, (objects,), counted from 0."""
    reach = REACH * radii[:, None]
    near = (centres > -reach) & (centres < SIZE + reach)
    seen = near.all(dim=-1)  # (frames, objects)
    return seen.long().argmax(dim=0)
