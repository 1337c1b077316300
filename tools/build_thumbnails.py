"""Make the pictures of the example workflows, from real runs with the demo model and clip.

Run:  python tools/build_thumbnails.py http://127.0.0.1:8188     (a server with this pack)

Every example but the first needs models that have to be downloaded. Here the demo's model stands
in for them, so the pictures show what each graph does, not how a checkpoint paints.
"""

import io
import json
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "comfyui"))

from build_workflows import (
    FOLDER,
    REPAINT,
    SHOWN_AS_GRAPHS,
    TRY_IT,
    TRY_TEXT,
    read_object_info,
)
from PIL import Image
from workflow_api import api_prompt

SIDE, SCALE, GAP = 64, 3, 12
COLUMNS = 3
SAVE = "900"
SAMPLING = {"steps": 16, "cfg": 1.5, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0}
VALUES = {
    "ImageScale": {"width": SIDE, "height": SIDE, "upscale_method": "area", "crop": "disabled"},
    "CrossFrameAttention": {"references": "first", "layers": "all"},
    "KSampler": SAMPLING,
    "CrossFrameKSampler": SAMPLING,
    "CrossFrameRerender": SAMPLING,
}
CLIP_SECONDS = 32 / 12
PROMPTS = {
    "Video restyle": "a neon drawing",
    "Video restyle (frame by frame)": "a pastel drawing",
    "Video restyle (SDXL)": "a warm drawing",
    "Steady restyle": "a cold drawing",
    "Steady restyle (SDXL)": "a neon drawing",
    "Long clip in chunks": "a dark drawing",
    "Rerender a video": "a pastel drawing",
    "Control video": "a warm drawing",
    "Every eighth frame (fast)": "a neon drawing",
}


def main() -> None:
    """Write a picture for every workflow that paints a video, but for the first example.

    The picture of the first example shows the plain clip, too, and is not made here.
    """
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    server = sys.argv[1].rstrip("/")
    object_info = read_object_info(server)
    for file in sorted(FOLDER.glob("*.json")):
        if file.stem not in (TRY_IT, *SHOWN_AS_GRAPHS):
            workflow = json.loads(file.read_text(encoding="utf-8"))
            prompt = api_prompt(workflow, object_info)
            if file.stem not in (REPAINT, TRY_TEXT):  # they have the demo's model and clip already
                with_demo(prompt, PROMPTS[file.stem])
            _save_images(prompt)
            picture = thumbnail(server, prompt)
            picture.save(file.with_suffix(".jpg"), quality=90)
            print(file.with_suffix(".jpg"))


def with_demo(prompt: dict, text: str) -> None:
    """Put the demo's model and clip in place of files."""
    for node in prompt.values():
        inputs = node["inputs"]
        inputs.update(VALUES.get(node["class_type"], {}))
        if node["class_type"] == "CrossFrameAttention" and isinstance(inputs["keyframes"], list):
            inputs["references"] = "keyframes"
    _replace_files(prompt)
    for key in _keys(prompt, "CLIPTextEncode"):
        inputs = prompt[key]["inputs"]
        inputs["text"] = "" if "watermark" in inputs["text"] else text
    trims = _keys(prompt, "Video Slice")
    for number, key in enumerate(trims):
        seconds = CLIP_SECONDS / len(trims)
        prompt[key]["inputs"].update(start_time=number * seconds, duration=seconds)


def _replace_files(prompt: dict) -> None:
    """Put the demo's model and clip in place of the nodes that load files."""
    (model,) = _keys(prompt, "CheckpointLoaderSimple")
    prompt[model] = {"class_type": "CrossFrameDemoModel", "inputs": {}}
    for key in _keys(prompt, "ControlNetLoader"):
        _reconnect(prompt, [key, 0], [model, 3])
    for key in _keys(prompt, "Canny"):
        # The demo's ControlNet has learned from the frames themselves, not from edges.
        _reconnect(prompt, [key, 0], prompt.pop(key)["inputs"]["image"])
    for key in _keys(prompt, "LoadVideo"):
        prompt[key] = {"class_type": "CrossFrameDemoClip", "inputs": {}}


def _save_images(prompt: dict) -> None:
    """Save the frames that are painted from and those that are painted, and nothing else."""
    rerendered = _keys(prompt, "CrossFrameRerender")
    painted = rerendered or _keys(prompt, "CrossFramePropagate") or _keys(prompt, "VAEDecode")
    images = _keys(prompt, "ImageScale") + painted
    for key in _keys(prompt, "SaveVideo") + _keys(prompt, "CrossFrameConsistency"):
        del prompt[key]
    for number, key in enumerate(images):
        output = 1 if key in rerendered else 0
        inputs = {"images": [key, output]}
        prompt[f"{SAVE}{number}"] = {"class_type": "PreviewImage", "inputs": inputs}


def _keys(prompt: dict, kind: str) -> list[str]:
    return [key for key, node in prompt.items() if node["class_type"] == kind]


def _reconnect(prompt: dict, before: list, after: list) -> None:
    for node in prompt.values():
        inputs = node["inputs"]
        inputs.update({key: after for key, value in inputs.items() if value == before})


def thumbnail(server: str, prompt: dict) -> Image.Image:
    """Run a prompt, and show frames of its sources above those that are painted.

    If there are no sources, the painted frames fill both rows.
    """
    outputs = run(server, prompt)
    keys = sorted((key for key in outputs if key.startswith(SAVE)), key=int)
    rows = [
        [image for key in half for image in images_of(server, outputs[key])]
        for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :])
    ]
    if not rows[0]:
        middle = len(rows[1]) // 2
        rows = [rows[1][:middle], rows[1][middle:]]
    side = SIDE * SCALE
    size = (COLUMNS * side + (COLUMNS - 1) * GAP, 2 * side + GAP)
    picture = Image.new("RGB", size, "white")
    for row, images in enumerate(rows):
        for column in range(min(COLUMNS, len(images))):
            frame = images[column * (len(images) - 1) // (COLUMNS - 1)]
            large = frame.resize((side, side), Image.Resampling.BICUBIC)
            picture.paste(large, (column * (side + GAP), row * (side + GAP)))
    return picture


def run(server: str, prompt: dict) -> dict:
    """Queue a prompt, wait for it, and return its outputs by node."""
    body = json.dumps({"prompt": prompt}).encode()
    with urllib.request.urlopen(f"{server}/prompt", body) as answer:
        number = json.load(answer)["prompt_id"]
    while True:
        with urllib.request.urlopen(f"{server}/history/{number}") as answer:
            if entry := json.load(answer).get(number):
                if entry["status"]["status_str"] != "success":
                    sys.exit(json.dumps(entry["status"], indent=1))
                return entry["outputs"]
        time.sleep(0.5)


def images_of(server: str, output: dict) -> list[Image.Image]:
    """Return the images that a node has saved."""
    found = []
    for image in output["images"]:
        with urllib.request.urlopen(f"{server}/view?{urlencode(image)}") as answer:
            found.append(Image.open(io.BytesIO(answer.read())).convert("RGB"))
    return found


if __name__ == "__main__":
    main()
