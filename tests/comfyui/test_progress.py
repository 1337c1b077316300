"""One progress bar over frames x steps, with previews of the frame that is being painted."""

import pytest
import tiny


@pytest.fixture
def bar(monkeypatch):
    """What the page's progress bar is told: (value, total, preview)."""
    import comfy.utils

    updates = []

    def hook(value, total, preview, node_id=None):
        updates.append((value, total, preview))

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return updates


@pytest.mark.parametrize("sampler", ["euler", "heun", "uni_pc"])
def test_one_bar(sd15, prompts, bar, sampler, monkeypatch):
    import latent_preview
    from latent_preview import LatentPreviewMethod

    monkeypatch.setattr(latent_preview.args, "preview_method", LatentPreviewMethod.Latent2RGB)
    frames = tiny.frame_ksampler(tiny.patch(sd15), *prompts, tiny.clip(3), sampler, steps=4)
    values = [value for value, _, _ in bar]
    assert values == sorted(set(values))
    assert {total for _, total, _ in bar} == {3 * 4}
    assert values[-1] == 3 * 4
    previews = {value: preview[1] for value, _, preview in bar if preview is not None}
    assert len(previews) == len(values)
    assert len({previews[value].tobytes() for value in (4, 8, 12)}) == frames.shape[0]
