"""Small random-weight models of ComfyUI's DiT image families, and where their tokens lie.

Each is built through ComfyUI's own classes and sampled by its stock nodes. What a family does in
attention is stated here as data, read from its source: which calls come in which order, what lies
in their queries and keys, and what the transformer options say by then. File names are those of
ComfyUI 0.33.0, under comfy/ldm/ unless said. Random weights prove numerics, not looks.
"""

import itertools

import torch
from family import (
    IMG,
    REF,
    TXT,
    WIDTH,
    Call,
    Family,
    Recorded,
    attention_calls,
    masked,
    named,
    plain,
    pooled,
    random,
    refiner,
    span,
    unnamed,
)

__all__ = ["FAMILIES", "Call", "Family", "Recorded", "attention_calls", "available", "span"]


# Flux and what is built of its blocks ------------------------------------------------------------

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
FLUX_FILL = {**FLUX, "in_channels": 96}
LONGCAT = {**FLUX, "vec_in_dim": None, "guidance_embed": False, "txt_ids_dims": [1, 2]}
FLUX2 = {
    **FLUX,
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "mlp_ratio": 3.0,
    "axes_dim": [4, 4, 4, 4],
    "theta": 2000,
    "patch_size": 1,
    "qkv_bias": False,
    "ops_bias": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "txt_ids_dims": [3],
}
FLUX2_KLEIN = {**FLUX2, "guidance_embed": False}
CHROMA = {
    **{key: FLUX[key] for key in FLUX if key != "guidance_embed"},
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "vec_in_dim": None,
    "in_dim": 64,
    "out_dim": 32,
    "hidden_dim": 32,
    "n_layers": 2,
}
HUNYUAN_IMAGE = {
    "image_model": "hunyuan_video",
    "in_channels": 64,
    "out_channels": 64,
    "patch_size": [1, 1],
    "vec_in_dim": None,
    "axes_dim": [8, 8],
    "meanflow": False,
    "meanflow_sum": False,
    "context_in_dim": WIDTH,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 4,
    "theta": 256,
    "qkv_bias": True,
    "byt5": False,
    "guidance_embed": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
}
GLYPHS = "glyphs"  # tokens of the words to be written in the picture
GLYPH_TOKENS = 4


def flux_calls(references: int = 0, text: tuple[str, ...] = (TXT,), mask=None) -> list[Call]:
    # flux/layers.py:220 puts text before image, flux/model.py:390 references after it. :217-220
    # names double blocks and :272-276 single ones; only these have an img_slice, which is
    # everything after the text. Chroma does all this too (chroma/model.py:184-187, :230-234),
    # HunyuanImage as well (hunyuan_video/model.py:393-396, :418-422).
    parts = (*text, IMG, REF)
    double = named("double", FLUX["depth"], parts, mask=mask)
    return double + named(
        "single", FLUX["depth_single_blocks"], parts, img_slice=(IMG, REF), mask=mask
    )


def hunyuan_calls(references: int = 0, text: tuple[str, ...] = (TXT,)) -> list[Call]:
    # hunyuan_video/model.py:354, :91: its two refiners see the text, not yet the glyphs, which
    # :368 puts after it. :125-126 and :387-388 make masks, the latter for one row only, and
    # not if there are glyphs.
    if GLYPHS in text:
        return refiner(2, TXT) + flux_calls(text=text)
    refiners = refiner(2, TXT, mask=("rows", 1, "queries", "keys"))
    return refiners + flux_calls(text=text, mask=(1, 1, "keys"))


def flux_fill_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt after the node InpaintModelConditioning."""
    cond, values = pooled(20, guidance=30.0)(family, generator, rows, tokens)
    seed = int(torch.randint(1000, (), generator=generator))
    sides = [side * family.patch * 8 for side in family.size]
    mask = (torch.rand(1, 1, *sides, generator=generator) > 0.5).float()
    picture = family.latents(1, seed)
    return cond, {**values, "concat_latent_image": picture, "concat_mask": mask}


def radiance() -> dict:
    """A config, of which this ComfyUI's network takes what it knows."""
    from comfy.ldm.chroma_radiance.model import ChromaRadianceParams

    config = {
        **CHROMA,
        "image_model": "chroma_radiance",
        "in_channels": 3,
        "out_channels": 3,
        "patch_size": 16,
        "nerf_hidden_size": 8,
        "nerf_mlp_ratio": 2,
        "nerf_depth": 2,
        "nerf_max_freqs": 2,
        "nerf_tile_size": 512,
        "nerf_final_head_type": "conv",
        "nerf_embedder_dtype": torch.float32,
        "use_x0": True,
        "use_sequential_txt_ids": True,
    }
    known = {"image_model", *ChromaRadianceParams.__dataclass_fields__}
    return {key: value for key, value in config.items() if key in known}


