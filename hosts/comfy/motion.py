"""The motion of ComfyUI's IMAGE batches, (frames, height, width, channels)."""

from collections.abc import Callable

import comfy.model_base
import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...consistency import frames_not_finite
from ...motion import (
    BUILT_IN,
    RAFT,
    BuiltIn,
    EstimatedMotion,
    Estimator,
    Motion,
    Network,
    shrunk_to,
)
from ...motion.keyframes import keyframes
from ...motion.picture import motion_picture, strongest_of
from ...motion.variational import resized
from .errors import BadInputError
from .images import planes

LEAST_SIDE = 8  # pixels; what is smaller has no motion that could be seen
RAFT_LEAST, RAFT_UNIT = 128, 8  # pixels; the sides that RAFT takes


def clip_motion(
    source: Tensor, method: str, flow_model: object = None
) -> tuple[EstimatedMotion, list[int], Tensor]:
    """Find the motion in a clip; return it, its keyframes, and a picture of it for each frame.

    source: an IMAGE batch. method: one of `motion.METHODS`. flow_model: an OPTICAL_FLOW of ComfyUI,
    for RAFT. The pictures, (frames, h, w, 3), show the motion to the next frame. They have the size
    at which motion is estimated. Raises BadInputError for a clip that has no motion to find, and
    for a flow_model that is missing or is something else.
    """
    check_clip(source)
    estimator = BuiltIn() if method == BUILT_IN else Network(raft_flow(flow_model))
    motion = _motion(source, estimator)
    bar = comfy.utils.ProgressBar(2 * (motion.frames - 1))
    pictures = motion_pictures(motion, _grid(motion), lambda: bar.update(1))
    found = keyframes(motion, lambda: bar.update(1))
    return motion, found, pictures


def _motion(source: Tensor, estimator: Estimator) -> EstimatedMotion:
    # One by one, so that the whole clip is never there in single precision.
    frames = [shrunk_to(estimator.longest_side, planes(frame)) for frame in source.split(1)]
    device = comfy.model_management.get_torch_device()
    return EstimatedMotion(
        torch.cat(frames),
        (source.shape[1], source.shape[2]),
        estimator,
        device=device if device.type == "cuda" else "cpu",
        before_each=comfy.model_management.throw_exception_if_processing_interrupted,
    )


def _grid(motion: EstimatedMotion) -> tuple[int, int]:
    """Return the size at which motion is estimated."""
    height, width = motion.pictures.shape[-2:]
    return height, width


def motion_pictures(
    motion: Motion, grid: tuple[int, int], progress: Callable[[], None] = lambda: None
) -> Tensor:
    """Draw the motion to the next frame, (frames, *grid, 3); for the last one, that to the frame
    before it.

    progress: called after each frame but the last.
    """
    steps = []
    for frame in range(motion.frames - 1):
        steps.append(motion.between(frame, frame + 1, grid))
        progress()
    last = motion.between(motion.frames - 1, motion.frames - 2, grid)
    strongest = strongest_of(steps)
    drawn = [motion_picture(step, strongest) for step in [*steps, last]]
    return torch.stack(drawn).movedim(1, -1)


def raft_flow(flow_model: object) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that asks RAFT for the flow between two pictures, (3, h, w).

    flow_model: what ComfyUI's Load Optical Flow Model gives. Raises BadInputError for anything
    else. The network has 20 MB. It goes to the device of the pictures without asking ComfyUI for
    room, since that could send away a model in the middle of its sampling.
    """
    network = _network(flow_model)

    def flow(here: Tensor, there: Tensor) -> Tensor:
        size = (here.shape[-2], here.shape[-1])
        fitting = tuple(max(RAFT_LEAST, round(s / RAFT_UNIT) * RAFT_UNIT) for s in size)
        pair = torch.nn.functional.interpolate(
            torch.stack((here, there)), fitting, mode="bilinear", align_corners=False
        )
        one, other = (2 * pair - 1).split(1)
        with torch.no_grad():
            found = network.to(here.device)(one, other)
        return resized(_last_flow(found, fitting), size)[0]

    return flow


def _network(flow_model: object) -> torch.nn.Module:
    """Return the network in an OPTICAL_FLOW."""
    if flow_model is None:
        raise BadInputError(
            "flow_model",
            f"nothing is connected, and the method '{RAFT}' needs it.",
            f"Connect Load Optical Flow Model, or choose the method '{BUILT_IN}'.",
        )
    network = getattr(flow_model, "model", None)
    if not isinstance(network, torch.nn.Module) or isinstance(network, comfy.model_base.BaseModel):
        raise BadInputError("flow_model", *_NO_FLOW)
    return network


_NO_FLOW = (
    "it is not a model that finds the motion between two pictures.",
    "Connect Load Optical Flow Model.",
)


def _last_flow(found: object, size: tuple[int, ...]) -> Tensor:
    """Return the last of the flows that RAFT gives, (1, 2, *size)."""
    flow = found[-1] if isinstance(found, (list, tuple)) and found else found
    if not isinstance(flow, Tensor) or flow.shape != (1, 2, *size):
        raise BadInputError("flow_model", *_NO_FLOW)
    return flow.float()


def check_clip(source: Tensor) -> None:
    """Raise BadInputError unless a clip has motion that could be found."""
    if source.ndim != 4 or source.shape[-1] == 0:
        problem = f"it is not a batch of pictures, but has the shape {tuple(source.shape)}."
        raise BadInputError("source", problem, "Connect the frames as an IMAGE.")
    frames, height, width = source.shape[:3]
    if frames < 2:
        raise BadInputError(
            "source",
            f"it has {frames} frame{'' if frames == 1 else 's'}, and motion is between frames.",
            "Connect all frames of the clip, in order, as one IMAGE.",
        )
    if min(height, width) < LEAST_SIDE:
        raise BadInputError(
            "source",
            f"it has pictures of {width} x {height}, too small to see any motion.",
            f"Give pictures of at least {LEAST_SIDE} x {LEAST_SIDE} pixels.",
        )
    if broken := frames_not_finite(source[..., :3]):
        raise BadInputError(
            "source",
            f"frame {broken[0]}, counted from 0, has values that are nan or infinite.",
            "Find out where they come from, and make this frame again.",
        )
