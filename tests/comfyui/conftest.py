"""Fixtures for tests on a real ComfyUI: models are made once, results go without gradients."""

import pytest
import tiny
import torch
from graphs import Parts


@pytest.fixture(autouse=True)
def _quiet_inference():
    """As ComfyUI executes nodes, and without console bars."""
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    with torch.inference_mode():
        yield


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
