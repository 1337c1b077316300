"""What a node makes of the graph around it: who reads its outputs, and whether it repeats."""

import logging
from types import SimpleNamespace

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
    from crossframe.hosts.comfy.graph import is_connected

    prompt = {"1": node("A"), "2": node("B"), "3": node("C", x=link)}
    assert is_connected(executed(prompt), 1) == connected


def test_outside_of_a_graph_a_state_is_kept(sd15, prompts):
    from crossframe.hosts.comfy.graph import is_connected

    assert is_connected(SimpleNamespace(hidden=None), 1)


def fingerprint(prompt, model, prompts, *contents):
    from comfy.samplers import CFGGuider
    from crossframe.hosts.comfy.fingerprint import fingerprint

    guider = CFGGuider(model)
    guider.set_conds(*prompts)
    return fingerprint(executed(prompt), guider, *contents)


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
    from comfy.samplers import CFGGuider
    from crossframe.hosts.comfy.resume import open_record

    guider = CFGGuider(sd15)
    guider.set_conds(*prompts)
    with caplog.at_level(logging.WARNING):
        assert open_record(executed(graph(is_changed=[float("nan")])), guider) is None
        assert open_record(SimpleNamespace(hidden=None), guider) is None
    assert "Load runs anew every time" in caplog.text
    assert "which graph" in caplog.text