def glyph_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt with quoted words, which ComfyUI encodes by a ByT5 of its own."""
    cond, values = plain(family, generator, rows, tokens)
    glyphs = random(generator, 1, GLYPH_TOKENS, family.width)
    return cond, {**values, "conditioning_byt5small": glyphs}


def small_glyphs(base) -> None:
    """Put a narrow mapper of glyphs for the wide one, whose widths are fixed in ComfyUI."""
    import comfy.ops
    from comfy.ldm.hunyuan_video.model import ByT5Mapper

    base.diffusion_model.byt5_in = ByT5Mapper(
        in_dim=WIDTH,
        out_dim=32,
        hidden_dim=32,
        out_dim1=HUNYUAN_IMAGE["hidden_size"],
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    ).requires_grad_(False)


FLUX_FAMILIES = (
    Family("flux", "Flux", FLUX, flux_calls, pooled(20, guidance=3.5), references=True),
    Family("flux_fill", "FluxInpaint", FLUX_FILL, flux_calls, flux_fill_prompt),
    Family(
        "flux_kontext",
        "Flux",
        FLUX,
        flux_calls,
        pooled(20, guidance=2.5),
        references=True,
        edits=True,
    ),
    Family("longcat", "LongCatImage", LONGCAT, flux_calls, references=True),
    # comfy/model_base.py:1088-1090: prompts shorter than 512 tokens get zeros before them.
    Family("flux2", "Flux2", FLUX2, flux_calls, patch=1, least_text=512, references=True),
    Family(
        "flux2_klein", "Flux2", FLUX2_KLEIN, flux_calls, patch=1, least_text=512, references=True
    ),
    Family("chroma", "Chroma", CHROMA, flux_calls),
    # chroma_radiance/model.py:337 takes odd pictures, but not if it predicts pictures (:341).
    Family("chroma_radiance", "ChromaRadiance", radiance, flux_calls, patch=16, odd=False),
    Family(
        "hunyuan_image",
        "HunyuanImage21",
        HUNYUAN_IMAGE,
        hunyuan_calls,
        patch=1,
        hides_rows=False,
    ),
    Family(
        "hunyuan_image_glyphs",
        "HunyuanImage21",
        {**HUNYUAN_IMAGE, "byt5": True},
        lambda references: hunyuan_calls(text=(TXT, GLYPHS)),
        glyph_prompt,
        patch=1,
        texts=(TXT, GLYPHS),
        lengths=lambda parts, references: {**parts, GLYPHS: GLYPH_TOKENS},
        finish=small_glyphs,
    ),
)


# Qwen-Image, Mage-Flow, Lens, JoyImage -----------------------------------------------------------

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
}
MAGE_FLOW = {
    **{key: QWEN[key] for key in QWEN if key != "patch_size"},
    "image_model": "mage_flow",
    "in_channels": 128,
    "out_channels": 128,
}
LENS = {
    "image_model": "lens",
    "in_channels": 128,
    "out_channels": 32,
    "num_layers": 5,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": (4, 6, 6),
    "enc_hidden_dim": WIDTH // 3,
    "multi_layer_encoder_feature": True,
    "selected_layer_index": (0, 1, 2),
}
JOY_IMAGE = {
    "image_model": "joyimage",
    "in_channels": 16,
    "hidden_size": 32,
    "patch_size": [1, 2, 2],
    "num_layers": 5,
    "num_attention_heads": 2,
    "text_dim": WIDTH,
    "mlp_width_ratio": 2.0,
    "theta": 10000,
    "rope_dim_list": [4, 6, 6],
}


def qwen_calls(references: int = 0) -> list[Call]:
    # qwen_image/model.py:172 text before image, :489 references after it, :524-527 the names of
    # blocks, :176 the mask. Its img_slice reaches attn1 patches only (:182). Mage-Flow runs the
    # same blocks: mage_flow/model.py:114, :146-149.
    return named("double", QWEN["num_layers"], (TXT, IMG, REF), mask=("rows", 1, "keys"))


def lens_calls(references: int = 0) -> list[Call]:
    # lens/model.py:153 image before text, :439-442 the names of blocks, :408 a mask even for
    # prompts without.
    mask = ("rows", 1, 1, "keys")
    return named("double", LENS["num_layers"], (IMG, TXT), mask=mask, always_masked=True)


def joy_calls(references: int = 0) -> list[Call]:
    # joyimage/model.py:113 image before text, :394-404 references after the image, :416-419 the
    # names of blocks.
    return named("double", JOY_IMAGE["num_layers"], (IMG, REF, TXT), flat=True)


def lens_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt; the empty one has no tokens at all (comfy/text_encoders/gpt_oss.py:549)."""
    cond, values = masked(family, generator, rows, tokens)
    return cond, {**values, "num_layers_stacked": 3}


