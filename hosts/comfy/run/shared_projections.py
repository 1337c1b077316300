"""Choose the layers in which the rows of a batch share the projections of their references.

Two ways lead to the same numbers. The *compatible* way uses only the attn1 patch: it gives every
row the hidden states of its references, and ComfyUI projects and attends as usual, whatever other
patches are there. (Weights need a mask as well, which the attn1 replacement adds.) In the *shared*
way the patch passes on every reference once, ComfyUI projects them, and an attn1 replacement lets
the rows attend to them together. It is chosen, layer by layer, if no other code stands between the
patch and the replacement.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ....attention import Layer
from ..errors import BadInputError
from ..model.carried import Carried, carried_in
from ..model.own_code import runs_comfyuis_forward
from ..model.settings import KEY, NODE
from ..model.unet import transformer_blocks
from .self_attention import attn1_patch, attn1_replacement

COMPILED = "torch.compile"  # the key of the wrapper that TorchCompileModel and others add


def without_replaced(layers: Iterable[Layer], transformer_options: dict) -> frozenset[Layer]:
    """Return those of the layers whose attention no patch has replaced."""
    replaced = transformer_options.get("patches_replace", {}).get("attn1", {})
    return frozenset(
        layer
        for layer in layers
        if tuple(layer) not in replaced and tuple(layer)[:2] not in replaced
    )


def share_projections(
    executor, x, t, c_concat, c_crossattn, control, transformer_options, *args, **kwargs
):
    """APPLY_MODEL wrapper: replace attention, for this call, in the layers where that is needed.

    This is done here and not earlier, because only now the options include what conds bring with
    them (hooks). Raises BadInputError or RuntimeError if the call bypassed cross-frame attention.
    """
    carried = carried_in(transformer_options)
    options = transformer_options
    if carried is not None and carried.evaluation is not None and not carried.evaluation.shared:
        options = _with_replaced_layers(options, executor.class_obj.diffusion_model)
    output = executor(x, t, c_concat, c_crossattn, control, options, *args, **kwargs)
    if options is not transformer_options:
        _check_attended(options)
    return output


@dataclass(frozen=True)
class SharedProjections:
    """Decides, for one sampling, in which layers rows may share projections.

    untouched: the layers that run ComfyUI's own code. Other packs put their code into blocks and
    classes. Such code may read what the attn1 patch returns, and then needs one row of it for every
    row of the batch.
    """

    untouched: frozenset[Layer]

    @classmethod
    def of(cls, unet) -> "SharedProjections":
        """Find the untouched layers of a U-Net, in its state during a sampling."""
        return cls(
            frozenset(
                layer
                for layer, block in transformer_blocks(unet)
                if runs_comfyuis_forward(block, "BasicTransformerBlock")
                and runs_comfyuis_forward(block.attn1, "CrossAttention")
                and not block.attn1._forward_hooks
                and not block.attn1._forward_pre_hooks
            )
        )

    def layers(self, wanted: Iterable[Layer], options: dict) -> frozenset[Layer]:
        """Return those of the wanted layers that are shared in a call with transformer options.

        Which layers other patches have replaced can differ from call to call, because some nodes
        call the model with their own patches. A patch that comes after ours expects one row of
        tokens for every row of the batch, so then no layer is shared.
        """
        patches = options.get("patches", {}).get("attn1_patch", [])
        if not patches or patches[-1] is not attn1_patch:
            return frozenset()
        return without_replaced(wanted, options) & self.untouched


def _with_replaced_layers(options: dict, unet) -> dict:
    """Return a copy of transformer options that has attention replaced where that is needed.

    That is in shared layers, and in all others if references have different weights.
    """
    carried: Carried = options[KEY]
    run, evaluation = carried.run, carried.evaluation
    if run.sharing is None:
        run.sharing = SharedProjections.of(unet)
    shared = run.sharing.layers(evaluation.layers, options)
    needed = shared
    if run.facts.order.logits:
        needed |= without_replaced(evaluation.layers, options)
    replaced = options.get("patches_replace", {})
    attn1 = {**replaced.get("attn1", {}), **{tuple(layer): attn1_replacement for layer in needed}}
    return {
        **options,
        KEY: replace(carried, evaluation=replace(evaluation, shared=shared)),
        "patches_replace": {**replaced, "attn1": attn1},
    }


def _check_attended(options: dict) -> None:
    """Raise an error if a model call bypassed cross-frame attention.

    Raises RuntimeError if a layer has not attended to its references as it should, BadInputError
    if a compiled model has never called the attn1 patch in this run. ComfyUI's node does not
    compile again if patches change, so code that was compiled without patches ignores them.
    """
    carried: Carried = options[KEY]
    calls = carried.run.calls
    if calls.unattended:
        raise RuntimeError(
            f"{NODE}: another node has kept {calls.unattended} layers of the model from attending "
            "to other frames as they should. Remove the nodes that patch the model, "
            "one after another, to find it."
        )
    if not calls.reached and COMPILED in options.get("wrappers", {}).get("apply_model", {}):
        raise BadInputError(
            "model",
            "it runs code that was compiled earlier for a MODEL without cross-frame attention.",
            "Take TorchCompileModel out of the branch without cross-frame attention, and restart "
            "ComfyUI.",
        )
