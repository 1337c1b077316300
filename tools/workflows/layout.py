"""Where nodes stand: a page lays itself out, so that no workflow names a coordinate."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

WIDTH = 340  # of every node
GAP = 60  # between two nodes; the title of the lower one stands in it
MARGIN = 20  # from the nodes of a group to its edge
TOP = 90  # from the first node of a group to its upper edge: the node's title, then the group's
LETTERS = 50  # in a line of a note
# ComfyUI could tell what a node needs at least, but its versions differ, and the files must not.
HEIGHTS = {
    "AudioConcat": 80,
    "BatchImagesNode": 80,
    "CLIPLoader": 110,
    "CLIPTextEncode": 130,
    "Canny": 90,
    "CheckpointLoaderSimple": 100,
    "ConditioningZeroOut": 60,
    "ControlNetApplyAdvanced": 200,
    "ControlNetLoader": 60,
    "CreateVideo": 120,
    "CrossFrameAttention": 410,
    "CrossFrameConsistency": 240,
    "CrossFrameControlNet": 60,
    "CrossFrameDemoClip": 60,
    "CrossFrameDemoModel": 140,
    "CrossFrameDynamics": 330,
    "CrossFrameFusion": 210,
    "CrossFrameKSampler": 540,
    "CrossFrameKeyframes": 130,
    "CrossFrameMotion": 110,
    "CrossFrameMotionField": 320,
    "CrossFramePrompts": 200,
    "CrossFramePropagate": 130,
    "CrossFrameRerender": 720,
    "CrossFrameVAEEncode": 60,
    "DualCLIPLoader": 140,
    "EmptyImage": 140,
    "EmptyLatentImage": 110,
    "FluxGuidance": 60,
    "FluxKontextImageScale": 60,
    "GetVideoComponents": 100,
    "ImageScale": 150,
    "ImageScaleBy": 90,
    "ImageStitch": 180,
    "KSampler": 310,
    "KSamplerAdvanced": 400,
    "LatentBatchSeedBehavior": 60,
    "LoadImage": 320,
    "LoadVideo": 310,
    "ModelPatchLoader": 60,
    "ModelSamplingAuraFlow": 60,
    "QwenImageDiffsynthControlnet": 150,
    "ReferenceLatent": 60,
    "SaveImage": 340,
    "SaveVideo": 340,
    "UNETLoader": 90,
    "VAEDecode": 60,
    "VAEEncode": 60,
    "VAELoader": 60,
    "Video Slice": 120,
}


@dataclass
class Box:
    """Nodes and other boxes, one below the other or side by side. One with a title is a group."""

    title: str | None = None
    side_by_side: bool = False
    items: list = field(default_factory=list)
    bounding: list[int] = field(default_factory=list)

    def place(self, left: int, top: int) -> tuple[int, int]:
        """Place the items from the upper left corner on, and return the lower right corner."""
        x, y, right, bottom = left, top, left, top
        for number, item in enumerate(self.items):
            if number and self.side_by_side:
                x = right + GAP
            elif number:
                y = bottom + _gap(self.items[number - 1], item)
            corner = _place(item, x, y)
            right, bottom = max(right, corner[0]), max(bottom, corner[1])
        width, height = right - left, bottom - top
        self.bounding = [left - MARGIN, top - TOP, width + 2 * MARGIN, height + TOP + MARGIN]
        return right, bottom


class Page:
    """Columns side by side. A node or a group that is in no column is a column by itself."""

    def __init__(self) -> None:
        self._open = [Box(side_by_side=True)]
        self._groups: list[Box] = []

    @contextmanager
    def column(self) -> Iterator[None]:
        """Stack what the block adds; several columns stand side by side, within a group, too."""
        self._open[-1].side_by_side = True
        with self._inside(Box()):
            yield

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Draw a frame around what the block adds. A group holds no other group."""
        box = Box(title)
        self._groups.append(box)
        with self._inside(box):
            yield

    def _stand(self, node: dict) -> None:
        """Let a node stand where the next one belongs."""
        self._open[-1].items.append(node)

    def _lay_out(self) -> list[dict]:
        """Give every node its place, and return the groups as the page stores them."""
        self._open[0].place(0, 0)
        return [
            {
                "id": number,
                "title": group.title,
                "bounding": group.bounding,
                "color": "#3f789e",
                "font_size": 24,
                "flags": {},
            }
            for number, group in enumerate(self._groups, 1)
        ]

    @contextmanager
    def _inside(self, box: Box) -> Iterator[None]:
        self._open[-1].items.append(box)
        self._open.append(box)
        yield
        self._open.pop()


def note_height(text: str) -> int:
    """A height at which a note shows its whole text in Markdown, with some room."""
    shown = re.sub(r"\]\(.*?\)", "", text.strip())  # the page does not show addresses of links
    blocks = re.split(r"\n\n|\n(?=- )", shown)
    lines = sum(math.ceil(len(block) / LETTERS) for block in blocks)
    return 40 + 15 * lines + 10 * len(blocks)


def _gap(above: Box | dict, below: Box | dict) -> int:
    """The height between the nodes of two items; frames of groups have their distance, too."""
    framed = isinstance(above, Box) or isinstance(below, Box)
    return GAP - MARGIN + TOP if framed else GAP


def _place(item: Box | dict, x: int, y: int) -> tuple[int, int]:
    if isinstance(item, Box):
        return item.place(x, y)
    item["pos"] = [x, y]
    width, height = item["size"]
    return x + width, y + height
