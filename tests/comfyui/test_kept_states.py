"""States in graphs on a real server are kept for every node that reads them, also later ones."""

import shutil

import pytest
import torch
from comfy_server import FOLDER, install_pack, make_base_directory, running_server
from safetensors.torch import load_file
from state_graphs import SAMPLER, graph, paint, saved_state, with_state_loaded, with_state_saved

# Nodes as other packs have them, that put others into the graph while they are executed.
EXPANDING = '''
from comfy_execution.graph_utils import GraphBuilder


class Painting:
    """The frame-by-frame sampler with all its outputs."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "positive": ("CONDITIONING",),
            "negative": ("CONDITIONING",), "latent_image": ("LATENT",), "kind": ("STRING",)}}

    RETURN_TYPES = ("LATENT", "CROSS_FRAME_STATE")
    FUNCTION = "run"

    def run(self, kind, **inputs):
        graph = GraphBuilder()
        settings = {"seed": 1, "steps": 6, "cfg": 1.5, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1.0, "frame_noise": "different per frame"}
        inner = graph.node(kind, **inputs, **(settings if kind == "CrossFrameKSampler"
            else {"kind": "CrossFrameKSampler"}))
        return {"result": (inner.out(0), inner.out(1)), "expand": graph.finalize()}


class Anew:
    """Lets a latent through, and is executed in every run."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "run"

    @classmethod
    def IS_CHANGED(cls, **inputs):
        return float("nan")

    def run(self, latent):
        return (latent,)


NODE_CLASS_MAPPINGS = {"TestPainting": Painting, "TestAnew": Anew}
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    make_base_directory(folder)
    install_pack(folder / "custom_nodes" / FOLDER)
    (folder / "custom_nodes" / "expanding.py").write_text(EXPANDING)
    with running_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def whole(server):
    return paint(server, graph())[0]


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def with_rest(prompt, seed, through_model):
    """The graph of the first frames, and the sampler of the rest, which goes on from their state.

    through_model: whether it gets the state by its MODEL.
    """
    rest = {name: node(kind["class_type"], **kind["inputs"]) for name, kind in graph(4, 2).items()}
    sampler, attention = rest[SAMPLER]["inputs"], rest["8"]["inputs"]
    (attention if through_model else sampler)["state"] = [SAMPLER, 1]
    sampler.update({"model": ["44", 0], "latent_image": ["42", 0], "seed": seed})
    return {
        **prompt,
        "40": rest["4"],
        "41": node("ImageScale", **{**rest["13"]["inputs"], "image": ["40", 0]}),
        "42": node("VAEEncode", pixels=["41", 0], vae=["1", 2]),
        "44": rest["8"],
        "43": rest[SAMPLER],
        "45": node("SaveLatent", samples=["43", 0], filename_prefix="rest"),
    }


def failure(server, prompt):
    """What the page says about a run that fails."""
    outcome = server.run(prompt)
    assert outcome.end == "execution_error", outcome.messages[-1]
    return outcome.messages[-1][1]["exception_message"]


READERS = {
    "CrossFrameKSampler": lambda prompt: with_rest(prompt, 101, through_model=False),
    "CrossFrameAttention": lambda prompt: with_rest(prompt, 102, through_model=True),
    "CrossFrameSaveState": with_state_saved,
}
SEEDS = {"CrossFrameKSampler": 101, "CrossFrameAttention": 102, "CrossFrameSaveState": 103}


@pytest.mark.parametrize("reader", READERS)
def test_a_state_that_was_not_kept_is_an_error_until_it_is(server, reader):
    """The reader is connected after the run; queueing again does not help, but keep_state does."""
    seed = SEEDS[reader]  # of its own, since a server remembers what it has painted
    prompt = graph(0, 4, seed=seed)
    paint(server, prompt)
    for _ in range(2):
        said = failure(server, READERS[reader](prompt))
        assert said.startswith(f"{reader}: input 'state'")
        assert "keep_state" in said
    prompt[SAMPLER]["inputs"]["keep_state"] = True
    paint(server, prompt)
    start, outcome = paint(server, READERS[reader](prompt))
    if reader == "CrossFrameSaveState":
        _, name = saved_state(server, outcome)
        rest, _ = paint(server, with_state_loaded(graph(4, 2, seed=seed), name))
    else:
        rest = load_file(server.outputs(outcome, "45")[0])["latent_tensor"]
    whole, _ = paint(server, graph(seed=seed))
    assert torch.equal(torch.cat((start, rest)), whole)


@pytest.mark.parametrize("kind", ["CrossFrameKSampler", "TestPainting"], ids=["once", "nested"])
def test_a_state_comes_out_of_a_node_that_expands(server, whole, kind):
    prompt = with_state_saved(graph(0, 4))
    conds = {name: prompt[SAMPLER]["inputs"][name] for name in ("positive", "negative")}
    prompt[SAMPLER] = node(
        "TestPainting", model=["8", 0], **conds, latent_image=["5", 0], kind=kind
    )
    start, outcome = paint(server, prompt)
    _, name = saved_state(server, outcome)
    rest, _ = paint(server, with_state_loaded(graph(4, 2), name))
    assert torch.equal(torch.cat((start, rest)), whole)


def on_node(server, outcome, name):
    """Return what a node shows while it runs; the page must get the same text afterwards."""
    shown = outcome.texts[name]
    assert shown.splitlines() == server.history(outcome)["outputs"][name]["text"]
    return shown


def test_a_run_that_is_not_resumable_says_so_on_its_node(server):
    prompt = graph(0, 2, resume=True)
    prompt["14"] = node("TestAnew", latent=["5", 0])
    prompt[SAMPLER]["inputs"]["latent_image"] = ["14", 0]
    _, outcome = paint(server, prompt)
    shown = on_node(server, outcome, SAMPLER)
    assert "not resumable, because TestAnew runs again every time" in shown


def test_a_record_that_cannot_be_written_says_so_on_its_node(server, whole):
    folder = server.folder / "output" / "crossframe" / "unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file in place of a folder")
    painted, outcome = paint(server, graph(resume=True))
    folder.unlink()
    assert torch.equal(painted, whole)
    shown = on_node(server, outcome, SAMPLER)
    assert "not kept on disk" in shown
    assert str(folder) in shown


def test_scenes_that_do_not_begin_are_told_on_the_sampler(server):
    prompt = graph(0, 3)
    prompt["8"]["inputs"]["scene_starts"] = "2, 40"
    _, outcome = paint(server, prompt)
    told = "No scene begins at frame 40, since the last frame here is frame 2."
    assert told in on_node(server, outcome, SAMPLER)


def test_a_stock_sampler_tells_of_scenes_too(server):
    prompt = graph(0, 3)
    prompt["8"]["inputs"]["scene_starts"] = "2, 40"
    stock = {**prompt[SAMPLER]["inputs"]}
    del stock["frame_noise"]
    prompt[SAMPLER] = node("KSampler", **stock)
    _, outcome = paint(server, prompt)
    told = "No scene begins at frame 40, since the last frame here is frame 2."
    assert outcome.texts[SAMPLER] == f"A scene begins at frame 2.\n{told}"
    prompt["8"]["inputs"]["scene_starts"] = "2"
    _, outcome = paint(server, prompt)
    assert outcome.texts[SAMPLER] == "A scene begins at frame 2."
    prompt["8"]["inputs"]["scene_starts"] = ""
    _, outcome = paint(server, prompt)
    assert SAMPLER not in outcome.texts


def files_to_choose(server):
    info = server.get("/object_info/CrossFrameLoadState")["CrossFrameLoadState"]
    return info["input"]["required"]["file"][1]["options"]


def test_a_page_without_a_state_says_how_to_make_one(tmp_path, server, whole):
    """A state that is newer than the page is loaded, although the page does not list it."""
    with running_server(tmp_path) as fresh:
        listed = files_to_choose(fresh)
        assert listed == ["no state yet"]
        for name, words in ((listed[0], "Save"), ("gone [output]", "'gone [output]'")):
            with pytest.raises(AssertionError) as refused:
                fresh.run(with_state_loaded(graph(4, 2), name))
            for word in ("CrossFrameLoadState: input 'file'", "CrossFrameSaveState", words):
                assert word in str(refused.value)
        start, outcome = paint(fresh, with_state_saved(graph(0, 4)))
        _, name = saved_state(fresh, outcome)
        rest, _ = paint(fresh, with_state_loaded(graph(4, 2), name))
        assert torch.equal(torch.cat((start, rest)), whole)
        assert files_to_choose(fresh) == [name]
