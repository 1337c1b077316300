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
        # Steps of these frames before their present pass, and the number of steps of a pass.
        self._before = self._steps_of_pass = 0
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

    def repeat_from(self, step: int) -> None:
        """Begin another pass on the same frames, whose first step is number `step`."""
        self._before = self._steps_of_pass - step

    def step(self, step: int, x0, x, total_steps: int) -> None:
        """Update the bars; ComfyUI's samplers call this after each step of a frame."""
        self.x0 = x0
        self._steps_of_pass = total_steps
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
