"""What a patched MODEL does inside each self-attention layer: attn1 patch and attn1 replacement.

Two ways lead to the same numbers. The *compatible* one is the attn1 patch alone: it hands every
row the hidden states of its references, and ComfyUI projects and attends as ever, whatever other
patches are there. In the *shared* one the patch hands on every reference once, ComfyUI projects
them, and an attn1 replacement lets the rows attend to them together. It is taken, layer by layer,
where nobody else stands between the two.
"""

from collections.abc import Iterable
from dataclasses import replace

import comfy.ldm.modules.attention
import torch

from ....attention import Layer, attend_to_rows
from ..errors import BadInputError
from ..model.own_code import runs_comfyuis_forward
from ..model.settings import KEY, NODE
from ..model.unet import transformer_blocks
from .comfy_run import ComfyEvaluation

# Where the patch leaves word for the replacement: in the dict that ComfyUI makes for one pass
# through one layer, and hands to both.
ROWS = f"{KEY}_rows"
COMPILED = "torch.compile"  # key of the wrapper that TorchCompileModel and others add


def without_replaced(layers: Iterable[Layer], transformer_options: dict) -> frozenset[Layer]:
    """Those of the layers whose attention no patch has replaced."""
    replaced = transformer_options.get("patches_replace", {}).get("attn1", {})
    return frozenset(
        layer
        for layer in layers
        if tuple(layer) not in replaced and tuple(layer)[:2] not in replaced
    )


def share_projections(
    executor, x, t, c_concat, c_crossattn, control, transformer_options, *args, **kwargs
):
    """APPLY_MODEL wrapper: replace attention, for this call, in the layers that may be shared.

    Here, and not earlier, because what conds bring with them (hooks) has joined in by now.
    Raises BadInputError or RuntimeError if the call went past cross-frame attention.
    """
    evaluation = transformer_options.get(KEY)
    if not isinstance(evaluation, ComfyEvaluation) or evaluation.shared:
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, *args, **kwargs)
    unet = executor.class_obj.diffusion_model
    options = _with_shared_layers(transformer_options, evaluation, unet)
    output = executor(x, t, c_concat, c_crossattn, control, options, *args, **kwargs)
    _check_attended(options)
    return output


def _with_shared_layers(options: dict, evaluation: ComfyEvaluation, unet) -> dict:
    """Transformer options in which attention is replaced where nobody else has a say in it."""
    if not _may_share(options):
        return options
    free = without_replaced(evaluation.layers, options) & _untouched(unet)
    replaced = options.get("patches_replace", {})
    attn1 = {**replaced.get("attn1", {}), **{tuple(layer): attend_shared for layer in free}}
    return {
        **options,
        KEY: replace(evaluation, shared=free),
        "patches_replace": {**replaced, "attn1": attn1},
    }


def _untouched(unet) -> frozenset[Layer]:
    """Layers that run ComfyUI's own code: other packs put theirs into blocks and classes.

    Theirs may read what the attn1 patch returns, which must then have a row for every row.
    """
    return frozenset(
        layer
        for layer, block in transformer_blocks(unet)
        if runs_comfyuis_forward(block, "BasicTransformerBlock")
        and runs_comfyuis_forward(block.attn1, "CrossAttention")
        and not block.attn1._forward_hooks
        and not block.attn1._forward_pre_hooks
    )


def _may_share(options: dict) -> bool:
    """Whether what the attn1 patch returns goes straight to the projections.

    A patch that comes after ours expects one row of tokens for every row of the batch.
    """
    patches = options.get("patches", {}).get("attn1_patch", [])
    return bool(patches) and patches[-1] is attend


def _check_attended(options: dict) -> None:
    """Raise an error if a model call did not do in its layers what it should have done.

    RuntimeError if references were collected and nobody attended to them. BadInputError if a
    compiled model has never come to an attn1 patch in this run: ComfyUI's node compiles without
    looking at patches again, so that what was compiled for a MODEL without any goes on so.
    """
    run = options[KEY].run
    if run.unattended:
        raise RuntimeError(
            f"{NODE}: another node has kept {run.unattended} layers of the model from attending "
            "to the frames that were collected for them; take out the nodes that patch the model "
            "one after the other to find it"
        )
    if not run.reached and COMPILED in options.get("wrappers", {}).get("apply_model", {}):
        raise BadInputError(
            NODE,
            "model",
            "it runs code that was compiled earlier for a MODEL without cross-frame attention.",
            "Take TorchCompileModel out of the branch without cross-frame attention, and restart "
            "ComfyUI.",
        )


# What is remembered changes with every call: nothing a compiler may bake in.
@torch.compiler.disable
def attend(query, context, value, extra_options: dict):
    """attn1 patch: replace the tokens that keys and values are projected from.

    query, context, value: (rows, tokens, channels). Returns the three with context and value
    of (rows, k * tokens, channels); in shared layers (m, tokens, channels), each reference once.
    """
    evaluation = extra_options.get(KEY)
    if not isinstance(evaluation, ComfyEvaluation):
        return query, context, value  # a call of the model outside of a sampling
    evaluation.run.reached = True
    layer = Layer(*extra_options["block"], extra_options["block_index"])
    labels = zip(extra_options["cond_or_uncond"], extra_options["uuids"])
    # A cond that another node's wrapper brings in later has no name; its label will do.
    entries = [evaluation.names.get(label, label) for label in labels]
    tokens = (context,) if value is context else (context, value)
    if layer in evaluation.shared:
        evaluation.run.unattended += 1
        tokens, extra_options[ROWS] = evaluation.collect(layer, entries, tokens)
    else:
        tokens = evaluation.attend(layer, entries, tokens)
    return query, tokens[0], tokens[-1]


@torch.compiler.disable
def attend_shared(query, key, value, extra_options: dict):
    """attn1 replacement: every row attends to its references, which were projected once.

    query: (rows, q, channels). key, value: (m, tokens, channels). Returns (rows, q, channels),
    by whatever attention ComfyUI was started with, or another node has put in its place.
    """

    def attention(queries, keys, values):
        # Looked up at every call: there are packs that put another function there.
        return comfy.ldm.modules.attention.optimized_attention(
            queries,
            keys,
            values,
            extra_options["n_heads"],
            attn_precision=extra_options["attn_precision"],
            transformer_options=extra_options,
        )

    extra_options[KEY].run.unattended -= 1
    return attend_to_rows(query, key, value, extra_options.pop(ROWS), attention)
