"""The frames of a clip as moving copies of one noisy latent."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...latents.dynamics import moved_copies, with_more_noise
from .errors import BadInputError
from .model.motion import checked_motion
from .noise.clip_noise import SeededNoise, clip_noise
from .orders.sampler_nodes import as_intermediate, schedule
from .run.fusion import check_motion

# A latent's fine detail must lie between these shares of what its step leads to expect. Latents of
# pictures spread by about 1 in all families, and less than that is fine detail; a high cfg adds to
# it.
LEAST_NOISE, MOST_NOISE, MOST_DETAIL = 0.7, 2.0, 1.5
ENOUGH_CELLS = 64  # of a latent, to say how much noise it has


@dataclass(frozen=True)
class Steps:
    """Where in a schedule the copies begin. The first three are those of a KSampler.

    from_step: where the latent was left. to_step: the earlier one from which the frames are then
    sampled together.
    """

    steps: int
    sampler_name: str
    scheduler: str
    from_step: int
    to_step: int

    def check(self) -> None:
        """Raise BadInputError unless the steps lie in the schedule, the later one after it."""
        if self.from_step >= self.steps:
            raise BadInputError(
                "from_step",
                f"it is {self.from_step} of {self.steps} steps, where no noise is left.",
                "Choose an earlier step, and end the KSampler (Advanced) before this node there.",
            )
        if self.to_step >= self.from_step:
            raise BadInputError(
                "to_step",
                f"it is {self.to_step}, and from_step is {self.from_step}.",
                "Choose a step before from_step.",
            )


def moving_frames(
    model: Any,
    latent: dict,
    motion: Any,
    chosen: Steps,
    seed: int,
    frame_noise: str,
    reading: str,
    earlier: dict | None = None,
) -> dict:
    """Return the frames of a clip at an earlier step, as moving copies of one noisy latent.

    model: a MODEL. latent: a LATENT of frame 0 at `from_step`, with the noise that is left there.
    motion: what arrives at an input `motion`. frame_noise: a name in FRAME_NOISE. reading: a name
    in READINGS. earlier: the LATENT of frame 0 at `to_step`, which then is frame 0 as it is.
    Returns a LATENT of all frames. Raises BadInputError.
    """
    chosen.check()
    motion = checked_motion(motion)
    level, wanted = _levels(model, chosen)
    _check_latent("latent", latent, model, level)
    if earlier is not None:
        _check_latent("earlier_latent", earlier, model, wanted)
        _check_same(latent, earlier)
    samples = latent["samples"]
    clip = (motion.frames, *samples.shape[1:])
    check_motion(motion, range(motion.frames), torch.Size(clip))
    noise = clip_noise(SeededNoise(seed), frame_noise)
    drawn = noise.generate_noise({"samples": samples.new_zeros(clip)})
    inside = model.model.process_latent_in(samples.float())
    copies, left = moved_copies(inside, motion, reading)
    moved = with_more_noise(copies, drawn, level, wanted, left)
    frames = model.model.process_latent_out(moved)
    if earlier is not None:
        frames[0] = earlier["samples"][0]
    others = {key: value for key, value in latent.items() if key != "batch_index"}
    return {**others, "samples": as_intermediate(frames)}


def _levels(model: Any, chosen: Steps) -> tuple[float, float]:
    """Return the noise levels of a LATENT at both steps, as the ratio of noise to what is clean.

    Raises BadInputError if nothing of the clean latent is left at the earlier one.
    """
    sigmas = schedule(model, chosen.steps, chosen.sampler_name, chosen.scheduler, 1.0)
    sampling = model.get_model_object("model_sampling")
    level, wanted = (_level(sampling, sigmas[step]) for step in (chosen.from_step, chosen.to_step))
    if level is None or wanted is None:
        raise BadInputError(
            "to_step" if wanted is None else "from_step",
            "at this step the model knows nothing but noise, so no motion would be left.",
            "Choose a later step.",
        )
    return level, wanted


def _level(sampling: Any, sigma: Tensor) -> float | None:
    """Return the ratio of noise to what is clean at a sigma, or None if nothing is clean.

    ComfyUI's own function says how a model mixes the two.
    """
    none, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    noise = float(sampling.noise_scaling(sigma, one.clone(), none.clone()))
    clean = float(sampling.noise_scaling(sigma, none.clone(), one.clone()))
    return noise / clean if clean > 1e-6 else None


def _check_latent(name: str, latent: dict, model: Any, level: float) -> None:
    """Raise BadInputError unless a LATENT is one frame with as much noise as belongs there."""
    samples = latent["samples"]
    if len(samples) != 1:
        raise BadInputError(
            name,
            f"it holds {len(samples)} frames, and one is wanted, of which all are made.",
            "Give an empty latent with batch_size 1 to the first sampler.",
        )
    if samples[0, 0].numel() < ENOUGH_CELLS:
        return
    found = _fine_detail(model.model.process_latent_in(samples.float()))
    least, most = LEAST_NOISE * level, MOST_NOISE * (level**2 + MOST_DETAIL**2) ** 0.5
    if not least <= found <= most:
        how = "less" if found < least else "more"
        raise BadInputError(
            name,
            f"it has {how} noise than belongs to this step: from cell to cell its values spread by "
            f"{found:.3g}, and the noise there would spread them by {level:.3g}.",
            "Take it from a KSampler (Advanced) of the same model, steps, sampler and scheduler "
            "that ends at this step, with return_with_leftover_noise.",
        )


def _fine_detail(latent: Tensor) -> float:
    """Return how much values differ from cell to cell; for noise, its standard deviation.

    latent: (..., h, w). Shapes and ramps hardly count.
    """
    if min(latent.shape[-2:]) < 2:
        return float(latent.std())
    across = latent.diff(dim=-1).diff(dim=-2)
    return float(across.square().mean().sqrt()) / 2  # of four cells, whose variances add up


def _check_same(latent: dict, earlier: dict) -> None:
    """Raise BadInputError unless two LATENTs have the same size."""
    sizes = [tuple(given["samples"].shape[1:]) for given in (latent, earlier)]
    if sizes[0] != sizes[1]:
        raise BadInputError(
            "earlier_latent",
            f"its shape is {sizes[1]}, and that of latent is {sizes[0]}.",
            "Take both from samplers of the same picture.",
        )