QWEN_FAMILIES = (
    Family("qwen_image", "QwenImage", QWEN, qwen_calls, references=True),
    Family("qwen_edit", "QwenImage", QWEN, qwen_calls, references=True, edits=True),
    Family(
        "qwen_edit_2511",
        "QwenImage",
        {**QWEN, "default_ref_method": "index_timestep_zero"},
        qwen_calls,
        references=True,
        edits=True,
    ),
    Family("mage_flow", "MageFlow", MAGE_FLOW, qwen_calls, patch=1, references=True),
    Family("lens", "Lens", LENS, lens_calls, lens_prompt, patch=1),
    Family("joyimage", "JoyImage", JOY_IMAGE, joy_calls, references=True, tells_references=False),
)


# Lumina2, Z-Image, OmniGen2, Boogu ---------------------------------------------------------------

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
Z_IMAGE_OMNI = {**Z_IMAGE, "siglip_feat_dim": 20}
Z_IMAGE_PIXEL = {
    **Z_IMAGE,
    "image_model": "zimage_pixel",
    "patch_size": 8,
    "in_channels": 3,
    "decoder_in_channels": 3 * 8 * 8,
    "decoder_hidden_size": 16,
    "decoder_num_res_blocks": 2,
    "decoder_max_freqs": 2,
}
OMNIGEN2 = {
    "image_model": "omnigen2",
    "axes_dim_rope": [4, 4, 4],
    "axes_lens": [1024, 1664, 1664],
    "ffn_dim_multiplier": None,
    "hidden_size": 48,
    "in_channels": 16,
    "multiple_of": 16,
    "norm_eps": 1e-05,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 5,
    "num_refiner_layers": 2,
    "out_channels": None,
    "patch_size": 2,
    "text_feat_dim": WIDTH,
    "timestep_scale": 1000.0,
}
BOOGU = {
    "image_model": "boogu",
    "hidden_size": 48,
    "num_layers": 3,
    "num_double_stream_layers": 2,
    "num_refiner_layers": 2,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "axes_dim_rope": (4, 4, 4),
    "instruction_feat_dim": WIDTH,
}
SIGLIP = "siglip"  # tokens of a vision encoder


def lumina_calls(references: int = 0, repeated: int = 1) -> list[Call]:
    # lumina/model.py:774 refines text, :799 the image, and :807 puts text before image; :858-862
    # the names of layers (in pixel space :1089-1093). :175-177 repeats keys and values for every
    # query head.
    return [
        *refiner(2, TXT, repeated=repeated),
        *refiner(2, IMG, repeated=repeated),
        *named("double", LUMINA2["n_layers"], (TXT, IMG), repeated=repeated),
    ]


def omni_calls(references: int = 0) -> list[Call]:
    # With references, lumina/model.py:785 refines what the vision encoder saw, :791 puts
    # references before the image already for the noise refiner, and :807 all together.
    if not references:
        return lumina_calls()
    return [
        *refiner(2, TXT),
        *refiner(2, SIGLIP),
        *refiner(2, REF, IMG),
        *named("double", LUMINA2["n_layers"], (TXT, SIGLIP, REF, IMG)),
    ]


def omni_lengths(parts: dict[str, int], references: int) -> dict[str, int]:
    # lumina/model.py:659 pads each text on its own, and :695 adds tokens for our picture, of
    # which the vision encoder saw nothing.
    seen = 32 * (references + 1) if references else 0
    return {**parts, TXT: parts[TXT] * (1 + references), SIGLIP: seen}


