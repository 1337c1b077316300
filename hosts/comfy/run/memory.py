"""The memory of one sampling: what ComfyUI is asked for, and how many frames are run at once."""

import logging
import math
from collections.abc import Sequence

import comfy.model_management
import torch
from comfy.sampler_helpers import get_additional_models

from ....attention import PaintingOrder
from ....attention.bank import readable_size
from ....attention.painting_order import Group
from ..errors import BadInputError
from ..model.carried import run_of
from ..model.settings import Settings
from ..model.unet import Attn1
from .batches import batches, fastest, frames_that_fit

log = logging.getLogger("crossframe")


class MemoryPlan:
    """How much memory one sampling needs, and how it uses the memory that is available.

    bank_bytes: the most that the bank will hold, or 0 if it takes no memory of the model's device.
    evaluations: for how many evaluations of a frame the bank holds what they leave. measured: the
    bytes that one evaluation of a transformer leaves in it, once they are known.
    """

    def __init__(
        self,
        settings: Settings,
        order: PaintingOrder,
        one_batch: bool,
        has_state: bool,
        control_layers: Sequence[Attn1] = (),
    ) -> None:
        """order: the order in which frames are painted. one_batch: whether another node must see
        the clip in one model call. has_state: whether earlier frames have left something.
        control_layers: the layers of ControlNets that take part.
        """
        self.settings = settings
        self.control_layers = control_layers
        self.order = order
        self.one_batch = one_batch
        self.has_state = has_state
        self.bank_bytes = 0
        self.evaluations = 1
        self.measured = 0
        self._batches: list[Group] | None = None

    def expect_bank(self, nbytes: int) -> None:
        """Note the most that the bank will hold; a bank in system memory counts as 0."""
        self.bank_bytes = nbytes if self.settings.storage.device is None else 0

    def expect_frames(self, frame_bytes: int, device: torch.device, must_fit: bool) -> None:
        """Note what one evaluation of a frame leaves, which was measured on a transformer.

        device: the device that computes. must_fit: whether to refuse a bank that does not fit
        into the memory that is free, by raising BadInputError.
        """
        self.measured = frame_bytes * self.order.most_kept()
        whole = self.measured * self.evaluations
        self.expect_bank(whole)
        log.info("Cross-frame attention: keys and values take up to %s.", readable_size(whole))
        free = comfy.model_management.get_free_memory(torch.device("cpu"))
        if self.settings.storage.device is None and device.type != "cpu":
            free += comfy.model_management.get_free_memory(device)
        if must_fit and whole > free:
            raise BadInputError(
                "model",
                f"painting frame by frame, the keys and values that the model leaves "
                f"take {readable_size(whole)}, but only {readable_size(free)} are free.",
                "Use a stock sampler node with the same MODEL: it paints all frames at every step "
                "and keeps only those of one step. Or keep less: fewer layers, fewer steps, or "
                "bank_precision 'int8 per token' on the CrossFrameAttention node.",
            )

    def evaluation_bytes(self, entries: int, shape, dtype: torch.dtype) -> int:
        """Return the bytes that one model evaluation leaves at most in the bank.

        entries: the number of conds that are run. shape: the shape of a latent,
        (..., height, width). For a transformer, this is 0 until it has been measured.
        """
        if self.settings.layers is None:
            return self.measured
        storage = self.settings.storage
        per_frame = sum(
            attn1.tokens(*shape[-2:]) * storage.bytes_per_token(attn1.channels, dtype.itemsize)
            for attn1 in (*self.settings.layers, *self.control_layers)
        )
        return entries * per_frame * self.order.most_kept()

    def frames_per_batch(self, model, shape, free: float, device: torch.device) -> int:
        """Return how many frames to run at once: the user's number, or the fastest that fits.

        Whether frames fit is estimated with cond and uncond together. If another node needs all
        frames in one model call, this is all of them, as without cross-frame attention. model:
        ComfyUI's BaseModel. shape: the shape of the clip's latent. free: the free bytes on the
        device that computes.
        """
        if self.settings.frames_per_batch > 0:
            return min(self.settings.frames_per_batch, self.order.count)
        if self.one_batch:
            return self.order.count

        def required(frames: int) -> float:
            return model.memory_required([2 * frames, *shape[1:]])

        most = fastest(device.type, self.order.count)
        whole = frames_that_fit(required, free, most)
        if whole == self.order.count and not self.has_state:
            return whole  # then no bank is needed
        return frames_that_fit(required, free - self.bank_bytes, most)

    def batches(self, model, x: torch.Tensor) -> list[Group]:
        """Return the batches that the clip is run in, planned once for the whole run.

        They are planned by the memory that is free once the models are loaded. The split changes
        frames only by rounding, but a run should not depend on what else happens to memory during
        it. model: ComfyUI's BaseModel. x: all frames of the clip.
        """
        if self._batches is None:
            free = model.current_patcher.get_free_memory(x.device)
            most = self.frames_per_batch(model, x.shape, free, x.device)
            self._batches = batches(self.order.groups, most)
            log.info(
                "Cross-frame attention: %d frames per step, in batches of up to %d.",
                self.order.count,
                max(map(len, self._batches)),
            )
        return self._batches

    def plan_batch(self, model, conds, shape) -> int:
        """Return how many frames of a clip will be run at once, before models are loaded.

        model: the MODEL. conds: cond dicts by input name. shape: the shape of the clip's latent.
        """
        others, inference = get_additional_models(conds, model.model_dtype())
        # This could be free with only the models of this sampling loaded.
        free = (
            comfy.model_management.get_total_memory(model.load_device)
            - comfy.model_management.extra_reserved_memory()
            - sum(loaded.model_size() for loaded in (model, *others))
            - inference
        )
        entries = sum(len(cond) for cond in conds.values())
        dtype = model.model.get_dtype_inference()
        self.expect_bank(self.evaluation_bytes(entries, shape, dtype))
        frames = self.frames_per_batch(model.model, shape, free, model.load_device)
        if frames == self.order.count and not self.has_state:
            self.expect_bank(0)  # nothing is left to another batch
        return frames


def ask_for_memory(executor, model, noise_shape, conds, *args, **kwargs):
    """PREPARE_SAMPLING wrapper: ask for the memory of one batch of frames and of the bank.

    ComfyUI estimates memory only from a latent's shape, so the bank is expressed as the number of
    frames that would need the same amount.
    """
    run = run_of(kwargs.get("model_options") or {})
    if run is not None:
        plan = run.memory
        if not run.one_frame:
            noise_shape = [plan.plan_batch(model, conds, noise_shape), *noise_shape[1:]]
        # What the bank already holds is no longer free, so it is not asked for again.
        to_come = max(plan.bank_bytes - run.core.bank.nbytes, 0)
        per_frame = max(model.model.memory_required([2, *noise_shape[1:]]), 1)
        needed = math.ceil(to_come / per_frame)
        noise_shape = [noise_shape[0] + needed, *noise_shape[1:]]
    return executor(model, noise_shape, conds, *args, **kwargs)
