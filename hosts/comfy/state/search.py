"""List the state files that the user can choose from.

ComfyUI asks for this list whenever a page is loaded, and several times for every run of a graph.
The output folders of people who make videos can hold hundreds of thousands of files. So the search
is limited. The folder itself is read completely, as ComfyUI's own loaders do. Below it, folders are
read up to some depth, the most recently changed ones first, until a number of files has been seen.
A state that is not found can be moved up, and a state that a workflow names is loaded wherever it
lies.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from ..errors import BadInputError
from .files import SAVE, SUFFIX

UNFINISHED = "crossframe/unfinished"  # where runs in progress keep frames, in the output folder
NO_STATE = "no state yet"  # the only choice if there is no state, because a list must not be empty
DEPTH = 4  # how many levels of folders below the input or output folder are searched
MOST = 20_000  # after how many files and folders below it, and in one of its folders, it stops


def state_files() -> list[str]:
    """Return the states in ComfyUI's input and output folders, as ComfyUI's annotated paths.

    Returns [NO_STATE] if there are none.
    """
    found = [
        file.relative_to(folder).as_posix() + mark
        for folder, mark in (
            (Path(folder_paths.get_input_directory()), ""),
            (Path(folder_paths.get_output_directory()), " [output]"),
        )
        for file in _search(folder)
    ]
    return sorted(found) or [NO_STATE]


def check_file(name: str) -> None:
    """Raise BadInputError unless there is a file of that name in `state_files`, listed or not."""
    if name == NO_STATE:
        raise BadInputError(
            "file",
            "there was no state to choose from when the page was loaded.",
            f"Run a graph with {SAVE} at the output 'state' of a CrossFrame sampler, or copy a "
            "state into ComfyUI's input folder. Then reload the page and choose it.",
        )
    if not _is_there(name):
        raise BadInputError(
            "file",
            f"there is no file '{name}'.",
            f"Reload the page and choose another, or make it again with {SAVE}.",
        )


def _is_there(name: str) -> bool:
    """Return whether there is a file of that name in the input or output folder.

    Files in other folders are refused. This check replaces ComfyUI's own, which accepts only names
    in the list, and not every version of ComfyUI checks where an annotated path leads to.
    """
    try:
        file = os.path.abspath(folder_paths.get_annotated_filepath(name))
    except ValueError:
        return False
    folders = folder_paths.get_input_directory(), folder_paths.get_output_directory()
    inside = any(Path(file).is_relative_to(os.path.abspath(folder)) for folder in folders)
    return inside and os.path.isfile(file)


def _search(top: Path) -> Iterator[Path]:
    """Yield the states in a folder, within the limits of the search."""
    seen, level = 0, [top]
    for _ in range(DEPTH + 1):
        below: list[Path] = []
        for folder in sorted(level, key=_changed, reverse=True):
            if seen > MOST:
                return
            entries = _entries(folder, None if folder == top else MOST)
            seen += 0 if folder == top else len(entries)
            yield from (folder / name for name, is_folder in entries if _is_state(name, is_folder))
            below += (folder / name for name, is_folder in entries if is_folder)
        level = [folder for folder in below if folder != top / UNFINISHED]


def _is_state(name: str, is_folder: bool) -> bool:
    return name.endswith(SUFFIX) and not is_folder


def _entries(folder: Path, most: int | None) -> list[tuple[str, bool]]:
    """Return (name, whether it is a folder) for each visible entry of a folder.

    most: how many entries are read; None means all. A folder that cannot be read gives none.
    """
    try:
        with os.scandir(folder) as entries:
            return [
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in itertools.islice(entries, most)
                if not entry.name.startswith(".")
            ]
    except OSError:
        return []


def _changed(folder: Path) -> float:
    """Return when a folder was last changed, or 0 if it no longer exists."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0
