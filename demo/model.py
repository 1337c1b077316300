"""The demo model: Stable Diffusion's parts in a size that can be shipped and trained on a CPU.

It has the same structure as Stable Diffusion 1.x (U-Net with self- and cross-attention in down, mid
and up blocks, ControlNet, autoencoder, CLIP text encoder), but it is narrow and made for 64 x 64
pixels. Its autoencoder shrinks by 2, so that patterns a few pixels wide survive. The U-Net's finest
level has no attention, which would cost as much as everything else. Like Stable Diffusion 2.x, the
model predicts v.
"""

import json
from pathlib import Path

from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .looks import WORDS
from .world import SIZE

FOLDER = Path(__file__).parent / "model"
LATENT_CHANNELS = 4
SHRINK = 2  # pixels per latent along each axis
PROMPT_TOKENS = 24
PROMPT_CHANNELS = 64
NORM_GROUPS = 8
START, END = "<|startoftext|>", "<|endoftext|>"


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=NORM_GROUPS,
        latent_channels=LATENT_CHANNELS,
        sample_size=SIZE,
        force_upcast=False,
    )


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // SHRINK,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,  # diffusers' name for the number of heads
        cross_attention_dim=PROMPT_CHANNELS,
        norm_num_groups=NORM_GROUPS,
    )


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(16, 32), load_weights_from_unet=False
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=PROMPT_CHANNELS,
            intermediate_size=2 * PROMPT_CHANNELS,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def new_tokenizer(folder: Path) -> CLIPTokenizer:
    """Return a CLIP tokenizer in which each of the world's words and each byte is one token.

    Its files are written to `folder`.
    """
    alphabet = [chr(code) for code in _byte_characters()]
    vocabulary = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        # Later merges are applied after earlier ones, so the words before stay whole.
        pieces = _merged([*word[:-1], f"{word[-1]}</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = _merged(pieces, merges[-1:])
            vocabulary.append("".join(merges[-1]))
            pieces = _merged(pieces, merges)
    vocabulary = list(dict.fromkeys([*vocabulary, START, END]))
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=PROMPT_TOKENS
    )


def _merged(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Apply byte-pair merges to the pieces of a word, in their order."""
    for left, right in merges:
        place = 0
        while place < len(pieces) - 1:
            if (pieces[place], pieces[place + 1]) == (left, right):
                pieces = [*pieces[:place], left + right, *pieces[place + 2 :]]
            place += 1
    return pieces


def _byte_characters() -> list[int]:
    """Return the code points that stand for the 256 bytes in byte-level BPE (GPT-2 and CLIP).

    Printable bytes stand for themselves. The others get code points from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*printable, *range(256, 256 + 256 - len(printable))]
