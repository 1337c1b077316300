"""Find out which tokens of which attention calls belong to the picture, by trying the model.

Families of diffusion transformers differ in where the tokens of the picture lie in a sequence:
before the text or after it, before or after reference pictures, with padding or without. A slice
that is a few tokens off fails silently. So it is measured, on the user's model with the user's
prompts: the model is run twice, with two latents. The tokens that differ are those of the picture.

In these two runs attention returns zeros. Then no token learns anything of the others, however deep
the layer, and what differs is the picture's own. Such a run also costs far less than an ordinary
one, and it needs one frame only.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ....attention import LAYER_SETS, Layer, Storage
from ....attention.joint import Layout, Span
from ..errors import BadInputError
from ..model.settings import NODE

# So many random numbers stand for a token, so that two different tokens are never taken for equal.
DIGEST = 8
# A processor may round the same token differently next to other ones, though by far less than this.
SAME = 1e-4
# The kind of block in families that do not tell which block is running.
UNNAMED = "layer"


class CallId(NamedTuple):
    """What identifies a call of attention within one pass through the model.

    block: the kind of block, or UNNAMED. number: the block's number, or the number of the call
    among the unnamed ones. visit: the number of the call in its block.
    """

    block: str
    number: int
    visit: int


class CallCounter:
    """Names the calls of attention in one pass through the model, in their order."""

    def __init__(self) -> None:
        self._unnamed = 0
        self._visits: dict[tuple[str, int], int] = {}

    def next(self, transformer_options: dict) -> CallId:
        """Return the name of the next call, which has these options."""
        number = transformer_options.get("block_index")
        if number is None:
            self._unnamed += 1
            return CallId(UNNAMED, self._unnamed - 1, 0)
        block = (transformer_options.get("block_type", "block"), number)
        visit = self._visits[block] = self._visits.get(block, -1) + 1
        return CallId(*block, visit)


class Arguments(NamedTuple):
    """The arguments of a call of one of ComfyUI's attention functions.

    query, key, value: (rows, heads, tokens, channels) if skip_reshape, else (rows, tokens, heads *
    channels). mask: None or a tensor. rest, named: all other arguments.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    heads: int
    mask: Tensor | None
    rest: tuple
    named: dict

    @classmethod
    def of(cls, query, key, value, heads, mask=None, *rest, **named) -> "Arguments":
        """Take the arguments as an attention function takes them."""
        return cls(query, key, value, heads, mask, rest, named)

    @property
    def axis(self) -> int:
        """The axis of tokens in queries, keys and values."""
        return 2 if self.named.get("skip_reshape", False) else 1

    @property
    def out_axis(self) -> int:
        """The axis of tokens in the result."""
        return 2 if self.named.get("skip_output_reshape", False) else 1

    def zeros(self) -> Tensor:
        """Return zeros in the shape of the result."""
        rows, tokens = self.query.shape[0], self.query.shape[self.axis]
        channels = self.value.shape[-1]
        if self.axis == 1:
            channels = self.query.shape[-1] // self.heads
        if self.out_axis == 2:
            return self.query.new_zeros(rows, self.heads, tokens, channels)
        return self.query.new_zeros(rows, tokens, self.heads * channels)


@dataclass(frozen=True)
class ImageLayer:
    """A self-attention layer in which tokens of the picture attend to tokens of the picture.

    address: its address. layout: where the picture's tokens lie. repeats: how many neighbouring
    heads have the same keys and values. shapes: those of a row's keys and values of the picture, as
    they are kept. itemsize: the bytes of one number.
    """

    address: Layer
    layout: Layout
    repeats: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    itemsize: int

    def nbytes(self, storage: Storage) -> int:
        """Return the bytes of the keys and values of one row in a storage."""
        return sum(
            math.prod(vectors) * storage.bytes_per_token(channels, self.itemsize)
            for *vectors, channels in self.shapes
        )


# The form of what a model is given in one pass; see `form_of`.
Form = tuple[Any, ...]


def form_of(*inputs: Any) -> Form:
    """Return the form of what a model is given: the shapes of tensors without rows, and numbers.

    Conds of one form have their tokens in the same places: text of one length, and as many
    reference pictures of the same sizes.
    """
    return tuple(_form(value) for value in inputs)


def _form(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape[1:])
    if isinstance(value, (list, tuple)):
        return form_of(*value)
    if isinstance(value, dict):
        return form_of(*(item for pair in sorted(value.items()) for item in pair))
    return value if isinstance(value, (int, str)) else type(value).__name__