def omni_references(family: Family, latents: list[torch.Tensor], seed: int) -> dict:
    """What the node TextEncodeZImageOmni adds for pictures, but for the last of its texts.

    With a text after the prompt ComfyUI paints no more than one row at once: its positions have
    as many rows as the batch, those of other texts have one (lumina/model.py:763, :664).
    """
    generator = torch.Generator().manual_seed(seed)
    seen = [VisionOutput(random(generator, 1, 12, 20), [(3, 3 * 16, 4 * 16)]) for _ in latents]
    texts = [random(generator, 1, 5, family.width) for _ in latents]
    return {
        "reference_latents": latents,
        "clip_vision_outputs": seen,
        "reference_latents_text_embeds": texts,
    }


class VisionOutput:
    """What ComfyUI's vision encoders give: features of pictures, and the pictures' sizes."""

    def __init__(self, last_hidden_state, image_sizes):
        self.last_hidden_state, self.image_sizes = last_hidden_state, image_sizes


def omnigen_refiners(references: int) -> list[Call]:
    # omnigen/omnigen2.py:442 refines text, :403 the image, :407 references if there are any. A
    # mask that hides tokens ends in an error (:437 counts the others only).
    parts = [TXT, IMG, *([REF] if references else [])]
    return [call for part in parts for call in refiner(2, part, grouped=2)]


def omnigen_calls(references: int = 0) -> list[Call]:
    # omnigen/omnigen2.py:410 puts references before the image, :455 the text before both. It
    # names no blocks; keys have fewer heads, and attention repeats them (:144-145).
    return omnigen_refiners(references) + unnamed(
        "layer", OMNIGEN2["num_layers"], (TXT, REF, IMG), grouped=2
    )


def boogu_calls(references: int = 0) -> list[Call]:
    # boogu/model.py:150, :154: the joint attention of a double block (:58) is followed by one of
    # references and image alone. :308 single layers see everything.
    double = [
        Call(parts, parts, (kind, number), grouped=2)
        for number in range(BOOGU["num_double_stream_layers"])
        for kind, parts in (("double", (TXT, REF, IMG)), ("image", (REF, IMG)))
    ]
    single = unnamed("single", BOOGU["num_layers"], (TXT, REF, IMG), grouped=2)
    return [*omnigen_refiners(references), *double, *single]


LUMINA_FAMILIES = (
    Family(
        "lumina2",
        "Lumina2",
        LUMINA2,
        lambda references: lumina_calls(repeated=2),
        masked,
        heads=4,
    ),
    Family("z_image", "ZImage", Z_IMAGE, lumina_calls, masked, size=(6, 7), multiple=32, heads=4),
    Family(
        "z_image_omni",
        "ZImage",
        Z_IMAGE_OMNI,
        omni_calls,
        masked,
        size=(7, 10),
        multiple=32,
        heads=4,
        references=True,
        tells_references=False,
        refer=omni_references,
        lengths=omni_lengths,
    ),
    Family(
        "z_image_pixel",
        "ZImagePixelSpace",
        Z_IMAGE_PIXEL,
        lumina_calls,
        masked,
        patch=8,
        size=(6, 7),
        multiple=32,
        heads=4,
    ),
    Family(
        "omnigen2",
        "Omnigen2",
        OMNIGEN2,
        omnigen_calls,
        masked,
        heads=4,
        references=True,
        tells_references=False,
    ),
    Family(
        "boogu",
        "Boogu",
        BOOGU,
        boogu_calls,
        masked,
        heads=4,
        references=True,
        tells_references=False,
    ),
)


# SD3, AuraFlow, HiDream --------------------------------------------------------------------------

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
AURAFLOW = {
    "cond_seq_dim": WIDTH,
    "dim": 32,
    "n_layers": 6,
    "n_double_layers": 2,
    "n_heads": 2,
    "global_conddim": 32,
    "max_seq": 16 * 16,
}
HIDREAM = {
    "image_model": "hidream",
    "attention_head_dim": 16,
    "axes_dims_rope": [4, 6, 6],
    "caption_channels": [WIDTH, 28],
    "max_resolution": [128, 128],
    "in_channels": 16,
    "llama_layers": [0, 1, 2, 2, 2],
    "num_attention_heads": 2,
    "num_routed_experts": 4,
    "num_activated_experts": 2,
    "num_layers": 2,
    "num_single_layers": 3,
    "out_channels": 16,
    "patch_size": 2,
    "text_emb_dim": 20,
}
REGISTERS = "registers"
LAST, OWN = "last layer of Llama", "the block's own layer of Llama"
LLAMA_TOKENS = 5


def sd3_calls(references: int = 0) -> list[Call]:
    # modules/diffusionmodules/mmdit.py:622 puts context before x. No names of blocks.
    return unnamed("joint", SD3["num_blocks"], (TXT, IMG), flat=True)


