"""The archive that ComfyUI-Manager installs: built by comfy-cli, within the Registry's rules."""

import ast
import zipfile

import pytest
from archive import build_archive
from comfyui_location import ROOT

MOST_BYTES = 20 * 2**20
ROOMS = (
    "attention",
    "consistency",
    "hosts",
    "latents",
    "motion",
    "nodes",
    "demo",
    "example_workflows",
    "locales",
    "web",
)
FORBIDDEN_CALLS = ("eval", "exec", "__import__")
FORBIDDEN_MODULES = ("subprocess", "socket", "urllib", "requests", "http", "aiohttp", "ctypes")


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """(path of the archive, what comfy-cli reads in pyproject.toml)."""
    return build_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def names(archive):
    with zipfile.ZipFile(archive[0]) as opened:
        return opened.namelist()


@pytest.fixture
def modules(archive):
    """The syntax trees of the archive's Python files, by name."""
    with zipfile.ZipFile(archive[0]) as opened:
        files = [name for name in opened.namelist() if name.endswith(".py")]
        return {name: ast.parse(opened.read(name)) for name in files}


def test_registry_can_read_what_the_pack_is(archive):
    import crossframe

    _, config = archive
    assert config.project.name == "crossframe"
    assert config.project.version == crossframe.__version__
    assert config.project.license.text == "MIT"
    assert config.project.supported_os == ["OS Independent"]
    assert config.project.supported_comfyui_version == ">=0.14.1"
    assert config.tool_comfy.publisher_id
    assert config.tool_comfy.display_name == "CrossFrame"


def test_archive_holds_what_the_pack_needs_and_nothing_else(names):
    tops = {name.partition("/")[0] for name in names}
    files = {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE"}
    assert tops == {*files, *ROOMS, "README.md", "CHANGELOG.md"}
    assert not [name for name in names if name.startswith("demo/") and name.endswith(".py")]


def test_archive_is_small(archive):
    assert archive[0].stat().st_size < MOST_BYTES


def test_nothing_in_it_could_alarm_a_scanner(modules):
    """No code from text, no other programs, no network, no environment variables."""
    found = []
    for name, tree in modules.items():
        for node in ast.walk(tree):
            found += [f"{name}:{node.lineno}: {what}" for what in _alarming(node)]
    assert not found


def _alarming(node) -> list[str]:
    if isinstance(node, ast.Call):
        function = node.func
        called = (
            function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        )
        if called in FORBIDDEN_CALLS:
            return [f"{called}()"]
    if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "system", "popen"):
        return [node.attr]
    modules = []
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        modules = [node.module or ""]
    return [module for module in modules if module.partition(".")[0] in FORBIDDEN_MODULES]


def test_the_scan_finds_what_it_looks_for():
    text = "import subprocess\nos.environ['A']\nmodel.eval()\n__import__('x')\neval('1')"
    alarms = [alarm for node in ast.walk(ast.parse(text)) for alarm in _alarming(node)]
    assert sorted(alarms) == ["__import__()", "environ", "eval()", "eval()", "subprocess"]


def test_patterns_that_leave_out_folders_are_anchored():
    """A bare name would also leave out folders of that name deeper down."""
    lines = (ROOT / ".comfyignore").read_text().splitlines()
    known = ("__pycache__/", "*.pyc", ".venv*/", "*.egg-info/")
    for line in lines:
        hidden = line.startswith(".") and line.endswith("_cache/")
        assert not line or line[0] in "#/" or line in known or hidden, line