@dataclass
class KnownPass:
    """What is known of passes of one form through the model.

    layers: the layers by the name of their call, and by its numbers of queries and keys. calls: the
    names of all calls. worked: whether all layers have attended in such a pass.
    """

    layers: dict[CallId, dict[tuple[int, int], ImageLayer]] = field(default_factory=dict)
    calls: set[CallId] = field(default_factory=set)
    worked: bool = False

    def layer(self, call: CallId, q_tokens: int, k_tokens: int) -> ImageLayer | None:
        """Return the layer of a call, or None if the picture is not in it.

        Raises LookupError if the call has other numbers of tokens than the model showed in trial.
        """
        layers = self.layers.get(call, {})
        if not layers or (q_tokens, k_tokens) in layers:
            return layers.get((q_tokens, k_tokens))
        known = ", ".join(f"{keys} for {queries}" for queries, keys in layers)
        raise LookupError(
            f"{k_tokens} keys for {q_tokens} queries in {call.block} {call.number}, where the "
            f"model by itself has {known}"
        )

    def addresses(self) -> frozenset[Layer]:
        """Return the addresses of the layers."""
        found = self.layers.values()
        return frozenset(layer.address for layers in found for layer in layers.values())


@dataclass
class TokenLayouts:
    """What is known of the attention layers of a model in one run.

    layers: the addresses of all layers of the picture, in the order of the forward pass. measured:
    what is known of passes, by their form. conds: the conds that have been tried, (cond index,
    position). passes: those in which they were tried with one frame.
    """

    layers: tuple[Layer, ...] = ()
    measured: dict[Form, KnownPass] = field(default_factory=dict)
    conds: set[tuple[int, int]] = field(default_factory=set)
    passes: list["Pass"] = field(default_factory=list)

    def chosen(self, layer_set: str) -> frozenset[Layer]:
        """Return the addresses of the layers in a layer set. layer_set: a name in LAYER_SETS."""
        return frozenset(LAYER_SETS[layer_set].of_transformer(self.layers))

    def frame_bytes(self, layer_set: str, storage: Storage) -> int:
        """Return the bytes that one frame leaves in one evaluation with all conds tried so far."""
        chosen = self.chosen(layer_set)
        return sum(
            layer.nbytes(storage)
            for tried in self.passes
            for layer in tried.layers.values()
            if layer.address in chosen
        )

    def add(self, passes: Iterable["Pass"]) -> None:
        """Take in what trial runs have shown."""
        addresses = dict.fromkeys(self.layers)
        for tried in passes:
            known = self.measured.setdefault(tried.form, KnownPass())
            known.calls |= tried.calls
            for call, layer in tried.layers.items():
                lengths = layer.layout.q_tokens, layer.layout.k_tokens
                known.layers.setdefault(call, {})[lengths] = layer
                addresses[layer.address] = None
        self.layers = tuple(addresses)


class Seen(NamedTuple):
    """What a trial run keeps of one call of attention.

    query, key: a digest of each token, (tokens, DIGEST). axes: `axis` and `out_axis` of its
    arguments. repeats: how many neighbouring heads are the same. shapes: those of a row's keys and
    values. itemsize: the bytes of one number.
    """

    query: Tensor
    key: Tensor
    axes: tuple[int, int]
    repeats: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    itemsize: int


@dataclass
class Pass:
    """What two trial runs show of one pass through the model."""

    form: Form
    layers: dict[CallId, ImageLayer]
    calls: set[CallId]


class RecordedPass(NamedTuple):
    """What a trial run keeps of one pass.

    shape: that of the latents. calls: calls of attention over all rows. names: of all calls.
    """

    form: Form
    shape: torch.Size
    calls: dict[CallId, Seen]
    names: set[CallId]


class Recorder:
    """Records a trial run: every call of attention returns zeros, and its tokens are noted."""

    def __init__(self) -> None:
        self.passes: list[RecordedPass] = []
        self._counter = CallCounter()

    def begin(self, x: Tensor, form: Form) -> None:
        """Begin a pass of a form. x: its latents, (rows, channels, ..., height, width)."""
        self._counter = CallCounter()
        self.passes.append(RecordedPass(form, x.shape, {}, set()))

    def attend(self, function: Callable, arguments: Arguments) -> Tensor:
        """Note a call of attention and return zeros."""
        call = self._counter.next(arguments.named.get("transformer_options") or {})
        self.passes[-1].names.add(call)
        key = arguments.key
        if arguments.query.shape[0] == key.shape[0] == self.passes[-1].shape[0]:
            self.passes[-1].calls[call] = Seen(
                _digest(arguments.query[0], arguments.axis),
                _digest(key[0], arguments.axis),
                (arguments.axis, arguments.out_axis),
                _repeats(arguments),
                (tuple(key.shape[1:]), tuple(arguments.value.shape[1:])),
                key.element_size(),
            )
        return arguments.zeros()