def sd35_medium_calls(references: int = 0) -> list[Call]:
    # mmdit.py:641: the first blocks have an attention of the image alone, after the joint one.
    calls = []
    for joint in sd3_calls():
        calls.append(joint)
        if joint.layer[1] in SD35_MEDIUM["x_block_self_attn_layers"]:
            calls.append(Call((IMG,), (IMG,), ("image", joint.layer[1]), flat=True))
    return calls


def aura_calls(references: int = 0) -> list[Call]:
    # aura/mmdit.py:166 text before image, in single layers too (:487); :464 eight learned tokens
    # before the text. No names of blocks.
    parts = (REGISTERS, TXT, IMG)
    double = AURAFLOW["n_double_layers"]
    return unnamed("double", double, parts) + unnamed(
        "single", AURAFLOW["n_layers"] - double, parts
    )


def hidream_calls(references: int = 0) -> list[Call]:
    # hidream/model.py:120 image before text. Text is that of T5, then twice that of Llama: its
    # last layer (:786) and the layer that belongs to the block (:790, :814). No names.
    parts = (IMG, TXT, LAST, OWN)
    double = unnamed("double", HIDREAM["num_layers"], parts, flat=True)
    return double + unnamed("single", HIDREAM["num_single_layers"], parts, flat=True)


def sd3_positions(base) -> None:
    """Fill the table of positions, which comes with checkpoints."""
    from comfy.ldm.modules.diffusionmodules.mmdit import get_2d_sincos_pos_embed

    network = base.diffusion_model
    table = get_2d_sincos_pos_embed(network.hidden_size, network.pos_embed_max_size)
    network.pos_embed.copy_(torch.from_numpy(table))


def hidream_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt of T5, with every layer of Llama."""
    cond, values = pooled(20)(family, generator, rows, tokens)
    return cond, {**values, "conditioning_llama3": random(generator, rows, 3, LLAMA_TOKENS, 28)}


def hidream_edit_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt of HiDream-E1, with the picture that is to be changed."""
    cond, values = hidream_prompt(family, generator, rows, tokens)
    seed = int(torch.randint(1000, (), generator=generator))
    return cond, {**values, "concat_latent_image": family.latents(1, seed)}


SD3_FAMILIES = (
    Family("sd3", "SD3", SD3, sd3_calls, pooled(20), finish=sd3_positions, sharp=r"\.attn\.qkv"),
    Family("sd35_medium", "SD3", SD35_MEDIUM, sd35_medium_calls, pooled(20), finish=sd3_positions),
    Family(
        "auraflow",
        "AuraFlow",
        AURAFLOW,
        aura_calls,
        lengths=lambda parts, references: {**parts, REGISTERS: 8},
        sharp=r"t_embedder\.mlp\.2|attn\.w[12][ov]",  # its queries and keys have no scales
    ),
    Family(
        "hidream",
        "HiDream",
        HIDREAM,
        hidream_calls,
        hidream_prompt,
        texts=(TXT, LAST, OWN),
        lengths=lambda parts, references: {**parts, LAST: LLAMA_TOKENS, OWN: LLAMA_TOKENS},
    ),
    # hidream/model.py:733 puts the picture to be changed to the right of ours: their tokens
    # alternate, row by row.
    Family(
        "hidream_e1",
        "HiDream",
        HIDREAM,
        hidream_calls,
        hidream_edit_prompt,
        columns=2,
        odd=False,  # the other picture has a size of its own
        texts=(TXT, LAST, OWN),
        lengths=lambda parts, references: {**parts, LAST: LLAMA_TOKENS, OWN: LLAMA_TOKENS},
    ),
)


# Self-attention and cross-attention: Cosmos-Predict2, Anima, Kandinsky5 --------------------------

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
ANIMA = {**COSMOS, "image_model": "anima"}
KANDINSKY5 = {
    "image_model": "kandinsky5",
    "model_dim": 32,
    "ff_dim": 64,
    "time_dim": 32,
    "visual_embed_dim": 64,
    "in_text_dim": WIDTH,
    "in_text_dim2": 20,
    "axes_dims": (4, 6, 6),
    "rope_scale_factor": (1.0, 1.0, 1.0),
    "num_text_blocks": 2,
    "num_visual_blocks": 5,
}


def with_cross_attention(layers: list[Call]) -> list[Call]:
    """Every layer, and a call with the same ids in which the image attends to the text."""
    crosses = (Call((IMG,), (TXT,), ids=call.ids) for call in layers)
    return list(itertools.chain.from_iterable(zip(layers, crosses, strict=True)))


