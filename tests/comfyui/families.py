"""Small random-weight models of ComfyUI's DiT image families, and where their tokens lie.

Each is built through ComfyUI's own classes and sampled by its stock nodes. What a family does in
attention is stated here as data, read from its source: which calls come in which order, what lies
in their queries and keys, and what the transformer options say by then. File names are those of
ComfyUI 0.33.0, under comfy/ldm/ unless said. Random weights prove numerics, not looks.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tiny
import torch

TEXT = 7  # tokens of a prompt
WIDTH = 24  # of a token, no network's own width
SHARP = 1.6  # how much larger the scales of queries and keys are
SIZE = (3, 5)  # of a picture, in patches; 15 tokens
REFERENCE = (3, 4)  # of a reference picture, in patches; 12 tokens

# Parts of a sequence.
T, I, R = "text", "image", "references"

# Learned scales of normalised queries and keys, by any name that ComfyUI has for them.
QUERY_KEY_SCALE = re.compile(r"(^|[._])(ln_|norm_|norm_added_)?(q|k|query|key)(_norm)?[._]")


@dataclass(frozen=True)
class Call:
    """One call of attention: what lies one after another in its queries and in its keys.

    layer: the kind and number of the layer, if image tokens attend to image tokens in it. ids:
    what the transformer options say, but for lengths. img_slice: the parts it spans. repeated:
    how many heads in a row have the same keys. rows: a part whose tokens are rows of the batch.
    """

    queries: tuple[str, ...]
    keys: tuple[str, ...]
    layer: tuple[str, int] | None = None
    ids: Mapping[str, Any] = field(default_factory=dict)
    img_slice: tuple[str, ...] | None = None
    flat: bool = False  # whether heads and their channels are one axis: no skip_reshape
    repeated: int = 1
    gqa: bool = False  # whether there are fewer heads of keys, and attention repeats them
    rows: str | None = None


def layers(kind: str, count: int, parts, *, ids=("type", "index", "total"), **settings):
    """The calls of `count` layers in a row. ids: which of them the options hold."""
    named = [{"type": kind, "index": number, "total": count} for number in range(count)]
    return [
        Call(
            parts,
            parts,
            layer=(kind, number),
            ids={key: value for key, value in named[number].items() if key in ids},
            **settings,
        )
        for number in range(count)
    ]


def refiner(count: int, part: str, **settings):
    """Calls in which a part attends to itself, before the layers begin."""
    return [Call((part,), (part,), **settings) for _ in range(count)]


def no_extras(family: "Family", generator: torch.Generator, rows: int, tokens: int) -> dict:
    return {"pooled_output": None}


@dataclass(frozen=True)
class Family:
    """A family of models: how to make one, what to feed it, and what its attention gets.

    source: its class in comfy.supported_models. config: what ComfyUI would detect, but smaller.
    calls: those of one evaluation, for a number of reference pictures.
    """

    name: str
    source: str
    config: Mapping[str, Any]
    calls: Callable[[int], list[Call]]
    patch: int = 2
    size: tuple[int, int] = SIZE
    text: int = TEXT
    least_text: int = 0  # to which ComfyUI pads a prompt
    multiple: int = 1  # to which ComfyUI pads each part
    width: int = WIDTH
    heads: int = 2
    references: bool = False  # whether it takes reference latents
    tells_references: bool = True  # whether the options tell how many tokens they have
    edits: bool = False  # whether every prompt brings one
    extras: Callable[["Family", torch.Generator, int, int], dict] = no_extras
    finish: Callable[[Any], None] = lambda base: None  # what to do once the network is built
    lengths: Callable[[dict[str, int], int], dict[str, int]] = lambda parts, references: parts
    sharp: str = ""  # names of query and key projections without norms, as a regular expression

    def available(self) -> bool:
        """Whether this ComfyUI has the family."""
        import comfy.supported_models

        return hasattr(comfy.supported_models, self.source)

    def make(self, seed: int = 0):
        """The BaseModel, with seeded weights."""
        import comfy.supported_models

        settings = getattr(comfy.supported_models, self.source)(dict(self.config))
        settings.unet_config.update(self.config)
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

    @property
    def latent_format(self):
        import comfy.supported_models

        return getattr(comfy.supported_models, self.source).latent_format()

    def _latents(self, rows: int, seed: int, patches: tuple[int, int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        form = self.latent_format
        times = (1,) if form.latent_dimensions == 3 else ()
        shape = (rows, form.latent_channels, *times, *(side * self.patch for side in patches))
        return form.process_out(torch.randn(shape, generator=generator))

    def clip(self, frames: int = tiny.FRAMES, seed: int = 7) -> dict:
        """A LATENT of random frames."""
        return {"samples": self._latents(frames, seed, self.size)}

    def prompt(self, seed: int, rows: int = 1, tokens: int | None = None) -> list:
        """A CONDITIONING as the family's own nodes make it, one row or one row per frame."""
        tokens = self.text if tokens is None else tokens
        generator = torch.Generator().manual_seed(seed)
        cond = torch.randn(rows, tokens, self.width, generator=generator)
        conds = [[cond, self.extras(self, generator, rows, tokens)]]
        return self.with_references(conds, 1, 1000 + seed) if self.edits else conds

    def with_references(self, conds: list, rows: int = 1, seed: int = 11, count: int = 1) -> list:
        """The CONDITIONING with `count` reference latents of `rows` rows instead of any it had."""
        latents = [self._latents(rows, seed + i, REFERENCE) for i in range(count)]
        return [[cond, {**values, "reference_latents": latents}] for cond, values in conds]

    def tokens(self, pixels: tuple[int, ...]) -> int:
        """How many tokens latents or pixels of a size (its last two numbers) become."""
        sides = (math.ceil(side / self.patch) for side in pixels[-2:])
        return _padded(math.prod(sides), self.multiple)

    def parts(self, text: int | None = None, references: int | None = None) -> dict[str, int]:
        """The lengths of parts for the usual clip, with a number of reference pictures."""
        text = max(self.text if text is None else text, self.least_text)
        references = int(self.edits) if references is None else references
        sides = [side * self.patch for side in REFERENCE]
        parts = {
            T: _padded(text, self.multiple),
            I: self.tokens(tuple(side * self.patch for side in self.size)),
            R: self.tokens(tuple(sides)) * references,
        }
        return self.lengths(parts, references)

    def expected(self, references: int | None = None) -> list[Call]:
        """The calls of one evaluation."""
        return self.calls(int(self.edits) if references is None else references)


