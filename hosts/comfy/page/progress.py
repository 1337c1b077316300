"""Progress of a clip that is sampled frame by frame: one bar for the page, one for the console."""

import comfy.utils
import latent_preview
import torch
from tqdm.auto import tqdm


class FrameProgress:
    """One bar over frames x steps, with previews of the frame that is being painted."""

    def __init__(self, model_patcher, frames: int, steps: int, done: int = 0) -> None:
        """frames: the number of frames in the clip. steps: the number of steps of each frame.

        done: how many frames are already finished.
        """
        self.steps, self.total = steps, frames * steps
        self._done, self._running = done, 0
        self._before = 0  # steps of these frames before those that their present pass counts
        self.x0: torch.Tensor | None = None
        self._previewer = latent_preview.get_previewer(
            model_patcher.load_device, model_patcher.model.latent_format
        )
        self._page = comfy.utils.ProgressBar(self.total)
        self._console = tqdm(total=self.total, disable=not comfy.utils.PROGRESS_BAR_ENABLED)

    def start_frames(self, frames: int) -> None:
        """Begin frames that are painted together; `x0` then holds their last denoised estimates."""
        self._done, self._running = self._done + self._running, frames
        self._before = 0
        self.x0 = None

    def repeat(self, before: int) -> None:
        """Begin another pass on the same frames. before: how many steps to add to those it counts.

        They are the steps of the pass before, less those that are left out of this one.
        """
        self._before = before

    def step(self, step: int, x0, x, total_steps: int) -> None:
        """Update the bars; ComfyUI's samplers call this after each step of a frame."""
        self.x0 = x0
        steps = min(self._before + step + 1, self.steps)
        done = self._done * self.steps + steps * self._running
        self._console.update(done - self._console.n)
        preview = None
        if self._previewer is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", x0)
        self._page.update_absolute(done, self.total, preview)

    def close(self) -> None:
        """Close the console's bar."""
        self._console.close()
