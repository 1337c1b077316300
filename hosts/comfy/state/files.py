"""States as safetensors files, which are written whole or not at all and checked before use.

The name of every tensor is its address. Everything else is JSON in the file's metadata.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ....attention import Key, Layer
from ....attention.bank import readable_size
from ....attention.storage import Stored
from ..errors import BadInputError
from .comfy_state import NOT_KEPT, ComfyState, Origin, checked_state

SUFFIX = ".crossframe.safetensors"
FORMAT = "crossframe state 1"
SAVE = "CrossFrameSaveState"


def save_state(state: Any, prefix: str) -> tuple[Path, str]:
    """Write a state into ComfyUI's output folder; return the file and its subfolder there.

    state: what arrives at the node's input. prefix: the beginning of the file's name, which may
    include subfolders; a number follows it.
    Raises BadInputError if there is no state or not enough room for it.
    """
    state = checked_state(NOT_KEPT if state is None else state)
    folder, name, number, subfolder, _ = folder_paths.get_save_image_path(
        prefix, folder_paths.get_output_directory()
    )
    free = shutil.disk_usage(folder).free
    if state.nbytes > free:
        raise BadInputError(
            "state",
            f"it takes {readable_size(state.nbytes)}, but only {readable_size(free)} are free in "
            f"{folder}.",
            "Make room, or set bank_precision to 'int8 per token'.",
        )
    file = Path(folder) / f"{name}_{number:05}_{SUFFIX}"
    write(state, file)
    return file, subfolder


def write(state: ComfyState, file: Path) -> None:
    """Write a state to a file, which appears only when it is complete."""
    about = {
        "frames": state.frames,
        "scene": state.scene,
        "noise_levels": state.noise_levels,
        "origin": dataclasses.asdict(state.origin),
    }
    tensors = dict(_named(state))
    metadata = {"format": FORMAT, "tensors": str(len(tensors)), "about": json.dumps(about)}
    write_whole(tensors, file, metadata)


def write_whole(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file, which appears only when it is complete."""
    part = file.with_name(f".{file.name}.part")
    try:
        save_file(tensors, part, metadata)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _named(state: ComfyState) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the name in a file and the values of every tensor of a state."""
    for key, frames in state.stored.items():
        for frame, tokens in frames.items():
            for number, stored in enumerate(tokens):
                dtype = str(stored.dtype).removeprefix("torch.")
                visit = f".{key.visit}" if key.visit else ""
                count = f"{key.tokens}{visit}"
                entry: Any = key.entry  # (cond index, position in its list)
                words = (key.step, *key.layer, *entry, count, frame, number, dtype)
                name = "/".join(map(str, words))
                # A file must not hold the same memory twice, which views of one tensor would do.
                yield f"{name}/values", stored.values.contiguous()
                if stored.scale is not None:
                    yield f"{name}/scale", stored.scale.contiguous()


def load_state(name: str) -> ComfyState:
    """Read a state by its name in ComfyUI's folders. Raises BadInputError if it is not whole."""
    return read(Path(folder_paths.get_annotated_filepath(name)))


def read(file: Path) -> ComfyState:
    """Read a state from a file. Raises BadInputError if it is not a whole state."""
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise _unreadable(file, "is not a CrossFrame state, or is of another version")
            names = list(opened.keys())
            if len(names) != int(metadata["tensors"]):
                raise _unreadable(file, "is incomplete")
            return _state(json.loads(metadata["about"]), {n: opened.get_tensor(n) for n in names})
    except FileNotFoundError as error:
        raise _unreadable(file, "does not exist") from error
    except SafetensorError as error:
        raise _unreadable(file, f"is damaged, cut off, or not safetensors ({error})") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadInputError):
            raise
        raise _unreadable(file, f"is damaged ({error})") from error


def _unreadable(file: Path, problem: str) -> BadInputError:
    return BadInputError(
        "file", f"{file.name} {problem}.", f"Choose another, or make it again with {SAVE}."
    )


def _state(about: dict, tensors: dict[str, torch.Tensor]) -> ComfyState:
    """Rebuild a state. Raises one of Python's own errors if something is wrong."""
    origin = about["origin"]
    origin = Origin(**{key: _tuples(value) for key, value in origin.items()})
    kept: dict[Key, dict[int, tuple[Stored, ...]]] = {}
    for name in sorted(tensors):  # so that the streams of a frame come in order
        *words, what = name.split("/")
        if what == "scale":
            continue
        step, block, number, transformer, index, position, count, frame, stream, dtype = words
        layer = Layer(block, int(number), int(transformer))
        tokens, _, visit = count.partition(".")
        entry = int(index), int(position)
        key = Key(int(step), layer, entry, int(tokens), int(visit or 0))
        values = tensors[name]
        # (tokens, channels), or with heads as an axis of their own before or after the tokens
        if values.ndim not in (2, 3) or key.tokens not in values.shape[:-1]:
            raise ValueError(f"{name} has shape {tuple(values.shape)}")
        stored = Stored(
            values,
            tensors.get(f"{'/'.join(words)}/scale"),
            torch.device("cpu"),
            getattr(torch, dtype),
        )
        frames = kept.setdefault(key, {})
        if len(frames.get(int(frame), ())) != int(stream):
            raise ValueError(f"a tensor before {name} is missing")
        frames[int(frame)] = (*frames.get(int(frame), ()), stored)
    return ComfyState(
        int(about["frames"]), int(about["scene"]), tuple(about["noise_levels"]), kept, origin
    )


def _tuples(value):
    """Turn lists back into tuples, which JSON does not have."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
