"""Default prompts, which ComfyUI runs for a batch if any of its frames is not covered by masks.

Which frames are run together must not decide who looks at whom.
"""

import pytest
import tiny
import torch
from graphs import Graph, Plan

FRAMES = 5


def masked(kind: str):
    """Prompts with masks per frame that leave half of one frame to a default prompt, or none."""
    from comfy_extras.nodes_hooks import PairConditioningSetDefaultAndCombine

    positive, negative, default = tiny.prompt(1), tiny.prompt(2), tiny.prompt(3)
    half = tiny.PIXELS // 2
    mask = torch.ones(FRAMES, tiny.PIXELS, tiny.PIXELS)
    if kind == "one frame":
        mask[2, :half] = 0
    elif kind == "every frame":
        mask[:, :half] = 0
    elif kind == "two frames":
        mask[1, :, half:] = 0
        mask[4] = 0.3
    if kind != "no mask":
        positive = [[positive[0][0], {"mask": mask, "mask_strength": 1.0}]]
    if kind == "strength":
        positive[0][1]["mask_strength"] = 0.6
    if kind == "range":
        positive[0][1] |= {"end_percent": 0.5}
    if kind == "area":
        positive += [
            [tiny.prompt(5)[0][0], {"area": (tiny.SIZE // 2, tiny.SIZE, 0, 0), "strength": 1.0}]
        ]
        mask[2, :half] = 0
    return PairConditioningSetDefaultAndCombine().set_default_and_combine(
        positive, negative, default, tiny.prompt(4)
    )


KINDS = (
    "one frame",
    "every frame",
    "two frames",
    "nowhere",
    "no mask",
    "strength",
    "range",
    "area",
)


@pytest.fixture(params=KINDS)
def graph(request, parts):
    plan = Plan(frames=FRAMES, layers="all", denoise=1.0, steps=3)
    base = Graph.build(plan, parts)
    return Graph(plan, base.model, list(masked(request.param)), base.latent)


def test_frames_do_not_depend_on_batch_or_order(graph):
    whole = graph.paint()
    for batch in (1, 2):
        assert tiny.error(graph.paint(model=graph.patched(batch)), whole) < 1e-4
    assert tiny.error(graph.paint(frame_by_frame=True), whole) < 1e-4


def test_a_default_prompt_counts_where_masks_leave_something(parts):
    frames = {}
    for kind in ("one frame", "nowhere"):
        plan = Plan(frames=FRAMES, layers="up")
        base = Graph.build(plan, parts)
        graph = Graph(plan, base.model, list(masked(kind)), base.latent)
        frames[kind] = graph.paint(frame_by_frame=True, model=tiny.patch_own(base.model))
        stock = graph.paint(model=base.model)
        assert tiny.error(frames[kind], stock) < 1e-4
    assert tiny.error(frames["one frame"][2], frames["nowhere"][2]) > 0.01
