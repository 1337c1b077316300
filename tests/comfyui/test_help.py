"""Help pages and translations: everything there is, and nothing that is not."""

import json
import re

import pytest
from comfyui_location import ROOT

LANGUAGES = sorted(folder.name for folder in (ROOT / "locales").iterdir())
TABLE = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


@pytest.fixture(scope="module")
def texts():
    """All English texts, from the nodes' schemas."""
    import build_locales
    from crossframe.nodes import NODES

    return build_locales.node_texts(
        {n.define_schema().node_id: n.GET_NODE_INFO_V1() for n in NODES}
    )


def read(language: str) -> dict:
    file = ROOT / "locales" / language / "nodeDefs.json"
    return json.loads(file.read_text(encoding="utf-8"))


def leaves(value, path=()):
    """Every text by its place."""
    if isinstance(value, str):
        return {path: value}
    return {k: v for key, item in value.items() for k, v in leaves(item, (*path, key)).items()}


def test_english_repeats_the_schemas(texts):
    assert read("en") == texts, "write it anew with tools/build_locales.py"


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_translations_are_complete(texts, language):
    theirs, ours = leaves(read(language)), leaves(texts)
    assert theirs.keys() == ours.keys()
    sentences = {place: text for place, text in ours.items() if " " in text}
    assert not [place for place, text in sentences.items() if theirs[place] == text]
    assert all(text.strip() for text in theirs.values())


def test_there_is_chinese():
    assert "zh" in LANGUAGES


def test_translations_keep_the_options_that_they_quote(texts):
    """The dropdowns themselves are not translated, so 'first' must stay 'first'."""
    ours = leaves(texts)
    for language in LANGUAGES:
        theirs = leaves(read(language))
        for place, text in ours.items():
            for quoted in re.findall(r"'([^']+)'", text):
                assert quoted in theirs[place], (language, place)


def test_every_node_has_a_help_page_with_all_its_inputs(texts):
    pages = {file.stem: file.read_text(encoding="utf-8") for file in help_files()}
    assert pages.keys() == texts.keys()
    for name, page in pages.items():
        assert page.startswith(f"# {texts[name]['display_name']}\n")
        told = TABLE.findall(page)
        outputs = [output["name"] for output in texts[name]["outputs"].values()]
        assert told == [*texts[name]["inputs"], *outputs], name
        assert "## When to use it" in page


def test_pictures_of_help_pages_are_there():
    for file in help_files():
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", file.read_text(encoding="utf-8")):
            assert (file.parent / picture).is_file(), (file.name, picture)


def help_files():
    return sorted((ROOT / "web" / "docs").glob("*.md"))
