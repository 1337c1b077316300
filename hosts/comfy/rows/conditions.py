"""Per-frame conditioning: give some frames of a clip their own rows of everything.

ComfyUI lets conditioning have one row for all frames or one row per frame, but in every batch it
uses the first rows. So code that runs fewer frames than the clip has must cut out their rows in
every place that can hold some: prompts, pooled prompts, masks, inpaint latents, prepared model
conds, and the hints of a whole chain of ControlNets.
"""

import copy
import math
import uuid
from collections.abc import Sequence

import comfy.samplers
import torch
from comfy.controlnet import T2IAdapter

from ..errors import BadInputError
from .places import take


class ControlCopies:
    """Temporary copies of ControlNets that hold the hints of some frames.

    The originals are shared with other nodes and keep a prepared hint between calls, so they are
    never changed. One original has one copy, however many conds use it, because ComfyUI runs conds
    in one batch only if they hold the same ControlNet object. Copies live until other frames are
    asked for, so their prepared hints last from step to step if the whole clip is one batch.
    """

    def __init__(self) -> None:
        self._frames: tuple[int, ...] | None = None
        self._copies: dict[int, tuple[object, object]] = {}

    def of(self, control, frames: Sequence[int], clip: int):
        """Return the copy of a ControlNet, and of those chained before it, for some frames.

        frames: their places in the clip. clip: the number of its frames.
        """
        if picks_its_rows(control):
            return control
        if tuple(frames) != self._frames:
            self._frames, self._copies = tuple(frames), {}
        if id(control) not in self._copies:
            # The original is kept with its copy, so that no other object can get its id.
            self._copies[id(control)] = (control, self._copy(control, frames, clip))
        return self._copies[id(control)][1]

    def _copy(self, control, frames: Sequence[int], clip: int):
        # Unlike control.copy(), copy.copy also copies what a sampling has already prepared
        # (timestep range, model sampling) and what subclasses add.
        twin = copy.copy(control)
        if type(twin) is T2IAdapter:
            twin.__class__ = CarefulT2IAdapter
        twin.cond_hint_original = _rows(control.cond_hint_original, frames, clip)
        twin.extra_concat_orig = [_rows(t, frames, clip) for t in control.extra_concat_orig]
        twin.cond_hint = None
        twin.extra_concat = None
        if makes_videos(control.vae):
            twin.vae = VAEOfPictures(control.vae)
        if control.previous_controlnet is not None:
            twin.previous_controlnet = self.of(control.previous_controlnet, frames, clip)
        return twin


class CarefulT2IAdapter(T2IAdapter):
    """A T2I-adapter for conds that are run in groups of different sizes.

    ComfyUI's own adapter makes its features once, for the first group (conds with hooks form their
    own group). If they do not fit another group, it logs a warning and leaves the adapter out.
    """

    def get_control(self, x_noisy, *args):
        """Return the adapter's features for a group. x_noisy: (rows, channels, height, width)."""
        if self.cond_hint is not None and self.cond_hint.shape[0] != x_noisy.shape[0]:
            self.control_input = None
        return super().get_control(x_noisy, *args)


class VAEOfPictures:
    """Stands in for a ControlNet's VAE that was made for video, and encodes hints one by one.

    Such a VAE takes a batch of hints for one video and compresses it over time. Then hints would
    share latents, and there would be fewer latents than frames.
    """

    def __init__(self, vae) -> None:
        self._vae = vae

    def __getattr__(self, name: str):
        return getattr(self._vae, name)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (hints, channels, 1, h, w). pixels: (hints, height, width, channels)."""
        return torch.cat([self._vae.encode(picture) for picture in pixels.split(1)])


def makes_videos(vae) -> bool:
    """Return whether a VAE, or None, takes a batch of pictures for one video."""
    return vae is not None and vae.latent_dim == 3 and not vae.not_video


def picks_its_rows(control) -> bool:
    """Return whether a ControlNet itself picks the hints of the frames that are run.

    Those of Advanced-ControlNet do so, by the frame numbers in transformer options. A copy of one
    would still run the original, because it holds bound methods of the original.
    """
    return hasattr(control, "sub_idxs")


def conds_of_frames(
    conds: Sequence[list[dict] | None], frames: Sequence[int], clip: int, controls: ControlCopies
) -> list[list[dict] | None]:
    """Cut the rows of some frames out of conds in the form that they have during a sampling.

    conds: one list of cond dicts per cond index, or None. frames: their places in the clip. clip:
    the number of its frames.
    """
    return [
        None if cond is None else [_cond_of_frames(entry, frames, clip, controls) for entry in cond]
        for cond in conds
    ]


def _cond_of_frames(cond: dict, frames: Sequence[int], clip: int, controls: ControlCopies) -> dict:
    cut = {key: _rows(value, frames, clip) for key, value in cond.items()}
    cut["model_conds"] = {
        key: _model_cond_rows(value, frames, clip) for key, value in cond["model_conds"].items()
    }
    if cond.get("control") is not None:
        cut["control"] = controls.of(cond["control"], frames, clip)
    return cut


def _model_cond_rows(model_cond, frames: Sequence[int], clip: int):
    """Cut rows out of one of ComfyUI's COND wrappers around tensors."""
    value = model_cond.cond
    if isinstance(value, list):
        return model_cond._copy_with([_rows(item, frames, clip) for item in value])
    rows = _rows(value, frames, clip)
    return model_cond if rows is value else model_cond._copy_with(rows)


