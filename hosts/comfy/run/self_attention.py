"""The attn1 patch and the attn1 replacement, which act inside the self-attention layers.

`shared_projections.py` decides which layers use only the patch, and which use both: those in which
rows share projections, and all others whose references have different weights.
"""

from dataclasses import dataclass

import comfy.ldm.modules.attention
import torch

from ....attention import Layer, attend_to_rows
from ....attention.bank import Tokens
from ....attention.compose import bias_mask
from ..model.carried import Carried, carried_in
from ..model.settings import KEY

# The keys under which the patch leaves data for the replacement, in the dict that ComfyUI makes for
# one pass through one layer and gives to both.
ROWS = f"{KEY}_rows"
BIASES = f"{KEY}_biases"


@dataclass
class LayerCalls:
    """Records what happens in the layers of a run, to notice a model call that bypasses them.

    reached: whether the model has called the attn1 patch. unattended: for how many layers the patch
    has left data that the replacement has not taken yet.
    """

    reached: bool = False
    unattended: int = 0


# The run changes with every call, so a compiler must not treat it as constant.
@torch.compiler.disable
def attn1_patch(query, context, value, extra_options: dict):
    """attn1 patch: replace the tokens that keys and values are projected from.

    query, context, value: (rows, tokens, channels). Returns the three, with context and value of
    shape (rows, k * tokens, channels). In shared layers their shape is (m, tokens, channels), with
    each reference once.
    """
    carried = carried_in(extra_options)
    if carried is None or carried.evaluation is None:
        return query, context, value  # the model is called outside of a sampling
    carried.run.calls.reached = True
    tokens = reference_tokens(context, value, extra_options)
    return query, tokens[0], tokens[-1]


def reference_tokens(context, value, extra_options: dict) -> Tokens:
    """Return the tokens that an attn1's keys and values are projected from, one tensor or two.

    They are as `attn1_patch` says. What the replacement needs besides is left in the options.
    """
    carried: Carried = extra_options[KEY]
    evaluation = carried.evaluation
    block, number = extra_options["block"]
    layer = Layer(block, number, extra_options["block_index"])
    entries = evaluation.entries(extra_options)
    tokens = (context,) if value is context else (context, value)
    if layer in evaluation.shared:
        tokens, extra_options[ROWS], biases = evaluation.collected(layer, entries, tokens)
    else:
        tokens, biases = evaluation.gathered(layer, entries, tokens)
    if biases is not None:
        extra_options[BIASES] = biases
    if layer in evaluation.shared or biases is not None:
        carried.run.calls.unattended += 1
    return tokens


@torch.compiler.disable
def attn1_replacement(query, key, value, extra_options: dict):
    """attn1 replacement: let every row attend to its references, with their weights.

    query: (rows, q, channels). key, value: (m, tokens, channels) in shared layers, in which each
    reference was projected once; else (rows, k * tokens, channels). Returns (rows, q, channels). It
    uses the attention that ComfyUI was started with, or that another node has put in its place.
    """

    def attention(queries, keys, values, mask):
        # It is looked up at every call, because some packs put another function there.
        return comfy.ldm.modules.attention.optimized_attention(
            queries,
            keys,
            values,
            extra_options["n_heads"],
            mask=mask,
            attn_precision=extra_options["attn_precision"],
            transformer_options=extra_options,
        )

    carried: Carried = extra_options[KEY]
    rows, biases = extra_options.pop(ROWS, None), extra_options.pop(BIASES, None)
    if rows is not None:
        carried.run.calls.unattended -= 1
        return attend_to_rows(query, key, value, rows, attention, biases)
    if biases is None:
        return attention(query, key, value, None)
    carried.run.calls.unattended -= 1
    return attention(query, key, value, bias_mask(biases, key.shape[1] // len(biases[0]), query))
