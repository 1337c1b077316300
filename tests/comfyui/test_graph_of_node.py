"""What a node finds out about its graph: who reads its outputs, and whether it repeats."""

import logging
from types import SimpleNamespace

import bench
import pytest
import tiny


def executed(prompt, name="1"):
    """A node class as ComfyUI executes it, in a graph of API nodes."""
    from comfy_execution.graph import DynamicPrompt

    hidden = SimpleNamespace(unique_id=name, dynprompt=DynamicPrompt(prompt))
    return SimpleNamespace(hidden=hidden)


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


@pytest.mark.parametrize(
    ("link", "connected"), [(["1", 1], True), (["1", 0], False), (["2", 1], False), ("1", False)]
)
def test_a_state_is_kept_if_something_reads_it(link, connected):
    from crossframe.hosts.comfy.page.graph import is_connected

    prompt = {"1": node("A"), "2": node("B"), "3": node("C", x=link)}
    assert is_connected(executed(prompt), 1) == connected


def inside(prompt, *expansions):
    """A node as it is executed that others have put into the graph.

    expansions: from outside in, (the node that expands, the nodes it puts there).
    """
    for parent, nodes in expansions:
        for name, added in nodes.items():
            prompt.add_ephemeral_node(name, added, parent, parent)
    hidden = SimpleNamespace(unique_id="1.2.3", dynprompt=prompt)
    return SimpleNamespace(hidden=hidden)


SAMPLER = {"1.2.3": node("A"), "1.2.4": node("C", x=["1.2.3", 0])}


@pytest.mark.parametrize(
    ("outside", "connected"),
    [
        (node("C", x=["1", 1]), True),
        (node("C", x=["1", 0]), True),  # of a kind that nobody knows: it may be the state
        (node("C", x=["9", 1]), False),
        (node("C", x=[["9", 0], ["1", 1]]), True),
        (node("C", x={"a": [["1", 1]]}), True),
    ],
    ids=["state", "unknown", "another node", "list of links", "links in a dict"],
)
@pytest.mark.parametrize("nested", [False, True])
def test_within_an_expansion_a_state_may_be_read_outside(outside, connected, nested):
    from comfy_execution.graph import DynamicPrompt
    from crossframe.hosts.comfy.page.graph import is_connected

    prompt = DynamicPrompt({"1": node("B"), "2": outside, "9": node("B")})
    expansions = [("1", {"1.2": node("B")}), ("1.2", SAMPLER)] if nested else [("1", SAMPLER)]
    assert is_connected(inside(prompt, *expansions), 1) == connected


def test_within_an_expansion_only_outputs_that_can_hold_a_state_count():
    """ComfyUI's KSampler gives a latent only, whatever it may be made of."""
    from comfy_execution.graph import DynamicPrompt
    from crossframe.hosts.comfy.page.graph import is_connected

    prompt = DynamicPrompt({"1": node("KSampler"), "2": node("SaveLatent", samples=["1", 0])})
    assert not is_connected(inside(prompt, ("1", SAMPLER)), 1)
    reader = {**SAMPLER, "1.2.5": node("CrossFrameSaveState", state=["1.2.3", 1])}
    assert is_connected(inside(prompt, ("1", reader)), 1)


def test_outside_of_a_graph_a_state_is_kept(sd15, prompts):
    from crossframe.hosts.comfy.page.graph import is_connected

    assert is_connected(SimpleNamespace(hidden=None), 1)


def fingerprint(prompt, model, prompts, *contents):
    from crossframe.hosts.comfy.state.fingerprint import fingerprint

    return fingerprint(executed(prompt), bench.guider(model, prompts), *contents)


def graph(**changes):
    source = node("Load", file="a")
    source.update(changes)
    return {"1": node("Sampler", x=["7", 0], seed=1), "7": source}


def test_a_fingerprint_sees_settings_files_and_contents_and_no_ids(sd15, prompts):
    one = fingerprint(graph(), sd15, prompts, 1)
    renamed = {"1": node("Sampler", x=["8", 0], seed=1), "8": node("Load", file="a")}
    assert fingerprint(renamed, sd15, prompts, 1) == one
    assert fingerprint(graph(), sd15.clone(), prompts, 1) == one
    others = [
        fingerprint(graph(inputs={"file": "b"}), sd15, prompts, 1),
        fingerprint(graph(class_type="Other"), sd15, prompts, 1),
        fingerprint(graph(is_changed=["a file's digest"]), sd15, prompts, 1),
        fingerprint(graph(), sd15, prompts, 2),
        fingerprint(graph(), sd15, (prompts[0], tiny.prompt(9)), 1),
        fingerprint(graph(), tiny.model(seed=9), prompts, 1),
    ]
    assert len({one, *others}) == 1 + len(others)


def test_lists_in_a_graph_are_no_links(sd15, prompts):
    """Two lists in a list are as long as a link is."""
    prompt = {"1": node("Sampler", x=["7", 0]), "7": node("Load", points=[[1, 2], [3, 4]])}
    assert fingerprint(prompt, sd15, prompts, 1)


def test_a_fingerprint_sees_patches_and_hints(sd15, canny, prompts):
    import comfy.hooks

    weights = comfy.hooks.get_patch_weights_from_model(tiny.model(seed=9))
    patched = sd15.clone()
    patched.add_patches({key: ("diff", (value,)) for key, value in weights.items()}, 0.5)
    weaker = sd15.clone()
    weaker.add_patches({key: ("diff", (value,)) for key, value in weights.items()}, 0.4)
    hinted, other = (
        tiny.apply_controlnet(*prompts, canny, tiny.images(1, seed)) for seed in (1, 2)
    )
    found = [
        fingerprint(graph(), model, conds)
        for model, conds in (
            (sd15, prompts),
            (patched, prompts),
            (weaker, prompts),
            (sd15, hinted),
            (sd15, other),
        )
    ]
    assert len(set(found)) == len(found)


def test_a_graph_that_never_repeats_is_not_resumed(sd15, prompts, caplog):
    from crossframe.hosts.comfy.page.notes import Notes
    from crossframe.hosts.comfy.state.record import open_record

    guider = bench.guider(sd15, prompts)
    notes = Notes()
    with caplog.at_level(logging.WARNING):
        assert open_record(executed(graph(is_changed=[float("nan")])), guider, [], notes) is None
        assert open_record(SimpleNamespace(hidden=None), guider, [], notes) is None
    assert "Load runs anew every time" in caplog.text
    assert "which graph" in caplog.text
    assert all("not resumable" in line for line in notes.lines)
    assert len(notes.lines) == 2
