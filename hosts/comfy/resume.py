"""Finished frames of a run, kept on disk until the whole run is finished.

Each frame has a file with its latents, and one with its hidden states for as long as a later
frame needs them. Files are written whole or not at all, the latents last, so whatever moment
the run ends at, the frames with latents are complete and can be gone on from.
"""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import folder_paths
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from .continuation import Continuation
from .fingerprint import NotRepeatable, fingerprint
from .run import ComfyRun
from .state import ComfyState, Origin
from .state_files import SUFFIX, read, write, write_whole

log = logging.getLogger("crossframe")
FOLDER = "crossframe/unfinished"  # in the output folder, since ComfyUI empties its temp folder

Frame = tuple[torch.Tensor, torch.Tensor | None]  # samples and x0, each (1, channels, h, w)


def open_record(node, guider, *contents) -> "Record | None":
    """The record of a sampling in the graph that is executed; None if it cannot have one.

    node: the class that ComfyUI executes. contents: what the frames depend on, as plain data.
    """
    try:
        return Record(fingerprint(node, guider, *contents))
    except NotRepeatable as reason:
        log.warning("Cross-frame attention: not resumable, since %s.", reason)
        return None


class Record:
    """The frames of one run on disk."""

    def __init__(self, name: str) -> None:
        """name: of everything that the frames depend on."""
        self.folder = Path(folder_paths.get_output_directory()) / FOLDER / name

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
            noise_levels = json.loads(opened.metadata()["noise_levels"])
        kept: dict = {}
        for file in sorted(self.folder.glob(f"*{SUFFIX}")):
            for key, tokens in read(file).kept.items():
                kept.setdefault(key, {}).update(tokens)
        return ComfyState(frame, 0, tuple(noise_levels), kept, origin)

    def found(self, going: Continuation, origin: Origin) -> tuple[list[Frame], Continuation]:
        """The frames that are finished, and how to go on after them. origin: of the new run."""
        try:
            done = self.finished()
            if not done:
                return [], going
            state = self.state(len(done), going.first + len(done), origin)
        except (ValueError, KeyError, SafetensorError) as error:
            log.warning("Cross-frame attention: starting over, since %s", error)
            self.discard()
            return [], going
        log.info("Cross-frame attention: going on after %d finished frames.", len(done))
        return done, replace(going, resumed=state)

    def add(self, frame: Frame, run: ComfyRun) -> None:
        """Keep the frame that a run has just finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = {self._hidden(number): number for number in run.needed()}
        for file, number in needed.items():
            if not file.exists():
                write(run.leave({number}), file)
        samples, x0 = frame
        tensors = {"samples": samples.contiguous()}
        if x0 is not None:
            tensors["x0"] = x0.contiguous()
        target = self._latents(run.frame - run.offset)
        write_whole(tensors, target, {"noise_levels": json.dumps(run.noise_levels)})
        for file in self.folder.glob(f"*{SUFFIX}"):
            if file not in needed:
                file.unlink()

    def discard(self) -> None:
        """Remove all of it: the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _latents(self, row: int) -> Path:
        return self.folder / f"latents_{row:06}.safetensors"

    def _hidden(self, frame: int) -> Path:
        return self.folder / f"hidden_{frame:06}{SUFFIX}"
