"""Write the English texts of the nodes where ComfyUI's page looks for translations.

Run:  python tools/build_locales.py http://127.0.0.1:8188
or:   python tools/build_locales.py object_info.json     (what that server has at /object_info)

The English texts are written in the nodes' schemas; `locales/en` only repeats them, so that
translators see everything there is. Other languages are written by hand.
"""

import json
import sys
from pathlib import Path

from build_workflows import read_object_info

FILE = Path(__file__).resolve().parent.parent / "locales" / "en" / "nodeDefs.json"


def node_texts(object_info: dict) -> dict:
    """Return all texts of the pack's nodes, in the form of ComfyUI's nodeDefs.json."""
    return {
        name: {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": _inputs(info),
            "outputs": {
                str(number): {"name": output, "tooltip": tooltip}
                for number, (output, tooltip) in enumerate(
                    zip(info["output_name"], info["output_tooltips"])
                )
            },
        }
        for name, info in sorted(object_info.items())
        if info["category"] == "CrossFrame"
    }


def _inputs(info: dict) -> dict:
    return {
        name: {"name": name, "tooltip": options["tooltip"]}
        for group in ("required", "optional")
        for name, (_, options) in info["input"].get(group, {}).items()
    }


def main() -> None:
    """Write the file."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    texts = node_texts(read_object_info(sys.argv[1]))
    FILE.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(FILE)


if __name__ == "__main__":
    main()
