"""What a family of models is to tests: how it is made and fed, and what its attention gets.

The families themselves are in `families.py`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tiny
import torch

TEXT = 7  # tokens of a prompt
WIDTH = 24  # of a token; no network is as wide
SIZE = (3, 5)  # of a picture, in patches: 15 tokens
REFERENCE = (3, 4)  # of a reference picture, in patches: 12 tokens
SHARP = 1.6  # how much larger queries and keys are than they would be

# Parts of a sequence. Families have more of their own.
TXT, IMG, REF = "text", "image", "references"


@dataclass(frozen=True)
class Call:
    """One call of attention: what lies one after another in its queries and in its keys.

    layer: the kind and number of the layer, if image tokens attend to image tokens in it, with
    the text or without; else None. The other fields say how the call comes.
    """

    queries: tuple[str, ...]
    keys: tuple[str, ...]
    layer: tuple[str, int] | None = None
    ids: Mapping[str, Any] = field(default_factory=dict)  # what the options say of the block
    img_slice: tuple[str, ...] | None = None  # the parts that this option spans
    flat: bool = False  # heads and their channels are one axis: no skip_reshape
    split: bool = False  # they stay apart in what comes back: skip_output_reshape
    repeated: int = 1  # so many heads in a row come with the same keys
    grouped: int = 1  # so many heads share a head of keys, which comes once (enable_gqa)
    rows: str | None = None  # a part whose tokens are rows of the batch
    mask: tuple[str | int, ...] | None = None  # its shape if tokens of the prompt are hidden
    always_masked: bool = False  # there is a mask even if it hides nothing


def block_ids(kind: str, number: int, count: int) -> dict[str, Any]:
    """The options that most networks set for every block."""
    return {"block_type": kind, "block_index": number, "total_blocks": count}


def named(kind: str, count: int, queries, keys=None, **settings) -> list[Call]:
    """The calls of layers in a row, of which the options tell."""
    return [
        Call(queries, keys or queries, (kind, n), block_ids(kind, n, count), **settings)
        for n in range(count)
    ]


def unnamed(kind: str, count: int, queries, keys=None, **settings) -> list[Call]:
    """The calls of layers in a row, of which the options tell nothing."""
    return [Call(queries, keys or queries, (kind, n), **settings) for n in range(count)]


def refiner(count: int, *parts: str, **settings) -> list[Call]:
    """Calls in which parts attend to themselves, before the layers begin."""
    return [Call(parts, parts, **settings) for _ in range(count)]


def random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)


def plain(family: "Family", generator: torch.Generator, rows: int, tokens: int):
    """A prompt of tokens alone. Where a text encoder has no pooled output, it says so."""
    return random(generator, rows, tokens, family.width), {"pooled_output": None}


def masked(family: "Family", generator: torch.Generator, rows: int, tokens: int):
    """A prompt with the mask that some text encoders hand on even if it hides nothing."""
    cond, values = plain(family, generator, rows, tokens)
    return cond, {**values, "attention_mask": torch.ones(1, tokens, dtype=torch.long)}


def pooled(width: int, **extra):
    """Return an encoder of prompts with a pooled output of some width."""

    def encode(family: "Family", generator: torch.Generator, rows: int, tokens: int):
        cond, _ = plain(family, generator, rows, tokens)
        return cond, {"pooled_output": random(generator, rows, width), **extra}

    return encode


@dataclass(frozen=True)
class Family:
    """A family of models.

    source: its class in comfy.supported_models. config: what ComfyUI would detect of a
    checkpoint, but smaller. calls: those of one evaluation, for a number of reference pictures.
    encode: gets (family, generator, rows, tokens) and returns what its nodes make of a prompt.
    """

    name: str
    source: str
    config: Mapping[str, Any] | Callable[[], Mapping[str, Any]]
    calls: Callable[[int], list[Call]]
    encode: Callable[["Family", torch.Generator, int, int], tuple[torch.Tensor | None, dict]] = (
        plain
    )
    patch: int = 2
    size: tuple[int, int] = SIZE  # of a picture, in patches
    text: int = TEXT
    width: int = WIDTH
    heads: int = 2
    least_text: int = 0  # to which ComfyUI pads a prompt
    multiple: int = 1  # of which ComfyUI makes every part's length, by tokens at its end
    columns: int = 1  # pictures that lie side by side in the image part; ours is the leftmost
    prompted: bool = True  # whether it reads a prompt
    prompt_rows: bool = True  # whether each frame may have a prompt of its own
    texts: tuple[str, ...] = (TXT,)  # parts that are made of the prompt
    hides_rows: bool = True  # whether it can hide tokens if it paints several rows at once
    odd: bool = True  # whether it takes pictures whose sides are no multiples of a patch
    references: bool = False  # whether it takes reference pictures
    edits: bool = False  # whether every prompt of it has one
    reference_size: tuple[int, int] = REFERENCE
    reference_rows: bool = True  # whether each frame may have a reference of its own
    tells_references: bool = True  # whether the options tell how many tokens they have
    refer: Callable[["Family", list[torch.Tensor], int], dict] = lambda family, latents, seed: {
        "reference_latents": latents
    }
    finish: Callable[[Any], None] = lambda base: None  # what to do once the network is built
    lengths: Callable[[dict[str, int], int], dict[str, int]] = lambda parts, references: parts
    sharp: str = ""  # names of more weights that are larger, as a regular expression

    def available(self) -> bool:
        """Whether this ComfyUI has the family."""
        import comfy.supported_models

        return hasattr(comfy.supported_models, self.source)

    def make(self, seed: int = 0):
        """The BaseModel, with seeded weights."""
        import comfy.supported_models

        config = dict(self.config() if callable(self.config) else self.config)
        settings = getattr(comfy.supported_models, self.source)(config)
        settings.unet_config.update(config)  # again, over what the class sets itself
        settings.set_inference_dtype(torch.float32, None)
        base = settings.get_model({}, "")
        self.finish(base)
        fill(base.diffusion_model, seed, self.sharp)
        return base

    def model(self, seed: int = 0):
        """The MODEL (ModelPatcher)."""
        import comfy.model_management
        import comfy.model_patcher

        device = comfy.model_management.get_torch_device()
        return comfy.model_patcher.ModelPatcher(self.make(seed), device, device)

    def latents(self, rows: int, seed: int, patches: tuple[int, int] | None = None):
        """Random latents as a VAE would make them, of a size in patches."""
        import comfy.supported_models

        form = getattr(comfy.supported_models, self.source).latent_format()
        times = (1,) if form.latent_dimensions == 3 else ()
        sides = [side * self.patch for side in patches or self.size]
        generator = torch.Generator().manual_seed(seed)
        return form.process_out(random(generator, rows, form.latent_channels, *times, *sides))

    def clip(
        self, frames: int = tiny.FRAMES, seed: int = 7, size: tuple[int, int] | None = None
    ) -> dict:
        """A LATENT of random frames. size: other than the usual, in patches."""
        return {"samples": self.latents(frames, seed, size)}

    def prompt(self, seed: int, rows: int = 1, tokens: int | None = None, hidden: int = 0) -> list:
        """A CONDITIONING as the family's own nodes make it, one row or one row per frame.

        hidden: so many of its last tokens are hidden by a mask, if the family heeds it.
        """
        generator = torch.Generator().manual_seed(seed)
        tokens = self.text if tokens is None else tokens
        cond, values = self.encode(self, generator, rows, tokens)
        if hidden:
            assert self.hides, f"{self.name} overlooks masks, or fails"
            mask = torch.ones(1, tokens, dtype=torch.long)
            mask[:, -hidden:] = 0
            values = {**values, "attention_mask": mask}
        conds = [[cond, values]]
        return self.with_references(conds, seed=1000 + seed) if self.edits else conds

    def with_references(self, conds: list, rows: int = 1, seed: int = 11, count: int = 1) -> list:
        """The CONDITIONING with reference pictures of `rows` rows, instead of any it had."""
        latents = [self.latents(rows, seed + i, self.reference_size) for i in range(count)]
        return [[cond, {**values, **self.refer(self, latents, seed)}] for cond, values in conds]

    def tokens(self, height: int, width: int) -> int:
        """How many tokens a picture becomes, whose latents have this size."""
        sides = math.ceil(height / self.patch), math.ceil(width / self.patch) * self.columns
        return self._padded(math.prod(sides))

    def _padded(self, tokens: int) -> int:
        return math.ceil(tokens / self.multiple) * self.multiple

    def parts(
        self,
        references: int | None = None,
        text: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> dict[str, int]:
        """How many tokens each part has, for a number of references.

        text: tokens of the prompt. size: of the clip, in patches. None means the usual.
        """
        references = int(self.edits) if references is None else references
        text = max(self.text if text is None else text, self.least_text)
        parts = {
            TXT: self._padded(text),
            IMG: self.tokens(*(side * self.patch for side in size or self.size)),
            REF: references * self.tokens(*(side * self.patch for side in self.reference_size)),
        }
        return self.lengths(parts, references)

    def expected(self, references: int | None = None) -> list[Call]:
        """The calls of one evaluation."""
        return self.calls(int(self.edits) if references is None else references)

    @property
    def hides(self) -> bool:
        """Whether it heeds a mask that hides tokens of the prompt."""
        return any(call.mask for call in self.expected())

    def layers(self, references: int | None = None) -> list[tuple[str, int]]:
        """The addresses of all layers, in the order in which they are called."""
        return [call.layer for call in self.expected(references) if call.layer]

    def image_tokens(self, sequence: tuple[str, ...], lengths: Mapping[str, int]) -> list[int]:
        """Where the tokens of the usual clip lie in a sequence of parts."""
        tokens = list(range(*span(IMG, sequence, lengths)))
        if self.columns == 1:
            return tokens
        width = self.size[1]
        return [token for i, token in enumerate(tokens) if i // width % self.columns == 0]


def span(part: str, sequence: tuple[str, ...], lengths: Mapping[str, int]) -> tuple[int, int]:
    """Where a part lies in a sequence of parts: its first token, and the one after its last."""
    start = sum(lengths[other] for other in sequence[: sequence.index(part)])
    return start, start + lengths[part]


# Learned scales of normalised queries and keys, by any name that ComfyUI has for them.
_QUERY_KEY_SCALE = re.compile(r"[._](q|k|query|key)(_?norm|_rms)|norm_(added_)?[qk]\.|ln_[qk]\.")


def fill(network: torch.nn.Module, seed: int = 0, sharp: str = "") -> None:
    """Give a network seeded weights, of which none is without effect.

    Norms scale by about 1. The scales of queries and keys are larger, since attention would be
    nearly uniform otherwise; so are weights whose name matches `sharp`, but for the values of
    projections that are fused with those of queries and keys.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(network.named_parameters()):
        owner = type(network.get_submodule(name.rpartition(".")[0]))
        value = random(generator, *weight.shape)
        if "Norm" in owner.__name__ and weight.ndim == 1:
            scales = not name.endswith("bias")
            value = value * 0.1 + float(scales)
            if scales and _QUERY_KEY_SCALE.search(name):
                value *= SHARP
            if owner.__module__.endswith("krea2.model"):  # which adds 1 itself
                value -= 1
        elif weight.ndim < 2:
            value *= 0.1
        elif issubclass(owner, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)):
            value *= weight[0].numel() ** -0.5
        elif not issubclass(owner, torch.nn.Embedding):  # tokens, positions, tables
            value *= 0.5
        if sharp and re.search(sharp, name):
            value[: len(value) * 2 // 3 if "qkv" in name else None] *= SHARP
        weight.data = value


class Recorded(NamedTuple):
    """What a call of attention got. `ids` are the transformer options that tell of the block."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    heads: int
    mask: torch.Tensor | None
    kwargs: dict
    ids: dict

    def head_axis(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return queries, keys or values as (rows, heads, tokens, channels)."""
        if self.kwargs.get("skip_reshape"):
            return tensor
        return tensor.unflatten(-1, (self.heads, -1)).movedim(2, 1)

    def token_axis(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return queries, keys or values as (tokens, everything else)."""
        return self.head_axis(tensor).movedim(2, 0).flatten(1)

    def weights(self) -> torch.Tensor:
        """How much each query attends to each key."""
        q, k = self.head_axis(self.q), self.head_axis(self.k)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


IDS = ("block_type", "block_index", "total_blocks", "img_slice", "reference_image_num_tokens")
_INNER = ("transformer_options", "_inside_attn_wrapper")  # no settings of the call
# One evaluation at a noise level between noise and picture, so that it depends on both.
ONCE = {"steps": 1, "cfg": 1.0, "denoise": 0.5, "scheduler": "simple"}


def attention_calls(model, conds, latent, silent: bool = False, **inputs) -> list[Recorded]:
    """Evaluate a MODEL once with the stock KSampler; return every call that an override sees.

    silent: attention then gives nothing, so that no token depends on others of its picture.
    inputs: other settings of the KSampler, for more evaluations.
    """
    calls: list[Recorded] = []

    def record(attention, q, k, v, heads, mask=None, **kwargs):
        options = kwargs["transformer_options"]
        ids = {name: options[name] for name in IDS if name in options}
        tensors = [tensor.clone() for tensor in (q, k, v)]
        told = {name: kwargs[name] for name in kwargs if not name.endswith(_INNER)}
        calls.append(Recorded(*tensors, heads, mask, told, ids))
        out = attention(q, k, v, heads, mask=mask, **kwargs)
        return torch.zeros_like(out) if silent else out

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = record
    tiny.ksampler(model, conds, conds, latent, **{**ONCE, **inputs})
    return calls
