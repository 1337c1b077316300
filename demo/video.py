"""Read and write frames as video files and pictures.

Frames are (frames, 3, height, width), RGB in 0..1.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .world import SIZE

# Files are enlarged by this factor, because players smooth small pictures and videos store chroma
# at half size.
ENLARGED = 4


def read_clip(path: Path) -> Tensor:
    """Read a video that was written enlarged; return (frames, 3, SIZE, SIZE)."""
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255  # (frames, 3, h, w)
    if pixels.shape[-1] != SIZE * ENLARGED:
        raise ValueError(f"{path} is {pixels.shape[-1]} pixels wide, not {SIZE * ENLARGED}")
    return torch.nn.functional.avg_pool2d(pixels, ENLARGED)


def write_video(path: Path, frames: Tensor, rate: int) -> None:
    """Write frames as H.264 without enlarging them; height and width must be even."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(rate), options={"crf": "12"})
        stream.height, stream.width = frames.shape[-2:]
        stream.pix_fmt = "yuv420p"
        for picture in as_bytes(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


def write_gif(path: Path, frames: Tensor, rate: int) -> None:
    """Write frames as an endless GIF."""
    pictures = [Image.fromarray(picture) for picture in as_bytes(frames)]
    # All frames share one palette, because different palettes would themselves flicker.
    palette = pictures[0].quantize(256) if len(pictures) == 1 else _common_palette(pictures)
    pictures = [picture.quantize(palette=palette, dither=0) for picture in pictures]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=round(1000 / rate), loop=0
    )


def write_picture(path: Path, picture: Tensor) -> None:
    """Write one frame, (3, height, width)."""
    Image.fromarray(as_bytes(picture[None])[0]).save(path)


def enlarge(frames: Tensor, times: int = ENLARGED) -> Tensor:
    """Repeat pixels, so that frames keep their look at a larger size."""
    return frames.repeat_interleave(times, dim=-1).repeat_interleave(times, dim=-2)


def as_bytes(frames: Tensor) -> np.ndarray:
    """Turn (frames, 3, height, width) in 0..1 into (frames, height, width, 3), uint8."""
    return (frames.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _common_palette(pictures: list[Image.Image]) -> Image.Image:
    sheet = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures]))
    return sheet.quantize(256)
