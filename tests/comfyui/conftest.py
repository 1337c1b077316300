"""Fixtures for tests on a real ComfyUI: models are made once, results go without gradients."""

import gc

import pytest
import tiny
import torch
from graphs import Parts


@pytest.fixture(autouse=True)
def _quiet_inference():
    """Run each test in inference mode, as ComfyUI runs nodes, and without progress bars."""
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", autouse=True)
def _little_garbage():
    """Keep all modules away from the garbage collector, which ComfyUI runs often."""
    import comfy.samplers  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_dead_models():
    """Make ComfyUI forget models that a test has dropped, but whose weights are still in use.

    A clone of a clone of a fixture's model is such a one. ComfyUI would take it for a leak, and
    collect garbage before every sampling of the session.
    """
    import comfy.model_management

    yield
    loaded = comfy.model_management.current_loaded_models
    loaded[:] = [model for model in loaded if not model.is_dead()]


@pytest.fixture(scope="session")
def sd15():
    """A MODEL of the SD1.5 family."""
    return tiny.model(tiny.SD15)


@pytest.fixture(scope="session")
def sdxl():
    """A MODEL of the SDXL family: several transformer blocks in a layer."""
    return tiny.model(tiny.SDXL)


@pytest.fixture(scope="session")
def canny():
    """A ControlNet for `sd15`."""
    return tiny.controlnet(tiny.SD15)


@pytest.fixture(scope="session")
def parts():
    """Models and ControlNets for graphs, each made once."""
    return Parts()


@pytest.fixture
def prompts():
    """(positive, negative)."""
    return tiny.prompt(1), tiny.prompt(2)


@pytest.fixture(params=tiny.ORDERS)
def sample(request):
    """The stock KSampler or CrossFrameKSampler."""
    return tiny.ORDERS[request.param]


@pytest.fixture(scope="module")
def demo():
    """(MODEL, CLIP, VAE, CONTROL_NET) of the demo's U-Net."""
    from crossframe.demo.in_comfyui import load_in_comfyui

    return load_in_comfyui()