def cosmos_calls(references: int = 0) -> list[Call]:
    # cosmos/predict2.py:530, :555: self-attention, then cross-attention, under the block_index
    # of :922. Nothing else is named.
    return with_cross_attention(
        [
            Call((IMG,), (IMG,), ("block", number), {"block_index": number})
            for number in range(COSMOS["num_blocks"])
        ]
    )


def kandinsky_calls(references: int = 0) -> list[Call]:
    # kandinsky5/model.py:367 text, :375-378 the names of blocks, :259, :264 self-attention, then
    # cross-attention.
    layers = named("double", KANDINSKY5["num_visual_blocks"], (IMG,))
    return refiner(2, TXT) + with_cross_attention(layers)


def anima_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt of Qwen3, with the ids and weights of T5's tokens."""
    cond, values = plain(family, generator, rows, tokens)
    ids = torch.randint(32128, (tokens + 2,), generator=generator, dtype=torch.int)
    return cond, {**values, "t5xxl_ids": ids, "t5xxl_weights": torch.ones(tokens + 2)}


def small_adapter(base) -> None:
    """Put a narrow adapter for the wide one, whose widths are fixed in ComfyUI."""
    import comfy.ops
    from comfy.ldm.anima.model import LLMAdapter

    base.diffusion_model.llm_adapter = LLMAdapter(
        source_dim=WIDTH,
        target_dim=WIDTH,
        model_dim=WIDTH,
        num_layers=2,
        num_heads=2,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    ).requires_grad_(False)


CROSS_FAMILIES = (
    Family("cosmos_predict2", "CosmosT2IPredict2", COSMOS, cosmos_calls),
    # anima/model.py:198-205: its adapter calls PyTorch's own attention (:80), makes as many tokens
    # as T5 has, for one row only (comfy/model_base.py:1491), and pads to 512 of them.
    Family(
        "anima",
        "Anima",
        ANIMA,
        cosmos_calls,
        anima_prompt,
        least_text=512,
        prompt_rows=False,
        finish=small_adapter,
    ),
    # kandinsky5/model.py:394 pads odd pictures, and never takes the padding away.
    Family(
        "kandinsky5_image",
        "Kandinsky5Image",
        KANDINSKY5,
        kandinsky_calls,
        pooled(20),
        odd=False,
    ),
)


# Krea2, Ideogram4, PixelDiT, PiD, HiDream-O1, Stable Cascade -------------------------------------

KREA2 = {
    "image_model": "krea2",
    "features": 64,
    "channels": 16,
    "patch": 2,
    "layers": 5,
    "heads": 4,
    "kvheads": 2,
    "multiplier": 1,
    "tdim": 32,
    "txtlayers": 3,
    "txtdim": WIDTH // 3,
    "txtheads": 4,
    "txtkvheads": 4,
}
IDEOGRAM4 = {
    "image_model": "ideogram4",
    "in_channels": 128,
    "num_layers": 5,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "intermediate_size": 64,
    "adaln_dim": 16,
    "llm_features_dim": WIDTH,
    "rope_theta": 5000000,
    "mrope_section": [4, 2, 2],
    "norm_eps": 1e-5,
}
PIXELDIT = {
    "image_model": "pixeldit_t2i",
    "num_groups": 2,
    "hidden_size": 32,
    "pixel_hidden_size": 4,
    "pixel_attn_hidden_size": 32,
    "pixel_num_groups": 2,
    "patch_depth": 4,
    "pixel_depth": 2,
    "txt_embed_dim": WIDTH,
}
PID = {
    **PIXELDIT,
    "image_model": "pid",
    "lq_latent_channels": 16,
    "lq_hidden_dim": 16,
    "lq_num_res_blocks": 1,
    "lq_interval": 2,
    "latent_spatial_down_factor": 8,
}
HIDREAM_O1 = {
    "image_model": "hidream_o1",
    "text_config_overrides": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_dims": [4, 2, 2],
    },
    "vision_config_overrides": {
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 32,
        "depth": 1,
        "num_position_embeddings": 16,
    },
}
CASCADE = {
    "stable_cascade_stage": "c",
    "c_cond": 32,
    "c_hidden": [32, 32],
    "nhead": [2, 2],
    "blocks": [[1, 2], [2, 1]],
    "c_clip_text": WIDTH,
    "c_clip_text_pooled": 20,
}
TAPS = "taps"  # layers of a text encoder
TIME = "time"  # a token of the noise level
CLIP = "clip"  # tokens made of what CLIP made of prompt and pictures


