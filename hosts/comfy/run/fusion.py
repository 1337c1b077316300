"""Begin the fusion of a run: what is fused to what, and whether the motion fits the clip."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch

from ....attention import Key, Layer, PaintingOrder, Policy
from ....attention.storage import Stored
from ....latents.fusion import FIRST_AND_PREVIOUS, KEYFRAMES, FusionPlan, Predictions, fusion_plan
from ....motion import Motion
from ..errors import BadInputError, named
from ..model.settings import FUSION_NODE, FusionChoice

# Where predictions lie in a state, beside the hidden states of layers.
PREDICTIONS = Layer("prediction", 0, 0)
_ENTRY = (0, 0)


def plan_fusion(
    choice: FusionChoice, policy: Policy, frames: range, carry: bool, latent: torch.Size
) -> FusionPlan:
    """Work out which frames are fused to which. frames: those of the latent. carry: whether later
    frames go on from them. latent: the shape of the clip's latents.

    Raises BadInputError if the motion or the keyframes do not fit the clip.
    """
    with named(FUSION_NODE):
        check_motion(choice.motion, frames, latent)
        beyond = [frame for frame in choice.keyframes if frame >= frames.stop]
        if beyond and choice.are_named:
            raise BadInputError(
                "keyframes",
                f"frame {beyond[0]} is beyond the clip, whose last frame here is "
                f"{frames.stop - 1}.",
                "Name frames of the clip. If it is painted in parts, name for each part the "
                "keyframes up to its end.",
            )
    return fusion_plan(choice.to, frames, policy.scene, choice.keyframes, carry)


def check_motion(motion: Motion, frames: range, latent: torch.Size) -> None:
    """Raise BadInputError if a motion is not that of a clip.

    latent: the shape of its latents, (frames, channels, ..., height, width). They may be cropped by
    less than one of their own pixels, as VAE Encode does.
    """
    fits = motion.frames == frames.stop if frames.start == 0 else motion.frames >= frames.stop
    if not fits:
        raise BadInputError(
            "motion",
            f"it is that of {motion.frames} frames, but the clip has {frames.stop}.",
            "Give CrossFrameMotion the frames that the latents were made of. If a clip is painted "
            "in parts, give it the whole clip.",
        )
    height, width = motion.size
    rows, columns = latent[-2:]
    if abs(height * columns - width * rows) > max(height, width):
        raise BadInputError(
            "motion",
            f"it is that of pictures of {width} x {height} pixels, but the latents have "
            f"{columns} x {rows}, which is another shape.",
            "Give CrossFrameMotion the frames that the latents were made of.",
        )


# What goes together frame by frame, by what frames are fused to.
_OTHER_WAYS = {
    KEYFRAMES: f"set to to '{FIRST_AND_PREVIOUS}', or let CrossFrameAttention look at the first "
    "frame or at the same keyframes only",
    FIRST_AND_PREVIOUS: f"set to to '{KEYFRAMES}', or let CrossFrameAttention look at the first or "
    "at previous frames only",
}


def check_groups(order: PaintingOrder, plain: PaintingOrder, to: str) -> None:
    """Raise BadInputError if fusion forces frames to be painted together, frame by frame.

    order, plain: the orders with and without fusion.
    """
    if max(map(len, order.groups)) > max(map(len, plain.groups)):
        with named(FUSION_NODE):
            raise BadInputError(
                "to",
                f"frame by frame, frames cannot be fused to '{to}' while they look at frames that "
                "are painted after these.",
                f"Use a stock sampler node, or {_OTHER_WAYS[to]}.",
            )


def check_predictions(plan: FusionPlan, given: Predictions) -> None:
    """Raise BadInputError if earlier frames have not left what frames are fused to."""
    held = {frame for frames in given.values() for frame in frames}
    if missing := sorted(plan.wanted - held):
        with named(FUSION_NODE):
            raise BadInputError(
                "keyframes",
                f"frames are fused to frame {missing[0]}, of which the state keeps no prediction "
                f"(it keeps {sorted(held) or 'none'}).",
                "Name the keyframes that earlier parts have had.",
            )


def in_order(plan: FusionPlan, order: PaintingOrder) -> FusionPlan:
    """Return a plan whose order is that in which groups are painted."""
    place = {frame: number for number, frame in enumerate(plan.order)}
    groups = (sorted(group, key=place.__getitem__) for group in order.groups)
    return replace(plan, order=tuple(frame for group in groups for frame in group))


def predictions_in(stored: Mapping, shape: torch.Size) -> Predictions:
    """Take the predictions out of a state. shape: of one frame's latent, (channels, ..., h, w)."""
    found: Predictions = {}
    for key, frames in stored.items():
        if key.layer == PREDICTIONS:
            found[key.step] = {
                frame: values.values.T.reshape(shape).contiguous()
                for frame, (values,) in frames.items()
            }
    return found


def stored_predictions(kept: Predictions, frames: Collection[int] | None = None) -> dict:
    """Return the predictions of some frames, or of all, as a state stores them."""
    stored: dict = {}
    for step, of_step in kept.items():
        for frame, x0 in of_step.items():
            if frames is None or frame in frames:
                # (channels, ..., h, w) -> (tokens, channels), as hidden states are stored
                values = x0.flatten(1).T.contiguous().cpu()
                key = Key(step, PREDICTIONS, _ENTRY, len(values))
                as_stored = Stored(values, None, torch.device("cpu"), values.dtype)
                stored.setdefault(key, {})[frame] = (as_stored,)
    return stored
