"""The texts in which `tools/planted_defects.py` plants its defects are those of the code today."""

from pathlib import Path

import pytest
from planted_defects import DEFECTS

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_text_stands_once(defect):
    assert (ROOT / defect.file).read_text().count(defect.right) == 1
    assert (ROOT / defect.tests).exists()
    assert defect.wrong != defect.right


def test_no_two_defects_are_the_same():
    assert len({(d.file, d.right, d.wrong) for d in DEFECTS}) == len(DEFECTS)
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)