def _rows(value, frames: Sequence[int], clip: int):
    """Return the rows of some frames if a tensor has one row per frame, else the value itself."""
    if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == clip > 1:
        return take(value, frames)
    return value


def conds_that_run(guider) -> dict[str, int]:
    """Return how many conds of each name a model evaluation runs.

    At cfg 1 the negative ones are left out.
    """
    counts = {name: len(conds) for name, conds in guider.original_conds.items()}
    plain = type(guider) is comfy.samplers.CFGGuider
    optimized = not guider.model_options.get("disable_cfg1_optimization", False)
    if plain and optimized and math.isclose(guider.cfg, 1.0):
        counts.pop("negative", None)
    return counts


def with_frame_masks(conds: list[dict], latent: torch.Tensor) -> list[dict]:
    """Return conds whose masks have one row per frame, also for latents with an axis of time.

    latent: (frames, channels, height, width), or (frames, channels, 1, height, width). For the
    latter ComfyUI takes the rows of a mask, (rows, height, width), for moments of one video.
    """
    if latent.ndim != 5:
        return conds
    return [
        {**cond, "mask": cond["mask"].unsqueeze(1)}
        if isinstance(cond.get("mask"), torch.Tensor) and cond["mask"].ndim == 3
        else cond
        for cond in conds
    ]


def name_conds(conds: Sequence[list[dict] | None]) -> dict[tuple[int, uuid.UUID], tuple[int, int]]:
    """Give each cond of one evaluation the address (cond index, position in its list).

    Returns this address for each (cond index, uuid), which is how ComfyUI labels the rows of a
    batch. If ComfyUI makes one cond from another, both have the same uuid. Then the later one in
    a list gets a new uuid here, so the dicts must belong to the caller.
    """
    names: dict[tuple[int, uuid.UUID], tuple[int, int]] = {}
    for index, cond in enumerate(conds):
        for position, entry in enumerate(cond or []):
            if (index, entry["uuid"]) in names:
                entry["uuid"] = uuid.uuid4()
            names[index, entry["uuid"]] = (index, position)
    return names


# Rows of a cond dict that come from the user, and the user's words for them.
_USER_ROWS = {
    "cross_attn": "prompts",
    "pooled_output": "pooled prompts",
    "mask": "masks",
    "concat_latent_image": "inpaint latents",
    "concat_mask": "inpaint masks",
}


def check_conditions(conds: dict[str, list[dict]], clip: int) -> None:
    """Refuse conditioning unless it has one row or one row per frame.

    conds: cond dicts by input name, as a guider has them. clip: the number of frames in the clip.
    Raises BadInputError for the first cond that does not fit.
    """
    for name, cond in conds.items():
        for entry in cond:
            for key, what in _USER_ROWS.items():
                value = entry.get(key)
                if isinstance(value, torch.Tensor) and not (key == "mask" and value.ndim == 2):
                    check_rows(value.shape[0], clip, what, name)
            for picture in entry.get("reference_latents") or ():
                check_rows(picture.shape[0], clip, "reference latents", name)
            _check_controls(entry.get("control"), clip, name)


def _check_controls(control, clip: int, name: str) -> None:
    """Check the hints of a chain of ControlNets. Raises BadInputError."""
    by_itself = False
    while control is not None:
        hints = [
            h for h in (control.cond_hint_original, *control.extra_concat_orig) if h is not None
        ]
        if picks_its_rows(control):
            by_itself = True
        elif by_itself and any(len(hint) > 1 for hint in hints):
            raise BadInputError(
                name,
                "a ControlNet with one hint per frame is chained before one of "
                "Advanced-ControlNet, which would give every batch the first hints.",
                "Apply both with Advanced-ControlNet's node, or swap them.",
            )
        else:
            for hint in hints:
                check_rows(hint.shape[0], clip, "ControlNet hints", name)
        control = control.previous_controlnet


def check_rows(rows: int, clip: int, what: str, name: str) -> None:
    """Raise BadInputError unless there is one row for all frames or one row per frame."""
    if rows not in (1, clip):
        raise BadInputError(
            name,
            f"it has {rows} {what} for a clip of {clip} frames.",
            f"Give 1 for all frames, or {clip}.",
        )
