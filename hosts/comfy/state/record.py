"""Finished frames of a run, kept on disk until the whole run is finished.

Frames are kept as they are painted: one group after another, and a group is usually one frame. Each
group has a file with its latents. Each frame has a file with its hidden states for as long as a
later group needs them. Files are written whole or not at all. The file with the latents is written
last, and it names the hidden states that belong to it. So no matter when a run ends, the groups
that have latents are complete, and a run can continue from them. All other files are left over and
ignored.

A run never fails because of its record. If the disk is full, or the folder cannot be written, the
user is told, and the run continues without the record.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import folder_paths
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ....attention import FrameByFrame, State
from ..page.notes import Notes
from .comfy_state import ComfyState, Origin
from .files import SUFFIX, read, write, write_whole
from .fingerprint import NotRepeatable, fingerprint
from .search import UNFINISHED

log = logging.getLogger("crossframe")
PARTS = (".hidden_", ".latents_", ".tmp")  # names of incomplete files begin with these

# Samples and x0 of the frames of a group, each (frames, channels, height, width).
Finished = tuple[torch.Tensor, torch.Tensor | None]


class Leaving(Protocol):
    """What a record asks of a run that paints frame by frame."""

    lead: FrameByFrame

    def leave(self, frames: Collection[int] | None = None) -> State:
        """Return what some frames, or all, have left."""

    def needed(self) -> frozenset[int]:
        """Return the painted frames that later groups need."""


@dataclass(frozen=True)
class Taken:
    """What is taken over from an interrupted run.

    finished: the finished groups, in the order of painting. state: what they have left.
    """

    finished: tuple[Finished, ...]
    state: ComfyState

    @property
    def groups(self) -> int:
        """The number of finished groups."""
        return len(self.finished)


def open_record(node, guider, contents: Sequence[Any], notes: Notes) -> "Record | None":
    """Return the record of a sampling in the graph that is executed, or None if it can have none.

    node: the class that ComfyUI executes. contents: what the frames depend on, as plain data.
    notes: get a line if there is no record, or if it cannot be kept.
    """
    try:
        return Record(fingerprint(node, guider, *contents), notes)
    except NotRepeatable as reason:
        notes.warn(f"This run is not resumable, because {reason}.")
        return None


class Record:
    """The frames of one run on disk."""

    def __init__(self, name: str, notes: Notes) -> None:
        """name: a fingerprint of what frames depend on. notes: get a line about each problem."""
        self.folder = Path(folder_paths.get_output_directory()) / UNFINISHED / name
        self.notes = notes
        self._given_up = False

    def finished(self) -> list[Finished]:
        """Return the finished groups in the folder, from the first on."""
        found: list[Finished] = []
        while (file := self._latents(len(found))).exists():
            tensors = load_file(file)
            found.append((tensors["samples"], tensors.get("x0")))
        return found

    def found(self, first: int, origin: Origin) -> Taken | None:
        """Return what an interrupted run has left, or None if there is nothing usable.

        first: the number of the latent's first frame. origin: the origin of the new run.
        """
        try:
            finished = self.finished()
            if not finished:
                return None
            state = self._state(len(finished), first, origin)
        except OSError as error:
            self._give_up(f"{self.folder} cannot be read ({error})")
            return None
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            self.notes.warn(
                f"This run is starting over, because its kept frames cannot be used ({error})."
            )
            self.discard()
            return None
        count = sum(len(samples) for samples, _ in finished)
        log.info("Cross-frame attention: going on after %d finished frames.", count)
        return Taken(tuple(finished), state)

    def add(self, finished: Finished, run: Leaving, origin: Origin) -> None:
        """Keep the group that a run has just finished, if that is possible."""
        if self._given_up:
            return
        try:
            self._write(finished, run, origin)
        except (OSError, SafetensorError) as error:  # the latter is what a full disk comes as
            self._give_up(f"{self.folder} cannot be written ({error})")

    def discard(self) -> None:
        """Remove the record, because the run is finished or the record cannot be used."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.path.isdir(self.folder):
            self.notes.warn(
                f"{self.folder} could not be removed. Nothing in it is needed any more."
            )

    def _state(self, groups: int, first: int, origin: Origin) -> ComfyState:
        """Return what the first groups have left. first: the number of the latent's first frame."""
        with safe_open(self._latents(groups - 1), framework="pt") as opened:
            about = opened.metadata() or {}
        if "needed" not in about:
            raise ValueError("its frames were kept by another version of CrossFrame")
        stored: dict = {}
        for number in json.loads(about["needed"]):
            for key, tokens in read(self._hidden(number)).stored.items():
                stored.setdefault(key, {}).update(tokens)
        return ComfyState(first, 0, tuple(json.loads(about["noise_levels"])), stored, origin)

    def _write(self, finished: Finished, run: Leaving, origin: Origin) -> None:
        """Write a group's files, first the hidden states and then the latents."""
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, lead = sorted(run.needed()), run.lead
        for number in needed:
            file = self._hidden(number)
            # An existing file of this group is left over from a run that did not finish the group.
            if number in lead.frames or not file.exists():
                write(ComfyState.of(run.leave({number}), origin), file)
        samples, x0 = finished
        tensors = {"samples": samples.contiguous()}
        if x0 is not None:
            tensors["x0"] = x0.contiguous()
        about = {"noise_levels": json.dumps(lead.noise_levels), "needed": json.dumps(needed)}
        write_whole(tensors, self._latents(lead.group), about)
        self._tidy({self._hidden(number) for number in needed})

    def _tidy(self, needed: Collection[Path]) -> None:
        """Remove hidden states that no later frame needs, and incomplete files.

        A file that cannot be removed does no harm but takes room.
        """
        for file in [*self.folder.iterdir()]:
            if file.name.startswith(PARTS) or (file.name.endswith(SUFFIX) and file not in needed):
                with contextlib.suppress(OSError):
                    file.unlink()

    def _give_up(self, reason: str) -> None:
        """Continue without the record. reason: what does not work, in words."""
        self._given_up = True
        self.notes.warn(
            f"Finished frames are not kept on disk from here on: {reason}. The run continues, but "
            "if it is interrupted, frames that are not kept have to be painted again."
        )

    def _latents(self, group: int) -> Path:
        return self.folder / f"latents_{group:06}.safetensors"

    def _hidden(self, frame: int) -> Path:
        return self.folder / f"hidden_{frame:06}{SUFFIX}"
