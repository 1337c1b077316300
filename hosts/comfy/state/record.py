"""Finished frames of a run, kept on disk until the whole run is finished.

Each frame has a file with its latents, and one with its hidden states for as long as a later
frame needs them. Files are written whole or not at all, the latents last, and they name the
hidden states that belong to them. So whatever moment the run ends at, the frames with latents are
complete and can be gone on from; whatever else lies there is left over and not looked at.

A run never fails by its record. If the disk is full, or the folder cannot be written, that is
said and the run goes on without.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ..page.notes import Notes
from .comfy_state import ComfyState, Origin
from .continuation import Continuation
from .files import SUFFIX, read, write, write_whole
from .fingerprint import NotRepeatable, fingerprint
from .search import UNFINISHED

log = logging.getLogger("crossframe")
PARTS = (".hidden_", ".latents_", ".tmp")  # what a file is called before all of it is there

Frame = tuple[torch.Tensor, torch.Tensor | None]  # samples and x0, each (1, channels, h, w)


def open_record(node, guider, contents: Sequence[Any], notes: Notes) -> "Record | None":
    """The record of a sampling in the graph that is executed; None if it cannot have one.

    node: the class that ComfyUI executes. contents: what the frames depend on, as plain data.
    notes: where it is said if there is none, or if it cannot be kept.
    """
    try:
        return Record(fingerprint(node, guider, *contents), notes)
    except NotRepeatable as reason:
        notes.warn(f"This run is not resumable, since {reason}.")
        return None


class Record:
    """The frames of one run on disk."""

    def __init__(self, name: str, notes: Notes) -> None:
        """name: of everything that the frames depend on. notes: where troubles are said."""
        self.folder = Path(folder_paths.get_output_directory()) / UNFINISHED / name
        self.notes = notes
        self._given_up = False

    def finished(self) -> list[Frame]:
        """The frames that are there, from the first on."""
        frames: list[Frame] = []
        while (file := self._latents(len(frames))).exists():
            found = load_file(file)
            frames.append((found["samples"], found.get("x0")))
        return frames

    def state(self, rows: int, frame: int, origin: Origin) -> ComfyState:
        """What the first `rows` frames of the latent have left. frame: number of the next one."""
        with safe_open(self._latents(rows - 1), framework="pt") as opened:
            about = opened.metadata() or {}
        if "needed" not in about:
            raise ValueError("its frames were kept by another version of CrossFrame")
        kept: dict = {}
        for number in json.loads(about["needed"]):
            for key, tokens in read(self._hidden(number)).kept.items():
                kept.setdefault(key, {}).update(tokens)
        return ComfyState(frame, 0, tuple(json.loads(about["noise_levels"])), kept, origin)

    def found(self, going: Continuation, origin: Origin) -> tuple[list[Frame], Continuation]:
        """The frames that are finished, and how to go on after them. origin: of the new run."""
        try:
            done = self.finished()
            if not done:
                return [], going
            state = self.state(len(done), going.first + len(done), origin)
        except OSError as error:
            self._give_up(f"{self.folder} cannot be read ({error})")
            return [], going
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            self.notes.warn(
                f"This run is starting over, since what was kept of it cannot be used ({error})."
            )
            self.discard()
            return [], going
        log.info("Cross-frame attention: going on after %d finished frames.", len(done))
        return done, replace(going, resumed=state)

    def add(self, frame: Frame, run) -> None:
        """Keep the frame that a run has just finished, if that is possible."""
        if self._given_up:
            return
        try:
            self._write(frame, run)
        except (OSError, SafetensorError) as error:  # the latter is what a full disk comes as
            self._give_up(f"{self.folder} cannot be written ({error})")

    def discard(self) -> None:
        """Remove all of it: the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.path.isdir(self.folder):
            self.notes.warn(
                f"{self.folder} could not be removed. Nothing in it is needed any more."
            )

    def _write(self, frame: Frame, run) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = sorted(run.needed())
        for number in needed:
            file = self._hidden(number)
            # What lies there of this frame is left over from a run that did not finish it.
            if number == run.frame or not file.exists():
                write(run.leave({number}), file)
        samples, x0 = frame
        tensors = {"samples": samples.contiguous()}
        if x0 is not None:
            tensors["x0"] = x0.contiguous()
        about = {"noise_levels": json.dumps(run.noise_levels), "needed": json.dumps(needed)}
        write_whole(tensors, self._latents(run.frame - run.offset), about)
        self._tidy({self._hidden(number) for number in needed})

    def _tidy(self, needed: Collection[Path]) -> None:
        """Remove hidden states that no later frame needs, and parts of files.

        One that cannot be removed only takes room.
        """
        for file in [*self.folder.iterdir()]:
            if file.name.startswith(PARTS) or (file.name.endswith(SUFFIX) and file not in needed):
                with contextlib.suppress(OSError):
                    file.unlink()

    def _give_up(self, reason: str) -> None:
        """Go on without. reason: what does not work, in words."""
        self._given_up = True
        self.notes.warn(
            f"Finished frames are not kept on disk from here on: {reason}. The run goes on, but "
            "if it is interrupted, frames that are not kept have to be painted again."
        )

    def _latents(self, row: int) -> Path:
        return self.folder / f"latents_{row:06}.safetensors"

    def _hidden(self, frame: int) -> Path:
        return self.folder / f"hidden_{frame:06}{SUFFIX}"
