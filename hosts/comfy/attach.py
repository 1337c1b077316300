"""Attach cross-frame attention or fusion, or both, to a MODEL.

A clone of the MODEL gets frozen settings and five wrappers. For attention it gets one wrapper more
and, if it is a U-Net, one attn1 patch.
Patch and wrappers are plain functions without state (see `run/self_attention.py`,
`run/joint_attention.py`, `orders/wrappers.py`).
"""

from dataclasses import dataclass, replace
from typing import Any

from comfy.patcher_extension import WrappersMP

from ...attention import LAYER_SETS, LayerSet, Storage, Weights, with_scenes
from ...motion import Motion
from ...motion.background import BackgroundMotion
from .errors import BadInputError
from .model.carried import Carried, carried_by
from .model.motion import checked_foreground, checked_motion, fused_keyframes
from .model.policy import chosen_policy, frames_in
from .model.settings import BANK_DEVICES, FUSION_NODE, KEY, NODE, FusionChoice, Settings
from .model.transformer import check_family
from .model.unet import Attn1, is_unet, self_attention_layers
from .orders.evaluation import change_prediction, evaluate_clip
from .orders.wrappers import run_sampler, run_sampling
from .run.joint_attention import attend_in_pass
from .run.memory import ask_for_memory
from .run.self_attention import attn1_patch
from .run.shared_projections import share_projections
from .state.continuation import state_at


@dataclass(frozen=True)
class Choice:
    """What the user chose on the node, as the node's inputs give it.

    references, layers: names in REFERENCES and LAYER_SETS. start_percent, end_percent: the part
    of the denoising, 0 to 1. frames_per_batch: frames per model call; 0 means as many as fit.
    bank_device, bank_precision: where and how hidden states are kept, names in BANK_DEVICES and
    PRECISIONS. scene_starts, keyframes: numbers of frames, as text. first_weight, previous_weight,
    self_weight: factors on the softmax mass of these frames' keys. state: what earlier frames have
    left. first_frame: the number of the latent's first frame; 0 means right after the state.
    """

    references: str
    include_self: bool
    layers: str
    start_percent: float
    end_percent: float
    frames_per_batch: int
    bank_device: str = "with the model"
    bank_precision: str = "as computed"
    scene_starts: str = ""
    state: Any = None
    first_frame: int = 0
    keyframes: str = ""
    first_weight: float = 1.0
    previous_weight: float = 1.0
    self_weight: float = 1.0


def attach(model, choice: Choice):
    """Return a clone of a MODEL with cross-frame attention; the MODEL itself stays as it is.

    Raises BadInputError if the range is empty, if the model has no such layers or already carries
    cross-frame attention, if scene_starts or keyframes contain anything but numbers, if a weight or
    a keyframe would do nothing, or if first_frame does not fit the state.
    """
    if choice.start_percent >= choice.end_percent:
        raise BadInputError(
            "start_percent",
            f"the range from {choice.start_percent} to {choice.end_percent} is empty.",
            "Make start_percent smaller than end_percent.",
        )
    carried = carried_by(model.model_options)
    if carried is not None and carried.settings.attends:
        raise BadInputError(
            "model",
            "it already carries cross-frame attention.",
            f"Connect the MODEL from before the other {NODE} node.",
        )
    weights = Weights(choice.first_weight, choice.previous_weight, choice.self_weight)
    policy = chosen_policy(choice.references, choice.include_self, weights, choice.keyframes)
    settings = Settings(
        policy=with_scenes(policy, frames_in("scene_starts", choice.scene_starts)),
        layer_set=choice.layers,
        layers=_layers(model, LAYER_SETS[choice.layers]),
        start_percent=choice.start_percent,
        end_percent=choice.end_percent,
        frames_per_batch=choice.frames_per_batch,
        storage=Storage(BANK_DEVICES[choice.bank_device], choice.bank_precision),
        state=state_at(choice.state, choice.first_frame),
        fusion=None if carried is None else carried.settings.fusion,
    )
    return attach_settings(model, settings)


def _layers(model, layer_set: LayerSet) -> tuple[Attn1, ...] | None:
    """Return the layers of a U-Net, or None for a transformer, whose layers are found later."""
    if is_unet(model):
        return tuple(self_attention_layers(model, layer_set))
    check_family(model)
    return None


@dataclass(frozen=True)
class ChosenFusion:
    """What the user chose on the CrossFrameFusion node, as the node's inputs give it.

    motion: what CrossFrameMotion has made. keyframes: numbers of frames, as text; if it is empty,
    they are those that the motion comes with. foreground: a MASK of what is not fused, (1 or
    frames, height, width), or None. For the others see `FusionChoice`.
    """

    motion: Any
    strength: float
    start_percent: float
    end_percent: float
    to: str
    keyframes: str = ""
    end_strength: float = 0.5
    foreground: Any = None


def attach_fusion(model, choice: ChosenFusion):
    """Return a clone of a MODEL whose frames are fused; the MODEL itself stays as it is.

    Raises BadInputError if the range is empty, if the model is already fused, if keyframes contain
    anything but numbers or nobody is fused to them, if there is no motion, or if the foreground has
    neither one row nor one per frame.
    """
    if choice.start_percent >= choice.end_percent:
        raise BadInputError(
            "start_percent",
            f"the range from {choice.start_percent} to {choice.end_percent} is empty.",
            "Make start_percent smaller than end_percent.",
        )
    carried = carried_by(model.model_options)
    if carried is not None and carried.settings.fusion is not None:
        raise BadInputError(
            "model",
            "its frames are already fused.",
            f"Connect the MODEL from before the other {FUSION_NODE} node.",
        )
    if not is_unet(model):
        check_family(model)
    fusion = FusionChoice(
        _motion_to_follow(choice),
        choice.strength,
        choice.start_percent,
        choice.end_percent,
        choice.to,
        fused_keyframes(choice.to, choice.keyframes, choice.motion),
        are_named=bool(choice.keyframes.strip()),
        end_strength=choice.end_strength,
    )
    if carried is None:
        return attach_settings(model, Settings.without_attention(fusion))
    return attach_settings(model, replace(carried.settings, fusion=fusion))


def _motion_to_follow(choice: ChosenFusion) -> Motion:
    """Return the motion that is trusted where frames are to be fused."""
    motion = checked_motion(choice.motion)
    if choice.foreground is None:
        return motion
    return BackgroundMotion(motion, checked_foreground(choice.foreground, motion.frames))


def attach_settings(model, settings: Settings):
    """Attach settings that are already resolved for this model, as `attach` does.

    If the model carries settings already, these take their place.
    """
    patched, before = model.clone(), carried_by(model.model_options)
    patched.model_options.setdefault("transformer_options", {})[KEY] = Carried(settings)
    if before is None:
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, run_sampling)
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, run_sampler)
        patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, ask_for_memory)
        patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, change_prediction)
        patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, evaluate_clip)
    if not settings.attends or (before is not None and before.settings.attends):
        return patched
    if settings.layers is not None:
        patched.set_model_attn1_patch(attn1_patch)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, share_projections)
    else:
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, attend_in_pass)
    return patched
