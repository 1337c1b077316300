"""The README shows what is there."""

import re

from comfyui_location import ROOT


def test_pictures_of_readme_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    assert pictures
    for picture in pictures:
        assert picture.startswith("https://") or (ROOT / picture).is_file(), picture
