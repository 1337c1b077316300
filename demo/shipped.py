"""The files that ship with the demo: the model's folder, and a source clip with its truth."""

import torch
from diffusers import StableDiffusionControlNetImg2ImgPipeline

from . import model, world
from .video import enlarge, write_video

CLIP_FILE = model.FOLDER.parent / "clip" / "shapes.mp4"
CLIP_SEED = 161
CLIP_FRAMES = 32
RATE = 12  # frames per second


def shipped_clip() -> world.Clip:
    """Return the exact description of the shipped clip."""
    return world.random_clip(CLIP_FRAMES, torch.Generator().manual_seed(CLIP_SEED))


def write_shipped_clip() -> None:
    """Render the shipped clip and write its file."""
    CLIP_FILE.parent.mkdir(exist_ok=True)
    write_video(CLIP_FILE, enlarge(world.render(shipped_clip(), world.PLAIN)), RATE)


def load_pipeline() -> StableDiffusionControlNetImg2ImgPipeline:
    """Return the demo model as a diffusers pipeline, in single precision."""
    pipeline = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        model.FOLDER, torch_dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


if __name__ == "__main__":
    write_shipped_clip()
