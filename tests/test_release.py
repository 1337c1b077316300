"""The check before a release: it sees every gap, and lets a complete project pass."""

import copy

import pytest
from check_release import missing

COMPLETE = {
    "project": {
        "urls": {
            "Repository": "https://example.org/a",
            "Documentation": "https://example.org/b",
            "Bug Tracker": "https://example.org/c",
        }
    },
    "tool": {
        "comfy": {
            "PublisherId": "someone",
            "Icon": "https://example.org/icon.png",
            "Banner": "https://example.org/banner.png",
        }
    },
}
CHANGELOG = "# Changelog\n\n## 1.2.0 (2026-01-31)\n\n- New.\n"


def test_a_complete_project_passes():
    assert missing(COMPLETE, "1.2.0", CHANGELOG, "v1.2.0") == []


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (("project", "urls"), "Repository"),
        (("tool", "comfy"), "Icon"),
        (("tool", "comfy"), "Banner"),
        (("tool", "comfy"), "PublisherId"),
    ],
)
def test_a_gap_in_pyproject_is_named(table, key):
    project = copy.deepcopy(COMPLETE)
    del project[table[0]][table[1]][key]
    (gap,) = missing(project, "1.2.0", CHANGELOG)
    assert key in gap


def test_an_unreleased_heading_is_no_release():
    (gap,) = missing(COMPLETE, "1.2.0", "## 1.2.0 (unreleased)\n")
    assert "1.2.0" in gap


def test_the_tag_must_name_the_version():
    (gap,) = missing(COMPLETE, "1.2.0", CHANGELOG, "v1.3.0")
    assert "v1.3.0" in gap
