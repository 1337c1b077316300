"""The texts in which `tools/planted_defects.py` plants its defects are those of the code today."""

import re
from pathlib import Path

import pytest
from planted_defects import DEFECTS

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_text_stands_once(defect):
    assert (ROOT / defect.file).read_text().count(defect.right) == 1
    assert (ROOT / defect.tests).exists()
    assert defect.wrong != defect.right


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_defect_is_a_mistake_and_no_nonsense(defect):
    """Tests that fail since a name was cut in two, or a file no longer parses, show nothing."""
    text = (ROOT / defect.file).read_text()
    assert re.search(rf"(?<![\w.]){re.escape(defect.right)}(?!\w)", text)
    compile(text.replace(defect.right, defect.wrong), defect.file, "exec")


def test_no_two_defects_are_the_same():
    assert len({(d.file, d.right, d.wrong) for d in DEFECTS}) == len(DEFECTS)
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)
