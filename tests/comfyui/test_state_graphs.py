"""States and resuming in graphs on a real server, and on two."""

import shutil

import pytest
import torch
from comfy_server import running_server
from safetensors.torch import load_file

FRAMES = 6
SAMPLER = "9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder):
    with running_server(folder) as running:
        yield running


def graph(first=0, count=FRAMES, references="first + previous", **inputs):
    """Some frames of the demo's clip, painted frame by frame and saved as latents."""
    prompt = {
        "1": ("CrossFrameDemoModel", {}),
        "2": ("CrossFrameDemoClip", {}),
        "3": ("GetVideoComponents", {"video": ["2", 0]}),
        "4": ("ImageFromBatch", {"image": ["3", 0], "batch_index": first, "length": count}),
        "13": (
            "ImageScale",
            {
                "image": ["4", 0],
                "upscale_method": "area",
                "width": 64,
                "height": 64,
                "crop": "disabled",
            },
        ),
        "5": ("VAEEncode", {"pixels": ["13", 0], "vae": ["1", 2]}),
        "6": ("CLIPTextEncode", {"clip": ["1", 1], "text": "a drawing"}),
        "7": ("CLIPTextEncode", {"clip": ["1", 1], "text": ""}),
        "8": (
            "CrossFrameAttention",
            {
                "model": ["1", 0],
                "references": references,
                "include_self": False,
                "layers": "all",
                "start_percent": 0.0,
                "end_percent": 1.0,
                "frames_per_batch": 0,
            },
        ),
        SAMPLER: (
            "CrossFrameKSampler",
            {
                "model": ["8", 0],
                "seed": 1,
                "steps": 6,
                "cfg": 1.5,
                "sampler_name": "euler",
                "scheduler": "normal",
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
                "denoise": 1.0,
                "frame_noise": "different per frame",
                **inputs,
            },
        ),
        "10": ("SaveLatent", {"samples": [SAMPLER, 0], "filename_prefix": "painted"}),
    }
    return {name: {"class_type": kind, "inputs": values} for name, (kind, values) in prompt.items()}


def with_state_saved(prompt):
    """The graph, with a node that saves the sampler's state and one that shows it."""
    save = {"state": [SAMPLER, 1], "filename_prefix": "crossframe/state"}
    return {
        **prompt,
        "11": {"class_type": "CrossFrameSaveState", "inputs": save},
        "12": {"class_type": "PreviewAny", "inputs": {"source": [SAMPLER, 1]}},
    }


def with_state_loaded(prompt, file):
    """The graph, gone on with from a file."""
    prompt[SAMPLER]["inputs"]["state"] = ["20", 0]
    return {**prompt, "20": {"class_type": "CrossFrameLoadState", "inputs": {"file": file}}}


def paint(server, prompt):
    """Run a graph: (latents, what it did)."""
    outcome = server.run(prompt)
    assert outcome.end == "execution_success", outcome.messages[-1]
    (file,) = server.outputs(outcome, "10")
    return load_file(file)["latent_tensor"], outcome


@pytest.fixture(scope="module")
def whole(server):
    return paint(server, graph())[0]


def saved_state(server, outcome):
    """(file, how Load State names it)."""
    (file,) = server.outputs(outcome, "11")
    return file, f"crossframe/{file.name} [output]"


def test_a_clip_goes_on_from_a_file(server, whole):
    start, outcome = paint(server, with_state_saved(graph(0, 4)))
    _, name = saved_state(server, outcome)
    shown = server.history(outcome)["outputs"]["12"]["text"]
    assert "4 frames painted, keeps frame 0, 3" in shown[0]
    rest, _ = paint(server, with_state_loaded(graph(4, 2), name))
    assert torch.equal(torch.cat((start, rest)), whole)


def test_two_servers_share_an_anchor(server, tmp_path):
    """Exact with `first`, noise of every frame's own included; the recipe is in the README."""
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
    steps = prompt[SAMPLER]["inputs"]["steps"]

    def cancel(kind, data):
        if kind == "progress" and data["node"] == SAMPLER and data["value"] > frame * steps + 1:
            server.post("/interrupt")

    outcome = server.run(prompt, on_message=cancel)
    assert outcome.end == "execution_interrupted"


def unfinished(server):
    """Names of unfinished runs, and of the latents that they hold."""
    folder = server.folder / "output" / "crossframe" / "unfinished"
    runs = sorted(folder.iterdir()) if folder.exists() else []
    return {run.name: sorted(file.name for file in run.glob("latents_*")) for run in runs}


def test_an_interrupted_run_goes_on(server):
    """Queued again, it paints only what is missing, and leaves the frames of one go."""
    prompt = with_state_saved(graph(count=32, resume=True, steps=12))
    interrupted(server, prompt, frame=2)
    (kept,) = unfinished(server).values()
    assert 2 <= len(kept) < 32
    painted, outcome = paint(server, prompt)
    assert f"going on after {len(kept)} finished frames" in server.log
    assert outcome.progress(SAMPLER)[0][0] >= len(kept) * 12
    assert unfinished(server) == {}
    state = load_file(saved_state(server, outcome)[0])
    prompt[SAMPLER]["inputs"]["resume"] = False
    whole, outcome = paint(server, prompt)
    assert torch.equal(painted, whole)
    expected = load_file(saved_state(server, outcome)[0])
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_run_goes_on_after_a_crash(server, tmp_path):
    """The process is gone at once, in the middle of a frame."""
    prompt = graph(count=32, resume=True, steps=12, seed=21)
    with running_server(tmp_path) as crashing:

        def crash(kind, data):
            if kind == "progress" and data["node"] == SAMPLER and data["value"] > 30:
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
    prompt = graph(count=32, resume=True, steps=12, seed=31)
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
        ("4", {"batch_index": 1, "length": 31}),
        ("8", {"layers": "up"}),
    ],
    ids=["seed", "cfg", "prompt", "clip", "settings"],
)
def test_a_changed_graph_begins_anew(server, node, change):
    prompt = graph(count=32, resume=True, steps=12, seed=11)
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
