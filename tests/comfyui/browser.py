"""ComfyUI's page in a headless Chromium, used as a person would use it.

Chromium is CHROMIUM_PATH, else what is installed under one of its usual names.
"""

import contextlib
import importlib.metadata
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# What the page asks for by way of trying: a user's own files, where nobody has saved any yet, and
# a help page in the language of the page before the one for all languages.
TRIALS = re.compile(r"/user\.css|/api/userdata|/docs/\w+/en\.md")
TIMEOUT = 15_000  # ms


def find_chromium() -> str | None:
    """The browser's program, if there is one."""
    found = os.environ.get("CHROMIUM_PATH")
    return found or next(filter(None, map(shutil.which, NAMES)), None)


CORNER = (500, 300)  # where `select` puts a node's upper left corner, below its title


def obstacle(comfyui: Path) -> str | None:
    """Return why the page of a ComfyUI cannot be tried here, or None if it can."""
    if find_chromium() is None:
        return "NO CHROMIUM FOUND (CHROMIUM_PATH says where it is)"
    wanted = re.search(
        r"^comfyui-frontend-package==(.+)$",
        (comfyui / "requirements.txt").read_text(),
        re.MULTILINE,
    )
    try:
        installed = importlib.metadata.version("comfyui-frontend-package")
    except importlib.metadata.PackageNotFoundError:
        return "NO PAGE INSTALLED (comfyui-frontend-package)"
    if wanted is not None and wanted[1].strip() != installed:
        return f"THE PAGE IS {installed}, this ComfyUI comes with {wanted[1].strip()}"
    return None


@dataclass
class Page:
    """An open page, and what went wrong on it."""

    page: object
    errors: list[str] = field(default_factory=list)

    def open_templates(self) -> None:
        """Show the pack's templates in the template browser."""
        self.page.get_by_role("button", name="Templates").first.click()
        self.page.get_by_text("comfyui-crossframe").first.click()

    def open_template(self, name: str) -> None:
        """Open a workflow from the template browser, and wait until it is drawn."""
        self.open_templates()
        self.page.get_by_text(name, exact=True).first.click()
        self.page.wait_for_function("app.graph._nodes.length > 5")
        self.page.get_by_text("All Templates").first.wait_for(state="hidden")
        self.settle()

    def settle(self) -> None:
        """Wait until the page has drawn what it was told."""
        self.page.wait_for_timeout(1500)

    def start_over(self) -> None:
        """Close whatever is open, so that there is one empty workflow, and forget all errors."""
        for _ in range(2):  # a search box or a dialog, and the menu behind it
            self.page.keyboard.press("Escape")
        self.page.evaluate(
            """async () => {
                await app.extensionManager.command.execute('Comfy.NewBlankWorkflow');
                const workflows = app.extensionManager.workflow;
                for (const other of [...workflows.openWorkflows])
                    if (other.path !== workflows.activeWorkflow.path)
                        await workflows.closeWorkflow(other);
            }"""
        )
        self.settle()
        self.errors.clear()

    def search(self, text: str) -> list[str]:
        """What the node search finds for a text: display names, best first. It stays open."""
        box = self.page.get_by_placeholder("Add a node")
        for _ in range(3):  # A busy page may miss a double click.
            if box.is_visible():
                break
            self.page.keyboard.press("Escape")
            self.page.mouse.dblclick(500, 450)
            self.settle()
        box.fill(text)
        self.settle()
        found = self.page.get_by_test_id("result-item").all_inner_texts()
        return [entry.splitlines()[0] for entry in found]

    def set_widgets(self, kind: str, **values) -> None:
        """Give widgets of all nodes of a type other values."""
        self.page.evaluate(
            """([kind, values]) => {
                for (const node of app.graph._nodes.filter(node => node.type === kind))
                    for (const widget of node.widgets)
                        if (widget.name in values) widget.value = values[widget.name];
            }""",
            [kind, values],
        )

    def mute(self, kind: str) -> None:
        """Leave all nodes of a type out of the next run."""
        self.page.evaluate(
            """kind => {
                for (const node of app.graph._nodes.filter(node => node.type === kind))
                    node.mode = LiteGraph.NEVER;
            }""",
            kind,
        )

    def select(self, kind: str) -> None:
        """Select the first node of a type, after bringing it to CORNER."""
        self.page.evaluate(
            """([kind, x, y]) => {
                const node = app.graph._nodes.find(node => node.type === kind);
                app.canvas.ds.scale = 1;
                app.canvas.ds.offset = [x - node.pos[0], y - node.pos[1]];
                app.canvas.selectNode(node);
                app.canvas.setDirty(true, true);
            }""",
            [kind, *CORNER],
        )
        self.settle()

    def text(self) -> str:
        """Return all text on the page except for what is drawn on the canvas."""
        return self.page.inner_text("body")

    def nodes(self) -> list[dict]:
        """What is drawn of each node: type, place and size."""
        return self.page.evaluate(
            "app.graph._nodes.map(n => ({type: n.type, pos: [...n.pos], size: [...n.size]}))"
        )


@contextlib.contextmanager
def browser() -> Iterator[object]:
    """A Chromium that runs until the block ends."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def open_page(started, address: str) -> Iterator[Page]:
    """ComfyUI's page, ready for use."""
    raw = started.new_page(viewport={"width": 1600, "height": 900})
    raw.set_default_timeout(TIMEOUT)
    page = Page(raw)
    raw.on("pageerror", lambda error: page.errors.append(str(error)))
    raw.on("response", lambda answer: _note_failure(page, answer))
    raw.on("console", lambda message: _note_message(page, message))
    raw.goto(f"http://{address}")
    raw.get_by_test_id("queue-button").wait_for(timeout=60_000)
    page.settle()
    page.settle()
    # New users are greeted by templates, others by a workflow whose models are missing.
    page.start_over()
    try:
        yield page
    finally:
        raw.close()


def _note_failure(page: Page, answer) -> None:
    if answer.status >= 400 and not TRIALS.search(answer.url):
        page.errors.append(f"{answer.status} {answer.url}")


def _note_message(page: Page, message) -> None:
    # A failed load is noted by its answer, which tells more.
    if message.type == "error" and "Failed to load resource" not in message.text:
        page.errors.append(message.text)