def krea_calls(references: int = 0) -> list[Call]:
    # krea2/model.py:158 attends among the layers of each text token, the tokens being rows; :162
    # among text tokens; both before blocks are named. :353 text before image, :324 references
    # after it; :365-369 the names of blocks and an img_slice that includes references. :95-96
    # repeats keys and values for every query head.
    parts = (TXT, IMG, REF)
    return [
        *refiner(2, TAPS, rows=TXT),
        *refiner(2, TXT),
        *named("single", KREA2["layers"], parts, img_slice=(IMG, REF), repeated=2),
    ]


def krea_references(family: Family, latents: list[torch.Tensor], seed: int) -> dict:
    """Reference latents, which Krea2 overlooks without a method (krea2/model.py:311)."""
    return {"reference_latents": latents, "reference_latents_method": "index"}


def ideogram_calls(references: int = 0) -> list[Call]:
    # ideogram4/model.py:272 text before image, :289 the mask; no names of blocks.
    mask = ("rows", 1, "queries", "keys")
    return unnamed("layer", IDEOGRAM4["num_layers"], (TXT, IMG), mask=mask)


def pixel_calls(references: int = 0) -> list[Call]:
    # pixeldit/model.py:65-69 text before image; pixeldit/modules.py:76 the image alone, a token
    # for the pixels of a patch. No names of blocks.
    patches = unnamed("patch", PIXELDIT["patch_depth"], (TXT, IMG), split=True)
    return patches + unnamed("pixel", PIXELDIT["pixel_depth"], (IMG,))


def o1_calls(references: int = 0) -> list[Call]:
    # hidream_o1/model.py:194 image after text, and references after it (:158). Text attends by
    # itself, which no override sees; hidream_o1/attention.py:32 is what follows it: a token of
    # the noise level, which is the last of the text (conditioning.py:192, :219), the image and
    # references. Their keys include the text's, from a cache after the first evaluation (:21).
    count = HIDREAM_O1["text_config_overrides"]["num_hidden_layers"]
    queries = (TIME, IMG, REF)
    return named("double", count, queries, (TXT, *queries), grouped=2, split=True)


def o1_lengths(parts: dict[str, int], references: int) -> dict[str, int]:
    # hidream_o1/conditioning.py:39-78 makes a picture of 96 x 128 pixels into 4 x 5 patches, two
    # into 3 x 4 patches each; and each into 10 x 13 tokens of text, between two more.
    patches = {0: 0, 1: 4 * 5, 2: 2 * 3 * 4}[references]
    text = parts[TXT] - 1 + references * (10 * 13 + 2)
    return {**parts, TXT: text, TIME: 1, REF: patches}


def cascade_calls(references: int = 0) -> list[Call]:
    # cascade/common.py:54: the keys are those of the image and of what CLIP made.
    down, up = (sum(blocks) for blocks in CASCADE["blocks"])
    return [
        *unnamed("down", down, (IMG,), (IMG, TXT, CLIP), flat=True),
        *unnamed("up", up, (IMG,), (IMG, TXT, CLIP), flat=True),
    ]


def no_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """What DualModelGuider gives to Ideogram's model of no prompt."""
    return None, {}


def pid_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt after the node PiDConditioning, whose latents are to be made into pixels."""
    cond, values = masked(family, generator, rows, tokens)
    latents = random(generator, rows, 16, 2, 3)
    return cond, {**values, "lq_latent": latents, "degrade_sigma": torch.tensor([0.2])}


def o1_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """The ids of a prompt's tokens, in the template of comfy/text_encoders/hidream_o1.py:80."""
    before, after = [151644, 872, 198], [151645, 198, 151644, 77091, 198, 151669, 151673]
    shape = rows, tokens - len(before) - len(after)
    own = torch.randint(1000, 2000, shape, generator=generator)
    ids = torch.cat([torch.tensor(before).expand(rows, -1), own, torch.tensor([after] * rows)], 1)
    return ids.unsqueeze(-1).float(), {"pooled_output": None, "text_input_ids": ids}


def o1_references(family: Family, latents: list[torch.Tensor], seed: int) -> dict:
    """What the node HiDreamO1ReferenceImages adds: pictures, not latents."""
    return {"reference_latents": [(picture.movedim(1, -1) / 4 + 0.5) for picture in latents]}


