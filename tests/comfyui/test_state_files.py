"""States in files: what is loaded is what was saved, and nothing else is taken for a state."""

import json
import os
import struct

import pytest
import tiny
import torch
from bench import refuses
from clips import Clip


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Input and output folders of ComfyUI: (input, output)."""
    import folder_paths

    found = tmp_path / "input", tmp_path / "output"
    for folder in found:
        folder.mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(found[0]))
    monkeypatch.setattr(folder_paths, "output_directory", str(found[1]))
    return found


def save(state, prefix="crossframe/state"):
    from crossframe.nodes.state import CrossFrameSaveState

    return CrossFrameSaveState.execute(state=state, filename_prefix=prefix)


def load(name):
    from crossframe.nodes.state import CrossFrameLoadState

    return CrossFrameLoadState.execute(file=name).args[0]


def options():
    from crossframe.nodes.state import CrossFrameLoadState

    return CrossFrameLoadState.INPUT_TYPES()["required"]["file"][1]["options"]


@pytest.fixture(params=["as computed", "int8 per token"])
def clip(request, sd15, canny):
    model = tiny.patch(sd15, references="first + previous", bank_precision=request.param)
    return Clip.of(model, canny)


NAME = "crossframe/state_00001_.crossframe.safetensors [output]"


def test_save_load_and_go_on(folders, clip):
    whole, _ = clip.paint()
    start, state = clip.paint(0, 3)
    saved = save(state)
    assert options() == [NAME]
    loaded = load(NAME)
    assert repr(loaded) == repr(state)
    assert repr(state) in saved.ui["text"]
    assert torch.equal(torch.cat((start, clip.paint(3, state=loaded)[0])), whole)


def test_another_save_is_another_file(folders, clip):
    _, state = clip.paint(0, 1)
    names = [save(state).ui["states"][0]["filename"] for _ in range(2)]
    assert len(set(names)) == 2
    assert sorted(file.name for file in (folders[1] / "crossframe").iterdir()) == names


def test_a_file_in_the_input_folder_is_found(folders, clip):
    _, state = clip.paint(0, 1)
    save(state)
    (file,) = (folders[1] / "crossframe").iterdir()
    file.rename(folders[0] / "mine.crossframe.safetensors")
    assert options() == ["mine.crossframe.safetensors"]
    assert load("mine.crossframe.safetensors").held == {0}


def put(folder, name="a"):
    """Make an empty file with the name of a state."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.crossframe.safetensors"
    file.touch()
    return file


def test_states_are_listed_wherever_a_prefix_or_a_user_puts_them(folders):
    put(folders[0])
    put(folders[0] / "from" / "elsewhere")
    put(folders[1])
    put(folders[1] / "2024" / "05" / "31" / "shot")
    end = "a.crossframe.safetensors"
    expected = [end, f"from/elsewhere/{end}", f"{end} [output]", f"2024/05/31/shot/{end} [output]"]
    assert options() == sorted(expected)


def test_what_a_run_in_progress_keeps_is_not_listed(folders):
    put(folders[1] / "crossframe" / "unfinished" / "0a1b", "hidden_000000")
    put(folders[1] / ".hidden")
    put(folders[1], ".part")
    (folders[1] / "folder.crossframe.safetensors").mkdir()
    assert options() == ["no state yet"]
    put(folders[1] / "unfinished")  # of the user, who may call a folder as he likes
    assert options() == ["unfinished/a.crossframe.safetensors [output]"]


def test_looking_for_states_does_not_read_all_of_a_large_folder(folders, monkeypatch):
    """Files that were changed last are listed. What lies too deep is not, but can be loaded."""
    from crossframe.hosts.comfy.state import search as state_search

    monkeypatch.setattr(state_search, "MOST", 20)
    for number in range(30):
        (folders[1] / f"frames{number}").mkdir()
        for frame in range(5):
            (folders[1] / f"frames{number}" / f"{frame}.png").touch()
        os.utime(folders[1] / f"frames{number}", (number, number))
    seen = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: seen.append(folder) or scan(folder))
    put(folders[1] / "shot")
    deep = put(folders[1] / "a" / "b" / "c" / "d" / "e")
    assert options() == ["shot/a.crossframe.safetensors [output]"]
    assert len(seen) < 15
    name = f"{deep.relative_to(folders[1])} [output]"
    refuses(lambda: load(name), "damaged, cut off")


