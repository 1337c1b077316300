"""The pack as a person meets it: ComfyUI's real page in a real browser."""

import json
import re
from pathlib import Path

import model_files
import pytest
from browser import CORNER, browser, open_page
from comfy_server import FOLDER, running_server
from comfyui_location import ROOT
from input_files import write_picture, write_video
from workflows import models

pytestmark = pytest.mark.chromium
TRY_IT = "1 - Try it (no downloads)"
NAMES = sorted(file.stem for file in (ROOT / "example_workflows").glob("*.json"))
RUN_TIMEOUT = 600_000  # ms
TITLE = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that has every file the examples want, so that none of them is missed."""
    folder = tmp_path_factory.mktemp("page")
    for family in (models.SD15, models.SDXL):
        model_files.write_models(folder / "models", family)
    (folder / "input").mkdir()
    write_video(folder / "input" / "my_video.mp4")
    write_picture(folder / "input" / "reference.png", (200, 90, 40))
    with running_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture
def page(server, chromium):
    with open_page(chromium, server.address) as opened:
        yield opened
        assert opened.errors == []


@pytest.fixture(scope="module")
def blank_page(server, chromium):
    """A page on which nothing is changed, for all searches."""
    with open_page(chromium, server.address) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("flicker", "Cross-Frame Attention"),
        ("vid2vid", "Cross-Frame Attention"),
        ("extended attention", "Cross-Frame Attention"),
        ("sparse-causal attention", "Cross-Frame Attention"),
        ("cross-frame ksampler", "Cross-Frame KSampler (frame by frame)"),
        ("cross-frame sampler", "Cross-Frame Sampler (frame by frame)"),
        ("one noise", "Cross-Frame Noise"),
        ("save look", "Cross-Frame Save State"),
        ("load look", "Cross-Frame Load State"),
        ("warp error", "Cross-Frame Consistency"),
        ("no download", "Cross-Frame Demo Model"),
        ("example video", "Cross-Frame Demo Clip"),
    ],
)
def test_search_finds_the_node_that_is_meant(blank_page, text, first):
    ours = [name for name in blank_page.search(text) if name.startswith("Cross-Frame")]
    assert ours[0] == first


@pytest.mark.parametrize("name", NAMES)
def test_template_opens_whole(page, name):
    """From the template browser: nothing missing, nothing on top of one another."""
    page.open_template(name)
    drawn = page.nodes()
    saved = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert sorted(node["type"] for node in drawn) == sorted(node["type"] for node in saved["nodes"])
    assert not re.search("missing|not found|error", page.text(), re.IGNORECASE)
    boxes = [(*node["pos"], *node["size"], node["type"]) for node in drawn]
    for i, (x, y, width, height, kind) in enumerate(boxes):
        for x2, y2, width2, height2, kind2 in boxes[:i]:
            apart = (
                x + width <= x2
                or x2 + width2 <= x
                or y + height <= y2 - TITLE
                or y2 + height2 <= y - TITLE
            )
            assert apart, (kind, kind2)


def test_missing_models_are_offered_for_download(chromium, tmp_path):
    """Where a file is not there, the page names it; it knows it by what the workflow says."""
    with running_server(tmp_path) as bare, open_page(chromium, bare.address) as page:
        page.open_template("Video restyle")
        page.page.get_by_text("View details").click()
        page.settle()
        text = page.text()
    for file in (models.SD15.checkpoint, models.SD15.controlnet):
        assert file["name"].removesuffix(".safetensors") in text


def test_the_first_example_runs_from_the_page(page, server):
    page.open_template(TRY_IT)
    page.page.get_by_test_id("queue-button").click()
    page.page.wait_for_function(
        "() => app.graph._nodes.some(n => n.type === 'SaveVideo' && n.images?.length)"
        " || document.querySelector('video')?.readyState >= 2",
        timeout=RUN_TIMEOUT,
    )
    page.settle()
    (video,) = (server.folder / "output" / "video").glob("*.mp4")
    assert video.stat().st_size > 10_000
    history = server.get("/history")
    assert [entry["status"]["status_str"] for entry in history.values()] == ["success"]
    shown = page.page.evaluate(
        "() => [...document.querySelectorAll('video')].map(v => [v.videoWidth, v.videoHeight])"
    )
    assert [2 * 256 + 8, 256] in shown


def test_tooltips_show_on_hover(page):
    page.open_template(TRY_IT)
    page.select("CrossFrameAttention")
    x, y = CORNER
    page.page.mouse.move(x + 100, y + 79)
    page.page.mouse.move(x + 120, y + 80)  # the second widget
    page.page.get_by_text("Also let every frame look at itself").wait_for(timeout=10_000)


def test_help_opens_with_its_picture(page):
    page.open_template(TRY_IT)
    page.select("CrossFrameAttention")
    page.page.get_by_test_id("info-button").click()
    page.page.get_by_role("heading", name="When to use it").wait_for(timeout=10_000)
    picture = page.page.locator("img[alt='Cross-Frame Attention node']")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 100")


def test_sampler_says_what_it_did(page, server):
    """The settings and the memory stand on the node after a run."""
    page.open_template("Video restyle (frame by frame)")
    page.page.evaluate(
        """() => {
            const set = (kind, values) => {
                const node = app.graph._nodes.find(node => node.type === kind);
                for (const widget of node.widgets)
                    if (widget.name in values) widget.value = values[widget.name];
            };
            set('ImageScale', {width: 96, height: 64});
            set('CrossFrameKSampler', {steps: 2});
        }"""
    )
    page.page.get_by_test_id("queue-button").click()
    page.page.wait_for_function(
        """() => app.graph._nodes.find(n => n.type === 'CrossFrameKSampler').widgets
            .some(w => /bank held at most/.test(w.value))""",
        timeout=RUN_TIMEOUT,
    )
    said = page.page.evaluate(
        """() => app.graph._nodes.find(n => n.type === 'CrossFrameKSampler').widgets
            .map(w => String(w.value)).find(text => /bank held/.test(text))"""
    )
    assert "8 frames, looks at first + previous" in said


def test_chinese_page_speaks_chinese(chromium, server):
    texts = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    server.post("/settings/Comfy.Locale", "zh")
    try:
        with open_page(chromium, server.address) as page:
            page.page.evaluate("() => app.graph.add(LiteGraph.createNode('CrossFrameAttention'))")
            title = page.page.evaluate("() => app.graph._nodes.at(-1).title")
    finally:
        server.post("/settings/Comfy.Locale", "en")
    assert title == texts["CrossFrameAttention"]["display_name"]


def test_pack_is_named_in_the_template_browser(page):
    page.open_templates()
    for name in NAMES:
        page.page.get_by_text(name, exact=True).first.wait_for(timeout=10_000)
    assert FOLDER in page.text()


def test_pictures_of_readme_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme):
        assert (Path(ROOT) / picture).is_file(), picture
