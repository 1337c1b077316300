"""Say what is missing before a version can go to the Comfy Registry.

Run:  python tools/check_release.py [--tag v1.2.3]

The script ends with an error if anything is missing.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print every gap."""
    import tomllib  # from Python 3.11 on, as a release needs it

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", help="the tag that is about to be published")
    tag = parser.parse_args().tag
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (version,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text(), re.M)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if gaps := missing(project, version, changelog, tag):
        sys.exit("\n".join(f"- {gap}" for gap in gaps))
    print(f"{version} is ready")


def missing(project: dict, version: str, changelog: str, tag: str | None = None) -> list[str]:
    """Return what the Registry, or a reader of the changelog, would miss."""
    urls = project["project"].get("urls", {})
    comfy = project["tool"]["comfy"]
    gaps = [
        f"pyproject.toml: [project.urls] {name} is not set"
        for name in ("Repository", "Documentation", "Bug Tracker")
        if not urls.get(name, "").startswith("https://")
    ]
    gaps += [
        f"pyproject.toml: [tool.comfy] {name} is no address of a picture"
        for name in ("Icon", "Banner")
        if not comfy.get(name, "").startswith("https://")
    ]
    if not comfy.get("PublisherId"):
        gaps.append("pyproject.toml: [tool.comfy] PublisherId is not set")
    if not re.search(rf"^## {re.escape(version)}( \(\d{{4}}-\d\d-\d\d\))?$", changelog, re.M):
        gaps.append(f"CHANGELOG.md has no heading for {version}, or still calls it unreleased")
    if tag is not None and tag != f"v{version}":
        gaps.append(f"the tag {tag} is not v{version}")
    return gaps


if __name__ == "__main__":
    main()