def _digest(row: Tensor, axis: int) -> Tensor:
    """Return a few numbers for each token of a row, (tokens, DIGEST) on the CPU.

    row: (tokens, channels), or (heads, tokens, channels) for axis 2.
    """
    tokens = row.transpose(0, 1).flatten(1) if axis == 2 else row  # (tokens, heads * channels)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(tokens.shape[1], DIGEST, generator=generator)
    return (tokens.float() @ directions.to(tokens.device)).cpu()


def _repeats(arguments: Arguments) -> int:
    """Return how many neighbouring heads have the same keys and the same values."""
    if arguments.axis == 1:
        return 1
    key, value = arguments.key[0], arguments.value[0]  # (heads, tokens, channels)
    heads = len(key)
    for repeats in range(heads, 1, -1):
        if heads % repeats == 0 and all(_repeat(tensor, repeats) for tensor in (key, value)):
            return repeats
    return 1


def _repeat(tensor: Tensor, repeats: int) -> bool:
    """Return whether every `repeats` neighbouring heads of (heads, tokens, channels) are equal."""
    groups = tensor.unflatten(0, (-1, repeats))  # (groups, repeats, tokens, channels)
    return torch.equal(groups, groups[:, :1].expand_as(groups))


def compared(one: Recorder, other: Recorder) -> list[Pass]:
    """Return what two trial runs with different latents show.

    Raises BadInputError if they do not show which tokens belong to the picture.
    """
    found = []
    for first, second in zip(one.passes, other.passes, strict=True):
        layers = {
            call: layer
            for call, seen in first.calls.items()
            if call in second.calls
            and (layer := _image_layer(call, seen, second.calls[call])) is not None
        }
        for layer in layers.values():
            _check_count(layer.layout.queries.length, *first.shape[-2:])
        found.append(Pass(first.form, layers, first.names))
    if not any(tried.layers for tried in found):
        raise _cannot_tell("no layer in which the picture attends to itself was found")
    return found


def _image_layer(call: CallId, one: Seen, other: Seen) -> ImageLayer | None:
    """Return the layer of a call, or None if the picture does not attend to itself in it."""
    queries = _differing(one.query, other.query)
    keys = _differing(one.key, other.key)
    if queries is None or keys is None:
        return None
    if queries.length != keys.length:
        raise _cannot_tell(
            f"in {call.block} {call.number}, {queries.length} queries but {keys.length} keys differ"
        )
    layout = Layout(queries, keys, len(one.query), len(one.key), *one.axes)
    key, value = (_kept_shape(shape, one, keys.length) for shape in one.shapes)
    return ImageLayer(Layer(*call), layout, one.repeats, (key, value), one.itemsize)


def _kept_shape(shape: tuple[int, ...], seen: Seen, tokens: int) -> tuple[int, ...]:
    """Return the shape in which a row's keys or values of the picture are kept.

    shape: that of the row's whole sequence. tokens: how many belong to the picture.
    """
    sizes = list(shape)
    sizes[seen.axes[0] - 1] = tokens
    if seen.repeats > 1:
        sizes[0] //= seen.repeats
    return tuple(sizes)


def _check_count(tokens: int, height: int, width: int) -> None:
    """Raise BadInputError unless a latent of this size can have so many tokens.

    They are squares of some pixels of the latent, where the last ones may be cut off or filled up.
    Otherwise other tokens depend on the picture too, by a way that does not lead over attention.
    """
    for side in range(1, max(height, width) + 1):
        filled = math.ceil(height / side) * math.ceil(width / side)
        if tokens in (filled, (height // side) * (width // side)):
            return
    raise _cannot_tell(f"{tokens} tokens depend on a latent of {width} x {height}")


def _differing(one: Tensor, other: Tensor) -> Span | None:
    """Return the span of tokens that differ, or None if none do. Both: (tokens, DIGEST)."""
    if one.shape != other.shape:
        raise _cannot_tell("its sequences change their length with the latent")
    if not (one.isfinite().all() and other.isfinite().all()):
        raise _cannot_tell("its numbers overflow where attention is switched off")
    apart = (one - other).abs().amax(dim=1) > SAME * torch.maximum(one.abs(), other.abs()).mean()
    places = apart.nonzero().flatten()
    if len(places) == 0:
        return None
    span = Span(int(places[0]), int(places[-1]) + 1)
    if span.length != len(places):
        raise _cannot_tell("the tokens of the picture are not next to each other")
    return span


def _cannot_tell(problem: str) -> BadInputError:
    return BadInputError(
        "model",
        f"trying the model did not show which of its tokens belong to the picture ({problem}).",
        f"Remove other nodes that patch the model. If there are none, {NODE} cannot work with this "
        "family of models.",
    )