def test_a_file_out_of_the_folders_is_not_loaded(folders, tmp_path):
    file = put(tmp_path)
    for name in (f"../{file.name}", str(file), f"../{file.name} [output]", f"{file.name} [temp]"):
        refuses(lambda name=name: load(name), "CrossFrameLoadState", f"no file '{name}'")


def test_the_file_is_as_large_as_the_state_says(folders, sd15, prompts):
    """Within 2 %, once hidden states outweigh their names."""
    inputs = {"latent": tiny.clip(1, size=64), "frame_noise": tiny.SAME, "steps": 1}
    _, state = tiny.frame_output(tiny.patch(sd15), *prompts, **inputs).args
    save(state)
    (file,) = (folders[1] / "crossframe").iterdir()
    assert state.nbytes <= file.stat().st_size <= 1.02 * state.nbytes


@pytest.fixture
def file(folders, sd15, canny):
    """A state's file."""
    _, state = Clip.of(tiny.patch(sd15), canny).paint(0, 1)
    save(state)
    (found,) = (folders[1] / "crossframe").iterdir()
    return found


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    refuses(lambda: load(NAME), "CrossFrameLoadState", "'file'", file.name, "Choose another")


def test_a_foreign_file(file):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3)}, file)
    refuses(lambda: load(NAME), "CrossFrameLoadState", "not a CrossFrame state")
    file.write_text("not even safetensors")
    refuses(lambda: load(NAME), "CrossFrameLoadState", "or not safetensors")


def test_a_file_that_has_lost_a_tensor(file):
    """It is a valid safetensors file, but lacks a part of the state."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    tensors.popitem()
    save_file(tensors, file, metadata)
    refuses(lambda: load(NAME), "CrossFrameLoadState", "is incomplete")


def changed(file, change):
    """Rewrite a file's header."""
    whole = file.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])


def test_a_file_whose_header_was_tampered_with(file):
    def rename(header):
        name = next(name for name in header if name != "__metadata__")
        header["0/output/x/0/0/0/64/0/0/float32/values"] = header.pop(name)

    changed(file, rename)
    refuses(lambda: load(NAME), "CrossFrameLoadState", "damaged")


def test_a_file_of_another_version(file):
    def other(header):
        header["__metadata__"]["format"] = "crossframe state 99"

    changed(file, other)
    refuses(lambda: load(NAME), "CrossFrameLoadState", "another version")


def test_a_loaded_state_is_checked_against_the_run(file, sd15, canny):
    clip = Clip.of(tiny.patch(sd15), canny)
    refuses(lambda: clip.paint(1, state=load(NAME), steps=9), "made with 3 steps", "9 steps")


def test_nothing_half_written_is_left(folders, clip, monkeypatch):
    """The disk is full while the file is written."""
    from crossframe.hosts.comfy.state import files as state_files

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(state_files, "save_file", fail)
    _, state = clip.paint(0, 1)
    with pytest.raises(OSError, match="no space"):
        save(state)
    assert [path for path in folders[1].rglob("*") if path.is_file()] == []


def test_no_room_is_said_before_writing(folders, clip, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    _, state = clip.paint(0, 1)
    refuses(lambda: save(state), "CrossFrameSaveState", "0 B are free", "int8")


def test_a_state_that_was_not_kept(folders):
    refuses(lambda: save(None), "CrossFrameSaveState", "'state'", "keep_state")


def test_a_prefix_out_of_the_folder(folders, clip):
    _, state = clip.paint(0, 1)
    with pytest.raises(Exception, match="outside"):
        save(state, "../../elsewhere")