def span(part: str, sequence: tuple[str, ...], lengths: Mapping[str, int]) -> tuple[int, int]:
    """Where a part lies in a sequence of parts: its first token, and the one after its last."""
    start = sum(lengths[other] for other in sequence[: sequence.index(part)])
    return start, start + lengths[part]


def _padded(length: int, multiple: int) -> int:
    return math.ceil(length / multiple) * multiple


def fill(network: torch.nn.Module, seed: int = 0, sharp: str = "") -> None:
    """Give a network seeded weights, of which none is without effect.

    Norms scale by about 1. The scales of queries and keys are larger, as are projections whose
    name matches `sharp`, but for the values of fused ones: attention would be nearly uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(network.named_parameters()):
        owner = type(network.get_submodule(name.rpartition(".")[0])).__name__
        random = torch.randn(weight.shape, generator=generator)
        if "Norm" in owner and weight.ndim == 1:
            weight.data = random * 0.1 + float(not name.endswith("bias"))
            if QUERY_KEY_SCALE.search(name) and not name.endswith("bias"):
                weight.data *= SHARP
        else:
            embedding = owner == "Embedding"
            fan_in = weight[0].numel() if weight.ndim > 1 and not embedding else 1
            weight.data = random * (fan_in**-0.5 if weight.ndim > 1 else 0.1)
        if sharp and re.search(sharp, name):
            fused = "qkv" in name
            weight.data[: len(weight) * 2 // 3 if fused else None] *= SHARP


class Recorded(NamedTuple):
    """What a call of attention got. `ids` are the transformer options that tell of the layer."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    heads: int
    mask: torch.Tensor | None
    skip_reshape: bool
    enable_gqa: bool
    ids: dict

    def head_axis(self, tensor: torch.Tensor, heads: int | None = None) -> torch.Tensor:
        """Return queries, keys or values as (rows, heads, tokens, channels)."""
        if self.skip_reshape:
            return tensor
        return tensor.unflatten(-1, (heads or self.heads, -1)).movedim(2, 1)

    def token_axis(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return queries, keys or values as (tokens, everything else)."""
        return tensor.movedim(2 if self.skip_reshape else 1, 0).flatten(1)

    def weights(self) -> torch.Tensor:
        """How much each query attends to each key."""
        q, k = self.head_axis(self.q), self.head_axis(self.k)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        logits = q @ k.mT * q.shape[-1] ** -0.5
        return logits.softmax(-1)


IDS = ("block_type", "block_index", "total_blocks", "img_slice", "reference_image_num_tokens")
# One evaluation at a noise level between noise and picture, so that it depends on both.
ONCE = {"steps": 1, "cfg": 1.0, "denoise": 0.5, "scheduler": "simple"}


def attention_calls(model, conds, latent, **inputs) -> list[Recorded]:
    """Evaluate a MODEL once with the stock KSampler; return every call that an override sees."""
    calls: list[Recorded] = []

    def record(attention, q, k, v, heads, mask=None, **kwargs):
        options = kwargs["transformer_options"]
        calls.append(
            Recorded(
                *(tensor.clone() for tensor in (q, k, v)),
                heads,
                mask,
                kwargs.get("skip_reshape", False),
                kwargs.get("enable_gqa", False),
                {name: options[name] for name in IDS if name in options},
            )
        )
        return attention(q, k, v, heads, mask=mask, **kwargs)

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = record
    tiny.ksampler(model, conds, conds, latent, **{**ONCE, **inputs})
    return calls


# Flux.1 ------------------------------------------------------------------------------------------

FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 20,
    "context_in_dim": WIDTH,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 4,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}


def flux_calls(references: int = 0) -> list[Call]:
    # flux/layers.py:221 puts text before image, flux/model.py:350 references after the image.
    # flux/model.py:203-207 for double blocks, :264-269 for single ones, whose img_slice is
    # [text, everything].
    parts = (T, I, R)
    double = layers("double", FLUX["depth"], parts)
    return double + layers("single", FLUX["depth_single_blocks"], parts, img_slice=(I, R))


def flux_extras(family: Family, generator: torch.Generator, rows: int, tokens: int) -> dict:
    pooled = torch.randn(rows, family.config["vec_in_dim"], generator=generator)
    return {"pooled_output": pooled, "guidance": 3.5}


# Qwen-Image --------------------------------------------------------------------------------------

QWEN = {
    "image_model": "qwen_image",
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 5,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "axes_dims_rope": (4, 6, 6),
    "default_ref_method": "index",
}


def qwen_calls(references: int = 0) -> list[Call]:
    # qwen_image/model.py:167-169 text before image, :436-441 references after the image,
    # :476-480 the names of blocks. Its img_slice reaches attn1 patches only (:177).
    return layers("double", QWEN["num_layers"], (T, I, R))


# Lumina2, Z-Image --------------------------------------------------------------------------------

LUMINA2 = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 64,
    "cap_feat_dim": WIDTH,
    "n_layers": 5,
    "n_refiner_layers": 2,
    "qk_norm": True,
    "n_heads": 4,
    "n_kv_heads": 2,
    "axes_dims": [4, 6, 6],
    "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0,
    "multiple_of": 16,
    "ffn_dim_multiplier": 1.0,
}
Z_IMAGE = {
    **LUMINA2,
    "dim": 256,  # the width of its modulation, whatever the network's
    "axes_dims": [16, 24, 24],
    "n_kv_heads": 4,
    "ffn_dim_multiplier": 0.25,
    "rope_theta": 256.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}


def lumina_calls(references: int = 0, repeated: int = 1) -> list[Call]:
    # lumina/model.py:720 refines text, :741 the image, and :749 puts text before image;
    # :829-833 the names of layers. :164-166 repeats keys and values for every query head.
    return [
        *refiner(2, T, repeated=repeated),
        *refiner(2, I, repeated=repeated),
        *layers("double", LUMINA2["n_layers"], (T, I), repeated=repeated),
    ]


def lumina_extras(family: Family, generator: torch.Generator, rows: int, tokens: int) -> dict:
    # Its text encoder hands on a mask even if it hides nothing (sd1_clip.py:297).
    return {"pooled_output": None, "attention_mask": torch.ones(rows, tokens, dtype=torch.long)}


# SD3 ---------------------------------------------------------------------------------------------

SD3 = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "depth": 2,  # heads, of 64 channels each
    "num_blocks": 5,
    "input_size": None,
    "adm_in_channels": 20,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": WIDTH, "out_features": 128},
    },
    "num_patches": 16 * 16,
    "pos_embed_max_size": 16,
    "pos_embed_scaling_factor": None,
    "x_block_self_attn_layers": [],
}
SD35_MEDIUM = {**SD3, "qk_norm": "rms", "x_block_self_attn_layers": [0, 1, 2]}


def sd3_calls(references: int = 0, image_only: tuple[int, ...] = ()) -> list[Call]:
    # modules/diffusionmodules/mmdit.py:622 puts context before x; :641 is attn2, of the image
    # alone, right after the joint attention of its block. No names of blocks at all.
    calls = []
    for number in range(SD3["num_blocks"]):
        calls.append(Call((T, I), (T, I), layer=("joint", number), flat=True))
        if number in image_only:
            calls.append(Call((I,), (I,), layer=("image", number), flat=True))
    return calls


def sd3_positions(base) -> None:
    """Fill the table of positions, which comes with checkpoints."""
    from comfy.ldm.modules.diffusionmodules.mmdit import get_2d_sincos_pos_embed

    network = base.diffusion_model
    table = get_2d_sincos_pos_embed(network.hidden_size, network.pos_embed_max_size)
    network.pos_embed.copy_(torch.from_numpy(table))


def pooled_extras(family: Family, generator: torch.Generator, rows: int, tokens: int) -> dict:
    width = family.config["adm_in_channels"]
    return {"pooled_output": torch.randn(rows, width, generator=generator)}


# Cosmos-Predict2, Anima --------------------------------------------------------------------------

COSMOS = {
    "image_model": "cosmos_predict2",
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 32,
    "concat_padding_mask": True,
    "crossattn_emb_channels": WIDTH,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "min_fps": 1,
    "max_fps": 30,
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "num_blocks": 5,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
    "extra_h_extrapolation_ratio": 1.0,
    "extra_w_extrapolation_ratio": 1.0,
    "extra_t_extrapolation_ratio": 1.0,
    "rope_enable_fps_modulation": False,
}


def cosmos_calls(references: int = 0) -> list[Call]:
    # cosmos/predict2.py:549 self-attention, :588 cross-attention of the same block, both with
    # the block_index of :885.
    return list(
        itertools.chain.from_iterable(
            (
                Call((I,), (I,), layer=("block", number), ids={"index": number}),
                Call((I,), (T,), ids={"index": number}),
            )
            for number in range(COSMOS["num_blocks"])
        )
    )


FAMILIES = {
    family.name: family
    for family in (
        Family("flux", "Flux", FLUX, flux_calls, extras=flux_extras, references=True),
        Family(
            "flux_kontext",
            "Flux",
            FLUX,
            flux_calls,
            extras=flux_extras,
            references=True,
            edits=True,
        ),
        Family("qwen_image", "QwenImage", QWEN, qwen_calls, references=True),
        Family("qwen_edit", "QwenImage", QWEN, qwen_calls, references=True, edits=True),
        Family(
            "lumina2",
            "Lumina2",
            LUMINA2,
            lambda references: lumina_calls(references, repeated=2),
            extras=lumina_extras,
            heads=4,
        ),
        Family(
            "z_image",
            "ZImage",
            Z_IMAGE,
            lumina_calls,
            extras=lumina_extras,
            size=(6, 7),
            multiple=32,
            heads=4,
        ),
        Family(
            "sd3",
            "SD3",
            SD3,
            sd3_calls,
            extras=pooled_extras,
            finish=sd3_positions,
            sharp=r"attn\.qkv",
        ),
        Family(
            "sd35_medium",
            "SD3",
            SD35_MEDIUM,
            lambda references: sd3_calls(references, image_only=(0, 1, 2)),
            extras=pooled_extras,
            finish=sd3_positions,
        ),
        Family("cosmos_predict2", "CosmosT2IPredict2", COSMOS, cosmos_calls),
    )
}
