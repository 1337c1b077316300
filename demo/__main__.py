"""Edit the shipped clip with and without cross-frame attention, and show the difference.

Writes a video, a GIF and a picture of the source, the plain edit and the cross-frame edit side by
side, and prints how steady each is.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from ..consistency import colour_spread, warp_error
from . import world
from .edit import PLAIN, STEADY, Setting, edit
from .shipped import CLIP_FILE, RATE, load_pipeline, shipped_clip
from .video import enlarge, read_clip, write_gif, write_picture, write_video

FAR = 8  # frames apart
STRIP = 6  # frames in the picture
GAP = 4  # pixels between pictures
SETTINGS = {
    "plain, frame by frame": PLAIN,
    "plain, same noise": Setting(),
    "cross-frame attention": STEADY,
}


def main() -> None:
    options = parse_options()
    options.output.mkdir(parents=True, exist_ok=True)
    source = read_clip(CLIP_FILE)
    edits = EDITORS[options.host](source, options)
    shown = {"source": source, **edits}
    print_table(edits)
    write(shown, options.output)


def edit_with_diffusers(source: Tensor, options: argparse.Namespace) -> dict[str, Tensor]:
    """Edit the clip with every setting, through the diffusers host."""
    pipeline = load_pipeline()
    return {
        name: edit(pipeline, source[None], [options.prompt], [options.seed], setting)[0]
        for name, setting in SETTINGS.items()
    }


def edit_with_comfyui(source: Tensor, options: argparse.Namespace) -> dict[str, Tensor]:
    """Edit the clip with every setting, in the ComfyUI that is found."""
    from comfyui_location import comfyui_version, need_comfyui

    path = need_comfyui(cpu=not torch.cuda.is_available())
    print(f"ComfyUI {comfyui_version(path)} at {path}")
    from .in_comfyui import edit_in_comfyui, load_in_comfyui

    demo = load_in_comfyui()
    return {
        name: edit_in_comfyui(demo, source, options.prompt, options.seed, setting)
        for name, setting in SETTINGS.items()
    }


EDITORS = {"diffusers": edit_with_diffusers, "comfyui": edit_with_comfyui}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", default="a neon drawing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--host", choices=list(EDITORS), default="diffusers")
    parser.add_argument("--output", type=Path, default=Path("build/demo"))
    return parser.parse_args()


def print_table(edits: dict[str, Tensor]) -> None:
    """Print how steady each edit is, against the exact motion of the clip."""
    clip = shipped_clip()
    near, far = world.correspondence(clip, 1), world.correspondence(clip, FAR)
    objects, _ = world.labels(clip)
    count = int(objects.max()) + 1
    heads = ("warp error x 1000,", "1 apart", f"{FAR} apart", "colour spread")
    print("{:<24}{:>10}{:>10}{:>15}".format(*heads))
    for name, frames in edits.items():
        values = (
            1000 * float(warp_error(frames, near).nanmean()),
            1000 * float(warp_error(frames, far).nanmean()),
            float(colour_spread(frames, objects, count).nanmean()),
        )
        print("{:<24}{:>10.2f}{:>10.2f}{:>15.3f}".format(name, *values))


def write(shown: dict[str, Tensor], folder: Path) -> None:
    """Write all clips side by side, in the order of `shown`, as video, GIF and picture."""
    beside = enlarge(torch.cat([_framed(frames) for frames in shown.values()], dim=-1))
    write_video(folder / "demo.mp4", beside, RATE)
    write_gif(folder / "demo.gif", beside, RATE)
    some = torch.linspace(0, len(beside) - 1, STRIP).long()
    rows = [torch.cat([*_framed(frames[some])], dim=-1) for frames in shown.values()]
    write_picture(folder / "demo.png", enlarge(torch.cat(rows, dim=-2), 3))
    print(f"from left to right: {', '.join(shown)}")
    for name in ("demo.mp4", "demo.gif", "demo.png"):
        print(f"written: {folder / name}")


def _framed(frames: Tensor) -> Tensor:
    """Return frames with a white border."""
    return torch.nn.functional.pad(frames, (GAP // 2,) * 4, value=1.0)


if __name__ == "__main__":
    main()
