"""Frames kept on disk: a run goes on from the finished ones, and is never stopped by a disk."""

import shutil
from types import SimpleNamespace

import bench
import pytest
import tiny
import torch

FRAMES = 6


@pytest.fixture
def record(output_folder):
    """Where the frames of a test's one run lie, once there are some."""
    return lambda: next((output_folder / "crossframe" / "unfinished").iterdir())


@pytest.fixture
def paint(output_folder, sd15, prompts):
    """Paint a clip as a node in a graph that is always the same one: (latents, report).

    on_frame: called with the number of each frame that begins, among those that are painted.
    """

    def paint(on_frame=lambda frame: None, resume=True):
        begun = []

        def look(number, args):
            first_step = number == 0 or calls[-1].sigma > calls[-2].sigma
            if first_step:
                on_frame(len(begun))
                begun.append(1)

        model, calls = bench.spied(tiny.patch(sd15), look)
        output = tiny.frame_output(
            model, *prompts, tiny.clip(FRAMES), node=executed_sampler(), resume=resume
        )
        paint.begun = len(begun)
        return output.args[0]["samples"], output.ui["text"]

    return paint


@pytest.fixture
def output_folder(tmp_path, monkeypatch):
    import folder_paths

    (tmp_path / "output").mkdir()
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return tmp_path / "output"


@pytest.fixture
def whole(paint):
    return paint(resume=False)[0]


def executed_sampler():
    """CrossFrameKSampler as ComfyUI executes it, in a graph of its own."""
    from comfy_execution.graph import DynamicPrompt
    from crossframe.nodes.sampling import CrossFrameKSampler

    prompt = DynamicPrompt({"1": {"class_type": "CrossFrameKSampler", "inputs": {}}})
    hidden = SimpleNamespace(unique_id="1", dynprompt=prompt)
    return type("CrossFrameKSampler", (CrossFrameKSampler,), {"hidden": hidden})


def interrupted(paint, frame, before=lambda frame: None):
    """Paint, and be cancelled when a frame begins."""
    from comfy.model_management import InterruptProcessingException

    def on_frame(number):
        before(number)
        if number == frame:
            raise InterruptProcessingException

    with pytest.raises(InterruptProcessingException):
        paint(on_frame)


def at(frame, action):
    """Do something when a frame begins."""
    return lambda number: action() if number == frame else None


@pytest.fixture
def full_disk():
    """A function after which no file can become as large as those with hidden states."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def said_once(report, caplog, *words):
    """Whether one line of a report has these words, and is one line of the log, too."""
    (line,) = [line for line in report if all(word in line for word in words)]
    assert sum(line in message for message in caplog.messages) == 1


def stopped_between_files(paint, record, tmp_path):
    """A run that has written the hidden states of frame 2, but not its latents: its folder."""
    interrupted(paint, 2)
    stopped = tmp_path / "stopped"
    shutil.copytree(record(), stopped)
    interrupted(paint, 1)  # of those that are missing
    shutil.copy(record() / "hidden_000002.crossframe.safetensors", stopped)
    for part in (".latents_000002.safetensors.part", ".tmpAb3dEf"):
        (stopped / part).write_bytes(b"half")
    folder = record()
    shutil.rmtree(folder)
    return shutil.move(stopped, folder)


def test_a_run_that_stopped_between_its_two_files_goes_on(paint, record, whole, tmp_path):
    """Partly written files, and files of no finished frame, do no harm and are removed."""
    folder = stopped_between_files(paint, record, tmp_path)
    seen = []
    painted, report = paint(at(1, lambda: seen.extend(folder.iterdir())))
    assert torch.equal(painted, whole)
    assert paint.begun == FRAMES - 2
    assert len(report) == 1
    assert seen
    assert not [file for file in seen if file.name.startswith(".")]
    assert not folder.exists()


def test_what_is_left_over_of_a_frame_is_not_taken_for_it(paint, record, whole, tmp_path):
    """The frame is painted again, and what it leaves is kept again."""
    folder = stopped_between_files(paint, record, tmp_path)
    (folder / "hidden_000002.crossframe.safetensors").write_bytes(b"of another run")
    interrupted(paint, 1)
    painted, report = paint()
    assert torch.equal(painted, whole)
    assert paint.begun == FRAMES - 3
    assert len(report) == 1


def test_hidden_states_that_are_missing_are_not_gone_on_without(paint, record, whole):
    interrupted(paint, 3)
    (record() / "hidden_000000.crossframe.safetensors").unlink()
    painted, report = paint()
    assert torch.equal(painted, whole)
    assert paint.begun == FRAMES
    assert "starting over" in report[1]


def test_a_folder_that_cannot_be_made(paint, whole, output_folder, caplog):
    (output_folder / "crossframe").write_text("a file in place of a folder")
    painted, report = paint()
    assert torch.equal(painted, whole)
    said_once(report, caplog, "not kept", str(output_folder / "crossframe"))


def test_a_folder_that_is_lost_on_the_way(paint, record, whole, caplog):
    interrupted(paint, 1)
    folder = record()

    def lose():
        shutil.rmtree(folder)
        folder.write_text("a file in place of a folder")

    painted, report = paint(at(2, lose))
    assert torch.equal(painted, whole)
    said_once(report, caplog, "not kept", str(folder))


def test_a_disk_that_is_full(paint, whole, caplog, full_disk):
    painted, report = paint(at(2, full_disk))
    assert torch.equal(painted, whole)
    said_once(report, caplog, "not kept", "File too large")


def test_a_disk_that_fills_up_takes_no_finished_frames(paint, whole, full_disk, output_folder):
    """Once there is room, the run goes on from what was kept before."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    interrupted(paint, 4, before=at(2, full_disk))
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    painted, report = paint()
    assert torch.equal(painted, whole)
    assert paint.begun == FRAMES - 2
    assert len(report) == 1
    assert not [*(output_folder / "crossframe" / "unfinished").iterdir()]


def test_frames_that_cannot_be_read_now_stay_where_they_are(paint, record, whole, caplog):
    """This is what happens if a network share is away, or if a file belongs to another user."""
    interrupted(paint, 3)
    file, away = record() / "latents_000001.safetensors", record() / "away"
    file.rename(away)
    file.mkdir()
    interrupted(paint, 1)
    file.rmdir()
    away.rename(file)
    painted, report = paint()
    assert torch.equal(painted, whole)
    assert paint.begun == FRAMES - 3
    assert len(report) == 1
    assert any("cannot be read" in message for message in caplog.messages)
