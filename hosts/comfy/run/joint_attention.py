"""What happens in the attention layers of a diffusion transformer while a clip is sampled.

ComfyUI sends every call of attention through one function in its options, if there is one
(`optimized_attention_override`). For the time of one pass through the model, the function of this
module stands there. It lets the picture's tokens attend to the references and leaves everything
else to the function that stood there before, or to ComfyUI.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....attention import Layer
from ....attention.joint import KeysAndValues, attend_jointly
from ..errors import BadInputError
from ..model.carried import Carried, carried_in
from ..model.settings import KEY
from .token_layout import (
    UNNAMED,
    Arguments,
    CallCounter,
    ImageLayer,
    KnownPass,
    Pass,
    Recorder,
    compared,
    form_of,
)

OVERRIDE = "optimized_attention_override"
# What ComfyUI itself writes into transformer options for every call of a model.
_OF_COMFYUI = ("sample_sigmas", "sigmas", "cond_or_uncond", "uuids")


# The run changes with every call, so a compiler must not treat it as constant.
@torch.compiler.disable
def override(function: Callable, *args, **kwargs) -> Tensor:
    """ComfyUI's attention override: let what is carried attend, or note the call in a trial.

    function: ComfyUI's attention function. The other arguments are those of that function.
    """
    carried: Carried = kwargs["transformer_options"][KEY]
    result: Tensor = carried.model_pass.attend(function, Arguments.of(*args, **kwargs))
    return result


@dataclass
class JointPass:
    """One pass through the model for known rows.

    evaluation: the `ComfyEvaluation` of these rows. known: what is known of passes of this form.
    entries: the cond entries of the batch. previous: the override that stood there before, or None.
    reached: the layers of the evaluation that have attended.
    """

    evaluation: Any
    known: KnownPass
    entries: Sequence[Hashable]
    previous: Callable | None
    counter: CallCounter = field(default_factory=CallCounter)
    reached: set[Layer] = field(default_factory=set)

    def attend(self, function: Callable, arguments: Arguments) -> Tensor:
        """Compute one call of attention. Raises BadInputError if its sequences are unknown."""
        inner = function if self.previous is None else partial(self.previous, function)

        def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
            rest, named = arguments.rest, arguments.named
            result: Tensor = inner(query, key, value, arguments.heads, mask, *rest, **named)
            return result

        query, key, value, mask = arguments.query, arguments.key, arguments.value, arguments.mask
        layer = self._layer(arguments)
        if layer is None or layer.address not in self.evaluation.layers:
            return plain(query, key, value, mask)
        self.reached.add(layer.address)
        rows = [tuple(views) for views in zip(_views(key, layer), _views(value, layer))]
        attended, biases = self.evaluation.attended(
            layer.address, self.entries, rows, layer.layout.keys.length
        )
        if all(len(found) == 1 and found[0] is own for found, own in zip(attended, rows)):
            return plain(query, key, value, mask)
        references = [[_whole(tokens, layer) for tokens in of_row] for of_row in attended]
        return attend_jointly(query, key, value, mask, layer.layout, references, plain, biases)

    def _layer(self, arguments: Arguments) -> ImageLayer | None:
        """Return the layer of the picture that a call belongs to, or None."""
        options = arguments.named["transformer_options"]
        call = self.counter.next(options)
        if call not in self.known.calls:  # another node runs the network once more
            self.counter = CallCounter()
            call = self.counter.next(options)
        tokens = (tensor.shape[arguments.axis] for tensor in (arguments.query, arguments.key))
        try:
            return self.known.layer(call, *tokens)
        except LookupError as error:
            raise BadInputError(
                "model",
                f"another node changes the sequences of the model's attention ({error}).",
                "Remove the nodes that patch the model, one after another, to find it.",
            ) from error

    def check_reached(self, options: dict) -> None:
        """Raise BadInputError if layers that should have attended were bypassed.

        A node may leave out blocks in one pass (Skip Layer Guidance). options: those of the pass.
        """
        expected = self.known.addresses()
        missed = (expected & self.evaluation.layers) - self.reached
        if not missed:
            self.known.worked = True
        elif not self.reached and self.known.worked:
            return  # a cache (EasyCache, ...) has left out the whole network at this step
        replaced = options.get("patches_replace", {}).get("dit", {})
        if replaced and any(layer.block == UNNAMED for layer in missed):
            if expected <= self.evaluation.layers:
                return
            raise BadInputError(
                "layers",
                "another node leaves out blocks of the model, and in this family of models nothing "
                "tells which layers are left.",
                "Choose 'all', or remove that node.",
            )
        missed = {m for m in missed if (f"{m.block}_block", m.number) not in replaced}
        if missed:
            raise BadInputError(
                "model",
                f"another node keeps {len(missed)} of {len(expected)} layers of the model from "
                "looking at other frames.",
                "Remove the nodes that patch the model, one after another, to find it.",
            )


def _views(tensor: Tensor, layer: ImageLayer) -> Iterator[Tensor]:
    """Yield the picture's tokens of each row, as views, with each repeated head once.

    tensor: keys or values, (rows, heads, tokens, channels) or (rows, tokens, heads * channels).
    """
    span = layer.layout.keys
    image = tensor.narrow(layer.layout.axis, span.start, span.length)
    if layer.repeats > 1:
        image = image[:, :: layer.repeats]
    return iter(image.unbind(0))


def _whole(tokens: Sequence[Tensor], layer: ImageLayer) -> KeysAndValues:
    """Return keys and values with all heads, (heads, tokens, channels) or (tokens, channels)."""
    if layer.repeats == 1:
        key, value = tokens
    else:
        key, value = (tensor.repeat_interleave(layer.repeats, dim=0) for tensor in tokens)
    return key, value


def attend_in_pass(
    executor, x, t, c_concat, c_crossattn, control, transformer_options, *args, **kwargs
):
    """APPLY_MODEL wrapper: let a transformer's layers attend to other frames in this pass.

    x: (rows, channels, ..., height, width). Raises BadInputError if layers were bypassed.
    """

    def run(executor, options):
        return executor(x, t, c_concat, c_crossattn, control, options, *args, **kwargs)

    carried = carried_in(transformer_options)
    if carried is None or (carried.evaluation is None and carried.model_pass is None):
        return run(executor, transformer_options)
    form = form_of(x, c_concat, c_crossattn, args, kwargs)
    if isinstance(carried.model_pass, Recorder):
        carried.model_pass.begin(x, form)
        return run(executor, transformer_options)
    layouts = carried.run.layouts
    if form not in layouts.measured:  # another node changes what the model is given

        def trial(latent, options):
            options[KEY].model_pass.begin(latent, form)
            arguments = t, c_concat, c_crossattn, None, options
            return executor.original(latent, *arguments, *args, **kwargs)

        layouts.add(tried(trial, x, carried, transformer_options))
    entries = carried.evaluation.entries(transformer_options)
    previous = transformer_options.get(OVERRIDE)
    model_pass = JointPass(carried.evaluation, layouts.measured[form], entries, previous)
    options = {
        **transformer_options,
        KEY: replace(carried, model_pass=model_pass),
        OVERRIDE: override,
    }
    output = run(executor, options)
    model_pass.check_reached(options)
    return output


def tried(run: Callable, x: Tensor, carried: Carried, options: dict) -> list[Pass]:
    """Run a model twice on different latents, and return what that shows of its tokens.

    run: a function of latents and transformer options. x: latents to begin with. options: those of
    the sampling; nothing of other nodes in them is used. Raises BadInputError.
    """
    x = x.nan_to_num(0, 0, 0)
    recorders = Recorder(), Recorder()
    for recorder, latent in zip(recorders, (x, _other(x)), strict=True):
        recording = replace(carried, evaluation=None, model_pass=recorder)
        run(latent, {**_of_comfyui(options), KEY: recording, OVERRIDE: override})
    return compared(*recorders)


def _of_comfyui(options: dict) -> dict:
    """Return transformer options without what nodes have put there, but with our own wrapper."""
    return {
        **{name: options[name] for name in _OF_COMFYUI if name in options},
        "wrappers": {WrappersMP.APPLY_MODEL: {KEY: [attend_in_pass]}},
    }


def _other(x: Tensor) -> Tensor:
    """Return latents that differ from these everywhere."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x + noise.to(x) * x.std().clamp(min=1)
