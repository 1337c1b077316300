"""Tests of the demo need diffusers, which the test environment brings."""

import pytest


@pytest.fixture(scope="session")
def pipeline():
    """The shipped model."""
    from crossframe.demo.shipped import load_pipeline

    return load_pipeline()
