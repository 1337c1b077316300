"""What a patched MODEL does inside each self-attention layer: attn1 patch and attn1 replacement.

`shared_projections.py` decides which layers do their work with the patch alone, and which with
both.
"""

from dataclasses import dataclass

import comfy.ldm.modules.attention
import torch

from ....attention import Layer, attend_to_rows
from ..model.carried import Carried, carried_in
from ..model.settings import KEY

# Where the patch leaves word for the replacement: in the dict that ComfyUI makes for one pass
# through one layer, and hands to both.
ROWS = f"{KEY}_rows"


@dataclass
class LayerCalls:
    """Counts what happens in the layers of a run, to notice a model call that went past them.

    reached: whether the model has come to an attn1 patch. unattended: how many layers have
    collected references and not attended to them yet.
    """

    reached: bool = False
    unattended: int = 0


# What is remembered changes with every call: nothing that a compiler may bake in.
@torch.compiler.disable
def attn1_patch(query, context, value, extra_options: dict):
    """attn1 patch: replace the tokens that keys and values are projected from.

    query, context, value: (rows, tokens, channels). Returns the three with context and value
    of (rows, k * tokens, channels); in shared layers (m, tokens, channels), each reference once.
    """
    carried = carried_in(extra_options)
    if carried is None or carried.evaluation is None:
        return query, context, value  # a call of the model outside of a sampling
    evaluation, calls = carried.evaluation, carried.run.calls
    calls.reached = True
    block, number = extra_options["block"]
    layer = Layer(block, number, extra_options["block_index"])
    labels = zip(extra_options["cond_or_uncond"], extra_options["uuids"])
    # A cond that another node's wrapper brings in later has no name; its label will do.
    entries = [evaluation.names.get(label, label) for label in labels]
    tokens = (context,) if value is context else (context, value)
    if layer in evaluation.shared:
        calls.unattended += 1
        tokens, extra_options[ROWS] = evaluation.collected(layer, entries, tokens)
    else:
        tokens = evaluation.gathered(layer, entries, tokens)
    return query, tokens[0], tokens[-1]


@torch.compiler.disable
def attn1_replacement(query, key, value, extra_options: dict):
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

    carried: Carried = extra_options[KEY]
    carried.run.calls.unattended -= 1
    return attend_to_rows(query, key, value, extra_options.pop(ROWS), attention)
