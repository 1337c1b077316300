"""Attach cross-frame attention to a MODEL.

What is attached, to a clone of the MODEL: frozen settings, one attn1 patch and six wrappers.
Patch and wrappers are plain functions without state (see `attn1.py` and `sampling.py`).
"""

from comfy.patcher_extension import WrappersMP

from ...attention import LAYER_SETS, Storage, reference_policy, with_scenes
from .errors import BadInputError
from .model.settings import BANK_DEVICES, KEY, NODE, Settings
from .model.unet import self_attention_layers
from .orders.per_step import evaluate_clip, predict_unwatched, run_sampler, run_sampling
from .run.budget import budget_memory
from .run.self_attention import attend, share_projections
from .state.continuation import state_at


def attach(
    model,
    references,
    include_self,
    layers,
    start_percent,
    end_percent,
    frames_per_batch,
    bank_device="with the model",
    bank_precision="as computed",
    scene_starts="",
    state=None,
    first_frame=0,
):
    """Return a clone of a MODEL with cross-frame attention; the MODEL itself stays as it is.

    references, layers: names in REFERENCES and LAYER_SETS. start_percent, end_percent: part
    of the denoising, 0 to 1. frames_per_batch: frames per model call, 0 for what fits.
    bank_device, bank_precision: where and how hidden states are kept, names in BANK_DEVICES and
    PRECISIONS. scene_starts: numbers of frames, as text. state: what frames before have left.
    first_frame: number of the latent's first frame, 0 for right after the state.
    Raises BadInputError if the range is empty, the model has no such layers, or already
    carries cross-frame attention, if scene_starts are no numbers, or first_frame does not fit.
    """
    if start_percent >= end_percent:
        raise BadInputError(
            NODE,
            "start_percent",
            f"the range from {start_percent} to {end_percent} is empty.",
            "Make start_percent smaller than end_percent.",
        )
    if KEY in model.model_options:
        raise BadInputError(
            NODE,
            "model",
            "it already carries cross-frame attention.",
            "Connect the MODEL from before the other CrossFrameAttention node.",
        )
    settings = Settings(
        policy=with_scenes(reference_policy(references, include_self), _frames(scene_starts)),
        layers=tuple(self_attention_layers(model, LAYER_SETS[layers], NODE)),
        start_percent=start_percent,
        end_percent=end_percent,
        frames_per_batch=frames_per_batch,
        storage=Storage(BANK_DEVICES[bank_device], bank_precision),
        state=state_at(state, first_frame, NODE),
    )
    return attach_settings(model, settings)


def _frames(text: str) -> list[int]:
    """Numbers of frames in a text such as "40, 95"."""
    words = text.replace(",", " ").split()
    if wrong := [word for word in words if not word.isdecimal()]:
        raise BadInputError(
            NODE,
            "scene_starts",
            f"'{wrong[0]}' is no number of a frame.",
            "Write whole numbers with commas between them, e.g. 40, 95; the first frame is 0.",
        )
    return [int(word) for word in words]


def attach_settings(model, settings: Settings):
    """Do `attach` with settings that are already resolved for this model."""
    patched = model.clone()
    patched.model_options[KEY] = settings
    patched.set_model_attn1_patch(attend)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, run_sampling)
    patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, run_sampler)
    patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, budget_memory)
    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_unwatched)
    patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, evaluate_clip)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, share_projections)
    return patched