def cascade_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    cond, values = plain(family, generator, rows, tokens)
    return cond, {**values, "pooled_output": random(generator, rows, 1, 20)}


OTHER_FAMILIES = (
    Family(
        "krea2",
        "Krea2",
        KREA2,
        krea_calls,
        heads=4,
        references=True,
        refer=krea_references,
        lengths=lambda parts, references: {**parts, TAPS: KREA2["txtlayers"]},
    ),
    Family("ideogram4", "Ideogram4", IDEOGRAM4, ideogram_calls, masked, patch=1),
    Family(
        "ideogram4_unconditional",
        "Ideogram4",
        IDEOGRAM4,
        lambda references: unnamed("layer", IDEOGRAM4["num_layers"], (IMG,)),
        no_prompt,
        patch=1,
        prompted=False,
    ),
    Family("pixeldit", "PixelDiTT2I", PIXELDIT, pixel_calls, masked, patch=16),
    Family("pid", "PiD", PID, pixel_calls, pid_prompt, patch=16),
    Family(
        "hidream_o1",
        "HiDreamO1",
        HIDREAM_O1,
        o1_calls,
        o1_prompt,
        patch=32,
        text=17,
        heads=4,
        odd=False,
        references=True,
        reference_rows=False,
        tells_references=False,
        refer=o1_references,
        lengths=o1_lengths,
    ),
    Family(
        "stable_cascade_c",
        "Stable_Cascade_C",
        CASCADE,
        cascade_calls,
        cascade_prompt,
        patch=1,
        lengths=lambda parts, references: {**parts, CLIP: 2 * 4},
        sharp=r"attention\.attn\.to_[qk]\.weight",
    ),
)


# Those whose attention an override never sees ----------------------------------------------------

PIXART = {
    "image_model": "pixart_alpha",
    "num_heads": 2,
    "patch_size": 2,
    "hidden_size": 48,
    "in_channels": 4,
    "depth": 5,
    "mlp_ratio": 2.0,
    "caption_channels": WIDTH,
    "model_max_length": 7,
    "pe_interpolation": 1,
    "micro_condition": True,
}
HUNYUAN_DIT = {
    "image_model": "hydit",
    "depth": 6,
    "hidden_size": 32,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "text_states_dim": WIDTH,
    "text_states_dim_t5": WIDTH,
    "text_len": 7,
    "text_len_t5": 9,
}
ERNIE = {
    "image_model": "ernie",
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_layers": 5,
    "ffn_hidden_size": 64,
    "text_in_dim": WIDTH,
    "rope_axes_dim": (4, 6, 6),
}


def unseen_calls(references: int = 0) -> list[Call]:
    # pixart/blocks.py:74, :172, hydit/attn_layers.py:164, :212, hydit/poolers.py:33 and
    # ernie/model.py:130 call attention without transformer options.
    return []


def hydit_prompt(family: Family, generator: torch.Generator, rows: int, tokens: int):
    """A prompt of a BERT and of a T5, which come with masks."""
    cond, values = masked(family, generator, rows, tokens)
    t5 = random(generator, rows, HUNYUAN_DIT["text_len_t5"], family.width)
    mask = torch.ones(1, t5.shape[1], dtype=torch.long)
    return cond, {**values, "conditioning_mt5xl": t5, "attention_mask_mt5xl": mask}


def no_unconditional(base) -> None:
    """Fill a prompt that PixArt holds for its training."""
    base.diffusion_model.y_embedder.y_embedding.zero_()


UNSEEN_FAMILIES = (
    # Its positions divide by a size in steps of 64, so that its pictures cannot be small.
    Family(
        "pixart",
        "PixArtAlpha",
        PIXART,
        unseen_calls,
        size=(3, 31),
        odd=False,
        finish=no_unconditional,
    ),
    Family("hunyuan_dit", "HunyuanDiT", HUNYUAN_DIT, unseen_calls, hydit_prompt),
    Family("ernie", "ErnieImage", ERNIE, unseen_calls, patch=1),
)

FAMILIES = {
    family.name: family
    for family in (
        *FLUX_FAMILIES,
        *QWEN_FAMILIES,
        *LUMINA_FAMILIES,
        *SD3_FAMILIES,
        *CROSS_FAMILIES,
        *OTHER_FAMILIES,
        *UNSEEN_FAMILIES,
    )
}


def available() -> list[str]:
    """The names of the families that this ComfyUI has."""
    return [name for name, family in FAMILIES.items() if family.available()]
