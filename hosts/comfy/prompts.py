"""Prompts that change along a clip, as conditioning with one row per frame."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import BadInputError

HOLD, BLEND = "hold", "blend"
BETWEEN = (HOLD, BLEND)  # what frames between two prompts get
LINE = re.compile(r"\s*(\d+)\s*[:：]\s*(.*)")  # noqa: RUF001  (the colon of Chinese keyboards)
# Tokens may be repeated, all of them equally often, without a change. Beyond this many times, the
# prompts of a text encoder are too unlike to be brought to one length.
MOST_REPEATS = 8


@dataclass(frozen=True)
class Prompt:
    """A prompt and the frame from which it is valid."""

    frame: int
    text: str


def prompts_in(text: str, frames: int) -> list[Prompt]:
    """Read prompts from lines such as "12: a red ball", in the order of their frames.

    A line without a number belongs to the prompt before it. Raises BadInputError for a text that
    does not begin with a frame, for a frame that is named twice, and for one beyond the clip.
    """
    found: dict[int, str] = {}
    last = None
    for line in filter(str.strip, text.splitlines()):
        if match := LINE.fullmatch(line):
            last = int(match[1])
            if last in found:
                raise BadInputError("text", f"frame {last} has two prompts.", "Leave one of them.")
            found[last] = match[2].strip()
        elif last is None:
            raise BadInputError(
                "text",
                f"the line '{line.strip()}' comes before any frame.",
                "Begin with the number of a frame and a colon, e.g. '0: a red ball'.",
            )
        else:
            found[last] = f"{found[last]} {line.strip()}".strip()
    if beyond := [frame for frame in found if frame >= frames]:
        raise BadInputError(
            "text",
            f"frame {beyond[0]} is beyond the clip, whose last frame is {frames - 1}.",
            "Name frames of the clip, or set frames to their number.",
        )
    if not found:
        raise BadInputError("text", "it is empty.", "Write at least '0: ' and a prompt.")
    return [Prompt(frame, found[frame]) for frame in sorted(found)]


def prompts_along(clip: Any, text: str, frames: int, between: str) -> list:
    """Return CONDITIONING with one row per frame.

    clip: a CLIP. text: see `prompts_in`; frames before the first prompt get that one. between: a
    name in BETWEEN. HOLD keeps a prompt until the next one, BLEND goes evenly from one to the next.
    Raises BadInputError.
    """
    if clip is None:
        raise BadInputError("clip", "it is empty.", "Connect the CLIP of a checkpoint.")
    prompts = prompts_in(text, frames)
    encoded = [_encoded(clip, prompt.text) for prompt in prompts]
    shares = [_shares(prompts, frame, between) for frame in range(frames)]
    tokens = _same_length([cond for cond, _ in encoded], prompts)
    rows, options = _mixed(tokens, shares), dict(encoded[0][1])
    for key, value in options.items():
        if isinstance(value, Tensor):
            values = [others.get(key) for _, others in encoded]
            options[key] = _mixed(_same_shape(key, values, prompts), shares)
    return [[rows, options]]


def _encoded(clip: Any, text: str) -> tuple[Tensor, dict]:
    """Encode one prompt, as the stock node does."""
    conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text))
    if len(conditioning) != 1:
        raise BadInputError(
            "clip",
            f"it gives {len(conditioning)} conds for a prompt, because hooks change it over time.",
            "Use the CLIP from before the hooks.",
        )
    cond, options = conditioning[0]
    return cond, options


def _shares(prompts: Sequence[Prompt], frame: int, between: str) -> list[float]:
    """Return how much each prompt counts in a frame; the sum is 1."""
    starts = [prompt.frame for prompt in prompts]
    current = max((n for n, start in enumerate(starts) if start <= frame), default=0)
    shares = [0.0] * len(prompts)
    shares[current] = 1.0
    if between == BLEND and current + 1 < len(prompts) and frame > starts[current]:
        along = (frame - starts[current]) / (starts[current + 1] - starts[current])
        shares[current : current + 2] = 1 - along, along
    return shares


def _mixed(rows: Sequence[Tensor], shares: Sequence[Sequence[float]]) -> Tensor:
    """Mix single rows, (1, ...), to one row per frame, (frames, ...)."""
    mixed = [
        sum(share * row for share, row in zip(of_frame, rows, strict=True) if share)
        for of_frame in shares
    ]
    return torch.cat([torch.as_tensor(row) for row in mixed])


def _same_length(conds: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[Tensor]:
    """Repeat tokens, (1, tokens, channels), until all prompts have equally many.

    Attention to tokens does not change if each of them is there equally often.
    """
    lengths = [cond.shape[1] for cond in conds]
    common = math.lcm(*lengths)
    if common > MOST_REPEATS * max(lengths):
        one = lengths.index(max(lengths))
        other = lengths.index(min(lengths))
        raise BadInputError(
            "text",
            f"with this text encoder the prompts of the frames {prompts[one].frame} and "
            f"{prompts[other].frame} have {lengths[one]} and {lengths[other]} tokens, which cannot "
            "be put into one batch.",
            "Write prompts with equally many tokens.",
        )
    return [cond.repeat(1, common // cond.shape[1], 1) for cond in conds]


def _same_shape(key: str, values: Sequence[Any], prompts: Sequence[Prompt]) -> list[Tensor]:
    for value, prompt in zip(values, prompts, strict=True):
        if not isinstance(value, Tensor) or value.shape != values[0].shape:
            raise BadInputError(
                "text",
                f"the text encoder gives the prompt of frame {prompt.frame} another {key} than the "
                "first one.",
                "Write prompts with equally many tokens.",
            )
    return list(values)
