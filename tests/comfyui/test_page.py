"""The pack as a person meets it: ComfyUI's real page in a real browser."""

import json
import re

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
    """A server that has every file that the examples name."""
    folder = tmp_path_factory.mktemp("page")
    model_files.write_models(folder / "models", models.SD15)
    for family in (models.SDXL, models.Z_IMAGE_TURBO, models.KONTEXT):
        model_files.write_names(folder / "models", family)
    (folder / "input").mkdir()
    write_video(folder / "input" / "my_video.mp4")
    write_picture(folder / "input" / "reference.png", (200, 90, 40))
    with running_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def opened(server, chromium):
    """The one page of almost all tests; it takes long to load."""
    with open_page(chromium, server.address) as page:
        yield page


@pytest.fixture
def page(opened):
    """The page with an empty workflow, on which nothing must go wrong."""
    opened.start_over()
    yield opened
    assert opened.errors == []


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
        ("one latent per frame", "Cross-Frame VAE Encode"),
        ("save look", "Cross-Frame Save State"),
        ("load look", "Cross-Frame Load State"),
        ("warp error", "Cross-Frame Consistency"),
        ("no download", "Cross-Frame Demo Model"),
        ("example video", "Cross-Frame Demo Clip"),
    ],
)
def test_search_finds_the_node_that_is_meant(opened, text, first):
    ours = [name for name in opened.search(text) if name.startswith("Cross-Frame")]
    assert ours[0] == first


@pytest.mark.parametrize("name", NAMES)
def test_template_opens_whole(page, name):
    """A template from the template browser lacks nothing, and none of its nodes overlap."""
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


@pytest.fixture
def without_models(server):
    """Takes the example's models out of the server's folder for as long as a test runs."""
    files = [models.SD15.checkpoint, models.SD15.controlnet]
    places = [server.folder / "models" / file["directory"] / file["name"] for file in files]
    for place in places:
        place.rename(server.folder / place.name)
    yield [file["name"].removesuffix(".safetensors") for file in files]
    for place in places:
        (server.folder / place.name).rename(place)


def test_missing_models_are_offered_for_download(chromium, server, without_models):
    """The page names a file that is not there; the workflow says where to download it."""
    with open_page(chromium, server.address) as page:
        page.open_template("Video restyle")
        page.page.get_by_text("View details").click()
        page.settle()
        text = page.text()
    for name in without_models:
        assert name in text


def test_the_first_example_runs_from_the_page(page, server):
    """It runs in one step and without measuring flicker; `test_workflows.py` runs it as it is."""
    page.open_template(TRY_IT)
    page.set_widgets("KSampler", steps=1)
    page.mute("CrossFrameConsistency")
    before = server.get("/history").keys()
    page.page.get_by_test_id("queue-button").click()
    page.page.wait_for_function(
        "() => app.graph._nodes.some(n => n.type === 'SaveVideo' && n.images?.length)"
        " || document.querySelector('video')?.readyState >= 2",
        timeout=RUN_TIMEOUT,
    )
    page.settle()
    (video,) = (server.folder / "output" / "video").glob("crossframe try it*.mp4")
    assert video.stat().st_size > 10_000
    runs = {name: run for name, run in server.get("/history").items() if name not in before}
    assert [run["status"]["status_str"] for run in runs.values()] == ["success"]
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
    page.set_widgets("ImageScale", width=96, height=64)
    page.set_widgets("CrossFrameKSampler", steps=2)
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
