"""States and resuming in graphs on one real server and on two."""

import shutil

import pytest
import torch
from comfy_server import running_server
from safetensors.torch import load_file
from state_graphs import (
    SAMPLER,
    STEPS,
    graph,
    paint,
    saved_state,
    with_state_loaded,
    with_state_saved,
)

LONG = 16  # frames: enough to be interrupted while some are finished and some are not


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder):
    with running_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def whole(server):
    return paint(server, graph())[0]


def test_a_clip_goes_on_from_a_file(server, whole):
    start, outcome = paint(server, with_state_saved(graph(0, 4)))
    _, name = saved_state(server, outcome)
    shown = server.history(outcome)["outputs"]["12"]["text"]
    assert "4 frames painted, keeps frame 0, 3" in shown[0]
    rest, _ = paint(server, with_state_loaded(graph(4, 2), name))
    assert torch.equal(torch.cat((start, rest)), whole)


def test_two_servers_share_an_anchor(server, tmp_path):
    """With `first` this is exact, also if every frame has noise of its own."""
    inputs = {"references": "first", "sampler_name": "euler_ancestral"}
    whole, _ = paint(server, graph(**inputs))
    anchor, outcome = paint(server, with_state_saved(graph(0, 1, **inputs)))
    file, name = saved_state(server, outcome)
    with running_server(tmp_path) as other:
        shutil.copy(file, other.folder / "input" / file.name)
        second, _ = paint(other, with_state_loaded(graph(3, 3, first_frame=3, **inputs), file.name))
        first, _ = paint(server, with_state_loaded(graph(1, 2, **inputs), name))
    assert torch.equal(torch.cat((anchor, first, second)), whole)


def test_a_state_that_does_not_fit_is_refused_on_the_page(server):
    _, outcome = paint(server, with_state_saved(graph(0, 1)))
    _, name = saved_state(server, outcome)
    failed = server.run(with_state_loaded(graph(1, 1, steps=7), name))
    assert failed.end == "execution_error"
    assert "made with 6 steps, but this run has 7 steps" in str(failed.messages[-1])


def interrupted(server, prompt, frame):
    """Run a graph and cancel it while a frame is painted, counted from 0."""

    def cancel(kind, data):
        if kind == "progress" and data["node"] == SAMPLER and data["value"] > frame * STEPS + 1:
            server.post("/interrupt")

    outcome = server.run(prompt, on_message=cancel)
    assert outcome.end == "execution_interrupted"


def unfinished(server):
    """Names of unfinished runs, and of the latents that they hold."""
    folder = server.folder / "output" / "crossframe" / "unfinished"
    runs = sorted(folder.iterdir()) if folder.exists() else []
    return {run.name: sorted(file.name for file in run.glob("latents_*")) for run in runs}


def test_an_interrupted_run_goes_on(server):
    """If it is queued again, it paints what is missing, and the frames are those of one go."""
    prompt = with_state_saved(graph(count=LONG, resume=True))
    interrupted(server, prompt, frame=2)
    (kept,) = unfinished(server).values()
    assert 2 <= len(kept) < LONG
    painted, outcome = paint(server, prompt)
    assert f"going on after {len(kept)} finished frames" in server.log
    assert outcome.progress(SAMPLER)[0][0] >= len(kept) * STEPS
    assert unfinished(server) == {}
    state = load_file(saved_state(server, outcome)[0])
    prompt[SAMPLER]["inputs"]["resume"] = False
    whole, outcome = paint(server, prompt)
    assert torch.equal(painted, whole)
    expected = load_file(saved_state(server, outcome)[0])
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_run_goes_on_after_a_crash(server, tmp_path):
    """The process is killed in the middle of a frame."""
    prompt = graph(count=LONG, resume=True, seed=21)
    with running_server(tmp_path) as crashing:

        def crash(kind, data):
            if kind == "progress" and data["node"] == SAMPLER and data["value"] > 2 * STEPS + 1:
                crashing._process.kill()

        assert crashing.run(prompt, on_message=crash).end == "progress"
    (kept,) = unfinished(crashing).values()
    assert len(kept) >= 2
    with running_server(tmp_path) as again:
        painted, _ = paint(again, prompt)
        assert f"going on after {len(kept)} finished frames" in again.log
    prompt[SAMPLER]["inputs"]["resume"] = False
    assert torch.equal(painted, paint(server, prompt)[0])


def test_damaged_frames_are_not_gone_on_from(server):
    prompt = graph(count=LONG, resume=True, seed=31)
    interrupted(server, prompt, frame=2)
    ((run, kept),) = unfinished(server).items()
    file = server.folder / "output" / "crossframe" / "unfinished" / run / kept[0]
    file.write_bytes(file.read_bytes()[:100])
    painted, _ = paint(server, prompt)
    assert "starting over" in server.log
    prompt[SAMPLER]["inputs"]["resume"] = False
    assert torch.equal(painted, paint(server, prompt)[0])


@pytest.mark.parametrize(
    ("node", "change"),
    [
        (SAMPLER, {"seed": 2}),
        (SAMPLER, {"cfg": 2.0}),
        ("6", {"text": "a photo"}),
        ("4", {"batch_index": 1, "length": LONG - 1}),
        ("8", {"layers": "up"}),
    ],
    ids=["seed", "cfg", "prompt", "clip", "settings"],
)
def test_a_changed_graph_begins_anew(server, node, change):
    prompt = graph(count=LONG, resume=True, seed=11)
    interrupted(server, prompt, frame=1)
    before = unfinished(server)
    assert len(before) == 1
    prompt[node]["inputs"].update(change)
    calls = server.log.count("going on after")
    paint(server, prompt)
    assert server.log.count("going on after") == calls
    assert unfinished(server) == before
    shutil.rmtree(server.folder / "output" / "crossframe" / "unfinished")


def test_server_log_has_no_errors(server, whole):
    lines = [line for line in server.log.splitlines() if "Traceback" in line]
    assert len(lines) <= 1 + server.log.count("made with 6 steps"), server.log
