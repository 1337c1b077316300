"""The example workflows on a real server: a real video in, a real video out."""

import io
import json
import re
import tempfile
import urllib.request
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import model_files
import pytest
import stand_ins
import torch
from comfy_server import FOLDER, install_pack, make_base_directory, running_server
from comfyui_location import ROOT
from input_files import FPS, FRAMES, SECONDS, write_picture, write_video
from PIL import Image
from workflow_api import PAGE_ONLY, api_prompt, set_widget
from workflows import models

EXAMPLES = {
    "KSampler": "Video restyle.json",
    "CrossFrameKSampler": "Video restyle (frame by frame).json",
}
TRY_IT = "1 - Try it (no downloads).json"
REPAINT = "2 - Repaint and propagate (no downloads).json"
CHUNKS = "Long clip in chunks.json"
REFERENCE = "Reference picture.json"
SDXL = "Video restyle (SDXL).json"
RESTYLE = "Video restyle (Z-Image-Turbo).json"
EDIT = "Edit a video (Flux Kontext).json"
TRANSFORMERS = [RESTYLE, EDIT]
STEADY = "Steady restyle.json"
STEADY_SDXL = "Steady restyle (SDXL).json"
STEADY_TRANSFORMER = "Steady restyle (Z-Image-Turbo).json"
RERENDER = "Rerender a video.json"
EIGHTH = "Every eighth frame (fast).json"
TRY_TEXT = "3 - Text to video (no downloads).json"
TEXT = "Text to video.json"
TEXT_TRANSFORMER = "Text to video (Z-Image-Turbo).json"
CONTROL_VIDEO = "Control video.json"
STEADY_ONES = [STEADY, STEADY_SDXL, STEADY_TRANSFORMER]
FILES = [
    TRY_IT,
    REPAINT,
    *EXAMPLES.values(),
    SDXL,
    CHUNKS,
    REFERENCE,
    *TRANSFORMERS,
    *STEADY_ONES,
    RERENDER,
    EIGHTH,
    TRY_TEXT,
    TEXT,
    TEXT_TRANSFORMER,
    CONTROL_VIDEO,
]
STEPS = 2
SIZE_OUT = (96, 64)  # as a model wants it
SAVE_LATENT = 1000  # a node id that no example has
PICTURES = {"red.png": (230, 40, 40), "green.png": (30, 160, 60)}


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family in (models.SD15, models.SDXL):
            model_files.write_models(folder / "models", family)
        for family in (models.Z_IMAGE_TURBO, models.KONTEXT):
            model_files.write_vae(folder / "models", family)
        make_base_directory(folder)
        install_pack(folder / "custom_nodes" / FOLDER)
        stand_ins.install(folder / "custom_nodes")
        write_video(folder / "input" / "clip.mp4")
        for name, color in PICTURES.items():
            write_picture(folder / "input" / name, color)
        with running_server(folder, "--preview-method", "latent2rgb") as server:
            yield server


@pytest.fixture(scope="module")
def object_info(server):
    return server.get("/object_info")


@pytest.fixture(scope="module")
def runs(server, object_info):
    """Both examples, run once each."""
    return {kind: run_example(server, object_info, kind) for kind in EXAMPLES}


def read_file(name: str) -> dict:
    return json.loads((ROOT / "example_workflows" / name).read_text(encoding="utf-8"))


def read_example(kind: str) -> dict:
    return read_file(EXAMPLES[kind])


def nodes_of(workflow: dict, kind: str) -> list[dict]:
    return [node for node in workflow["nodes"] if node["type"] == kind]


def node_of(workflow: dict, kind: str) -> dict:
    (node,) = nodes_of(workflow, kind)
    return node


def prepare(object_info: dict, file: str, changes: dict, kind: str) -> tuple[dict, dict]:
    """An example as a user sets it up, with the latents of its samplers saved.

    changes: values by the type of the nodes that get them. kind: type of its samplers. Returns
    the workflow and its prompt.
    """
    workflow = read_file(file)
    for type_, values in changes.items():
        for node in nodes_of(workflow, type_):
            for name, value in values.items():
                set_widget(node, object_info[type_], name, value)
    prompt = api_prompt(workflow, object_info)
    for number, sampler in enumerate(nodes_of(workflow, kind)):
        inputs = {"samples": [str(sampler["id"]), 0], "filename_prefix": "latents/clip"}
        prompt[str(SAVE_LATENT + number)] = {"class_type": "SaveLatent", "inputs": inputs}
    return workflow, prompt


def prepare_example(object_info: dict, kind: str) -> tuple[dict, dict]:
    """An example as a user would set it up for a small video: the workflow and its prompt."""
    changes = {
        "LoadVideo": {"file": "clip.mp4"},
        "ImageScale": {"width": SIZE_OUT[0], "height": SIZE_OUT[1]},
        kind: {"steps": STEPS},
    }
    return prepare(object_info, EXAMPLES[kind], changes, kind)


def bypass_attention(workflow: dict, prompt: dict, kind: str) -> None:
    attention = prompt[str(node_of(workflow, "CrossFrameAttention")["id"])]
    sampler = prompt[str(node_of(workflow, kind)["id"])]
    sampler["inputs"]["model"] = attention["inputs"]["model"]


def run_example(server, object_info: dict, kind: str, on_message=None):
    workflow, prompt = prepare_example(object_info, kind)
    return server.run(prompt, workflow, on_message)


def latents(server, outcome, number: int = 0):
    from safetensors.torch import load_file

    (file,) = server.outputs(outcome, str(SAVE_LATENT + number))
    return load_file(file)["latent_tensor"]


def difference(a, b) -> float:
    """The largest difference, in standard deviations."""
    return float((a - b).abs().max() / a.std())


def test_server_imports_the_pack_without_complaint(server):
    (line,) = re.findall(rf".*seconds.*{FOLDER}\n", server.log)
    assert "IMPORT FAILED" not in server.log, line


def test_every_node_input_and_output_is_described(object_info):
    module = f"custom_nodes.{FOLDER}"
    nodes = {name: info for name, info in object_info.items() if info["python_module"] == module}
    described = Path(__file__).with_name("schema.json").read_text(encoding="utf-8")
    assert nodes.keys() == json.loads(described).keys()
    for name, info in nodes.items():
        assert info["category"] == "CrossFrame", name
        assert info["display_name"] != name
        assert info["description"], name
        assert info["search_aliases"], name
        assert all(info["output_tooltips"]), name
        assert len(info["output_tooltips"]) == len(info["output"]), name
        for group in ("required", "optional"):
            for key, (_, options) in info["input"].get(group, {}).items():
                assert options.get("tooltip"), f"{name}.{key}"


@pytest.mark.parametrize("file", FILES)
def test_page_offers_example_with_a_picture(server, file):
    name = Path(file).stem
    assert name in server.get("/workflow_templates")[FOLDER]
    address = f"http://{server.address}/api/workflow_templates/{FOLDER}/{quote(name)}.jpg"
    with urllib.request.urlopen(address) as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("file", FILES)
def test_example_is_what_its_builder_writes(object_info, file):
    import build_workflows

    assert build_workflows.build(object_info)[file] == read_file(file)


@pytest.mark.parametrize("file", FILES)
def test_example_opens_with_known_nodes_only(object_info, file):
    for node in read_file(file)["nodes"]:
        if node["type"] in PAGE_ONLY:
            continue
        info = object_info[node["type"]]
        pack = info["python_module"].startswith("custom_nodes.")
        assert node["properties"]["cnr_id"] == ("crossframe" if pack else "comfy-core")


@pytest.mark.parametrize("file", FILES)
def test_example_nodes_do_not_overlap(file):
    title = 30
    boxes = [
        (x, y - title, x + width, y + height)
        for node in read_file(file)["nodes"]
        for (x, y), (width, height) in [(node["pos"], node["size"])]
    ]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for left2, top2, right2, bottom2 in boxes[:i]:
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top


@pytest.mark.parametrize("kind", EXAMPLES)
def test_example_makes_a_video_of_a_video(server, runs, kind):
    import av

    outcome = runs[kind]
    assert outcome.end == "execution_success", outcome.messages[-1]
    (file,) = server.outputs(outcome, node_of(read_example(kind), "SaveVideo")["id"])
    with av.open(str(file)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height) == SIZE_OUT
        assert video.average_rate == Fraction(FPS)
        assert container.metadata["workflow"]  # drop the video on the page to get it back
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        container.seek(0)
        heard = sum(frame.samples for frame in container.decode(audio)) / audio.rate
    assert len(images) == FRAMES
    assert all(image.std() > 10 for image in images)
    assert heard == pytest.approx(SECONDS, abs=0.1)


@pytest.fixture(scope="module")
def tried(server, object_info):
    """The example that needs no download, queued as it is."""
    workflow = read_file(TRY_IT)
    return server.run(api_prompt(workflow, object_info), workflow)


def test_the_first_example_runs_as_it_is(server, tried):
    import av

    assert tried.end == "execution_success", tried.messages[-1]
    (file,) = server.outputs(tried, node_of(read_file(TRY_IT), "SaveVideo")["id"])
    with av.open(str(file)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == Fraction(FPS)
    assert len(images) == 32
    assert images[0].shape == (256, 2 * 256 + 8, 3)
    assert all(image.std() > 10 for image in images)


def test_the_first_example_shows_the_difference(server, tried):
    near = {}
    for node in read_file(TRY_IT)["nodes"]:
        if node["type"] == "CrossFrameConsistency":
            outputs = server.get(f"/history/{tried.prompt_id}")[tried.prompt_id]["outputs"]
            (text,) = outputs[str(node["id"])]["text"]
            near[node["pos"][1]] = float(text.splitlines()[1].split()[1])
    plain, steady = (near[height] for height in sorted(near))  # the plain branch is above
    assert plain > 8 * steady  # 16 times, as measured: the stock sampler's noise differs per frame


def test_the_second_example_without_downloads_runs(server, object_info):
    """It takes few steps here, and does not measure flicker."""
    import av

    workflow = read_file(REPAINT)
    for kind in ("CrossFrameRerender", "KSampler"):
        set_widget(node_of(workflow, kind), object_info[kind], "steps", STEPS)
    prompt = api_prompt(workflow, object_info)
    for node in nodes_of(workflow, "CrossFrameConsistency"):
        del prompt[str(node["id"])]
    outcome = server.run(prompt, workflow)
    assert outcome.end == "execution_success", outcome.messages[-1]
    (file,) = server.outputs(outcome, node_of(workflow, "SaveVideo")["id"])
    with av.open(str(file)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(images) == 32
    for image in images:
        left, right = image[:, :256], image[:, -256:]
        assert left.std() > 10
        assert right.std() > 10
        assert abs(left.astype(float) - right).mean() > 2  # two ways to paint


@pytest.mark.parametrize("file", [TRY_TEXT, TEXT])
def test_a_clip_from_a_prompt_moves_as_its_field_says(server, object_info, file):
    """The example without downloads as it is, the other one with fewer frames."""
    import av

    workflow = read_file(file)
    frames = 16
    if file == TEXT:
        frames = 3
        field = {"frames": frames, "width": 64, "height": 64, "x": 8.0}
        for type_, values in {
            "CrossFrameMotionField": field,
            "EmptyLatentImage": {"width": 64, "height": 64},
        }.items():
            for name, value in values.items():
                set_widget(node_of(workflow, type_), object_info[type_], name, value)
    outcome = server.run(api_prompt(workflow, object_info), workflow)
    assert outcome.end == "execution_success", outcome.messages[-1]
    (video,) = server.outputs(outcome, node_of(workflow, "SaveVideo")["id"])
    with av.open(str(video)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(images) == frames
    if file == TRY_TEXT:
        side = images[0].shape[0] // 2
        centre = slice(side // 2, side + side // 2)
        first, later = (images[n].astype(float) for n in (0, 6))
        shift = 6 * images[0].shape[1] // 64  # a pixel of the demo model per frame
        moved = abs(
            later[centre, centre.start + shift : centre.stop + shift] - first[centre, centre]
        )
        assert moved.mean() < 0.8 * abs(later[centre, centre] - first[centre, centre]).mean()


def test_the_example_with_a_control_video_runs(server, object_info):
    changes = {
        "LoadVideo": {"file": "clip.mp4"},
        "ImageScale": {"width": SIZE_OUT[0], "height": SIZE_OUT[1]},
        "KSampler": {"steps": STEPS},
    }
    found = []
    for control in ("CrossFrameControlNet", None):
        workflow, prompt = prepare(object_info, CONTROL_VIDEO, changes, "KSampler")
        if control is None:  # as if it were bypassed
            node = node_of(workflow, "CrossFrameControlNet")
            loader = prompt[str(node["id"])]["inputs"]["control_net"]
            apply = prompt[str(node_of(workflow, "ControlNetApplyAdvanced")["id"])]
            apply["inputs"]["control_net"] = loader
        outcome = server.run(prompt, workflow)
        assert outcome.end == "execution_success", outcome.messages[-1]
        found.append(latents(server, outcome))
    assert difference(found[0][:1], found[1][:1]) < 1e-3
    assert difference(*found) > 1e-3


@pytest.mark.parametrize("file", [RERENDER, EIGHTH])
def test_the_examples_with_two_passes_or_keyframes_paint_every_frame(server, object_info, file):
    import av

    changes = {
        "LoadVideo": {"file": "clip.mp4"},
        "ImageScale": {"width": SIZE_OUT[0], "height": SIZE_OUT[1]},
        "CrossFrameRerender": {"steps": STEPS},
        "CrossFrameKeyframes": {"every": 3},
        "KSampler": {"steps": STEPS},
    }
    present = {node["type"] for node in read_file(file)["nodes"]}
    changes = {kind: values for kind, values in changes.items() if kind in present}
    workflow, prompt = prepare(object_info, file, changes, "no sampler")
    outcome = server.run(prompt, workflow)
    assert outcome.end == "execution_success", outcome.messages[-1]
    (video,) = server.outputs(outcome, node_of(workflow, "SaveVideo")["id"])
    with av.open(str(video)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(images) == FRAMES
    assert images[0].shape == (SIZE_OUT[1], SIZE_OUT[0], 3)
    assert all(image.std() > 5 for image in images)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_progress_and_previews_reach_the_page(runs, kind):

    outcome = runs[kind]
    states = outcome.progress(node_of(read_example(kind), kind)["id"])
    total = STEPS if kind == "KSampler" else FRAMES * STEPS
    values = [value for value, _ in states]
    assert {most for _, most in states} == {total}
    assert values == sorted(values)
    assert set(range(1, total + 1)) <= set(values)
    assert len(outcome.previews) >= total
    for preview in outcome.previews:
        Image.open(io.BytesIO(preview)).verify()


def test_previews_of_frame_by_frame_show_frame_after_frame(runs):
    previews = runs["CrossFrameKSampler"].previews
    assert len(set(previews)) == FRAMES * STEPS


def test_both_samplers_paint_the_same_frames(server, runs):
    all_at_once, one_by_one = (latents(server, runs[kind]) for kind in EXAMPLES)
    assert all_at_once.shape == (FRAMES, 4, SIZE_OUT[1] // 8, SIZE_OUT[0] // 8)
    assert difference(all_at_once, one_by_one) < 1e-3


def test_chunks_are_the_clip_in_one(server, object_info, runs):
    """The frames and the sound are those of the example without chunks."""
    import av

    changes = {
        "LoadVideo": {"file": "clip.mp4"},
        "ImageScale": {"width": SIZE_OUT[0], "height": SIZE_OUT[1]},
        "CrossFrameKSampler": {"steps": STEPS},
    }
    workflow, prompt = prepare(object_info, CHUNKS, changes, "CrossFrameKSampler")
    for number, trim in enumerate(nodes_of(workflow, "Video Slice")):
        cut = {"start_time": number * SECONDS / 2, "duration": SECONDS / 2}
        prompt[str(trim["id"])]["inputs"].update(cut)
    outcome = server.run(prompt, workflow)
    assert outcome.end == "execution_success", outcome.messages[-1]
    pieces = [latents(server, outcome, number) for number in range(2)]
    assert [len(piece) for piece in pieces] == [FRAMES / 2, FRAMES / 2]
    assert torch.equal(torch.cat(pieces), latents(server, runs["CrossFrameKSampler"]))
    (file,) = server.outputs(outcome, node_of(workflow, "SaveVideo")["id"])
    with av.open(str(file)) as container:
        assert len([*container.decode(video=0)]) == FRAMES
        container.seek(0)
        rate = container.streams.audio[0].rate
        heard = sum(frame.samples for frame in container.decode(audio=0)) / rate
    assert heard == pytest.approx(SECONDS, abs=0.1)


def test_a_new_picture_takes_after_the_reference(server, object_info):
    """Another reference gives another picture; the reference itself comes out unchanged."""
    painted = {}
    for name in PICTURES:
        changes = {
            "LoadImage": {"image": name},
            "ImageScale": {"width": SIZE_OUT[0], "height": SIZE_OUT[1]},
            "EmptyLatentImage": {"width": SIZE_OUT[0], "height": SIZE_OUT[1], "batch_size": 2},
            "CrossFrameKSampler": {"steps": STEPS},
        }
        workflow, prompt = prepare(object_info, REFERENCE, changes, "CrossFrameKSampler")
        encoded = node_of(workflow, "VAEEncode")["id"]
        prompt["2000"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": [str(encoded), 0], "filename_prefix": "latents/reference"},
        }
        outcome = server.run(prompt, workflow)
        assert outcome.end == "execution_success", outcome.messages[-1]
        assert difference(latents(server, outcome, 1000), latents(server, outcome)) < 1e-3
        painted[name] = latents(server, outcome, 1)
        (*files,) = server.outputs(outcome, node_of(workflow, "SaveImage")["id"])
        assert [Image.open(file).size for file in files] == [SIZE_OUT, SIZE_OUT]
    red, green = painted.values()
    assert difference(red[0], red[1]) > 0.05
    for picture in range(2):
        assert difference(red[picture], green[picture]) > 0.05


def test_the_sdxl_example_binds_frames(server, object_info):
    """The first frame is that without attention, later ones are not."""
    changes = {
        "LoadVideo": {"file": "clip.mp4"},
        "ImageScale": {"width": SIZE_OUT[0], "height": SIZE_OUT[1]},
        "KSampler": {"steps": STEPS},
    }
    workflow, prompt = prepare(object_info, SDXL, changes, "KSampler")
    outcome = server.run(prompt, workflow)
    assert outcome.end == "execution_success", outcome.messages[-1]
    assert server.outputs(outcome, node_of(workflow, "SaveVideo")["id"])
    painted = latents(server, outcome)
    bypass_attention(workflow, prompt, "KSampler")
    plain = latents(server, server.run(prompt))
    assert difference(plain[:1], painted[:1]) < 1e-3
    for frame in range(1, FRAMES):
        assert difference(plain[frame], painted[frame]) > 0.05


def with_stand_ins(prompt: dict) -> dict:
    """Put small models in place of a transformer's loaders, and a small size for a large one."""
    kinds = [node["class_type"] for node in prompt.values()]
    family = "flux" if "DualCLIPLoader" in kinds else "z_image"
    others = {
        "UNETLoader": ("StandInModel", {"family": family}),
        "CLIPLoader": ("StandInClip", {"family": family}),
        "DualCLIPLoader": ("StandInClip", {"family": family}),
        "ModelPatchLoader": ("StandInControl", {}),
    }
    for node in prompt.values():
        if node["class_type"] in others:
            node["class_type"], node["inputs"] = others[node["class_type"]]
        if node["class_type"] == "FluxKontextImageScale":
            size = {"width": SIZE_OUT[0], "height": SIZE_OUT[1]}
            how = {"upscale_method": "lanczos", "crop": "center"}
            node.update(class_type="ImageScale", inputs={**node["inputs"], **size, **how})
    return prompt


def prepare_transformer(object_info: dict, file: str) -> tuple[dict, dict]:
    changes = {
        "LoadVideo": {"file": "clip.mp4"},
        "ImageScale": {"width": SIZE_OUT[0], "height": SIZE_OUT[1]},
        "KSampler": {"steps": STEPS},
    }
    workflow, prompt = prepare(object_info, file, changes, "KSampler")
    return workflow, with_stand_ins(prompt)


@pytest.mark.parametrize("file", TRANSFORMERS)
def test_the_examples_with_a_transformer_bind_frames(server, object_info, file):
    """The first frame is that without attention, later ones are not."""
    import av

    workflow, prompt = prepare_transformer(object_info, file)
    outcome = server.run(prompt, workflow)
    assert outcome.end == "execution_success", outcome.messages[-1]
    (video,) = server.outputs(outcome, node_of(workflow, "SaveVideo")["id"])
    with av.open(str(video)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == Fraction(FPS)
    assert [image.shape for image in images] == [(SIZE_OUT[1], SIZE_OUT[0], 3)] * FRAMES
    assert all(image.std() > 10 for image in images)
    painted = latents(server, outcome)
    assert painted.shape == (FRAMES, 16, SIZE_OUT[1] // 8, SIZE_OUT[0] // 8)
    bypass_attention(workflow, prompt, "KSampler")
    plain = latents(server, server.run(prompt))
    assert difference(plain[:1], painted[:1]) < 1e-4
    for frame in range(1, FRAMES):
        assert difference(plain[frame], painted[frame]) > 0.005


@pytest.mark.parametrize("file", STEADY_ONES)
def test_the_steady_examples_fuse_frames(server, object_info, file):
    """Without fusion other frames come out, and without motion that can be trusted the same."""
    workflow, prompt = prepare_transformer(object_info, file)
    outcome = server.run(prompt, workflow)
    assert outcome.end == "execution_success", outcome.messages[-1]
    assert server.outputs(outcome, node_of(workflow, "SaveVideo")["id"])
    painted = latents(server, outcome)
    fusion = prompt[str(node_of(workflow, "CrossFrameFusion")["id"])]["inputs"]
    sampler = prompt[str(node_of(workflow, "KSampler")["id"])]["inputs"]
    sampler["model"] = fusion["model"]
    apart = latents(server, server.run(prompt))
    assert all(difference(apart[frame], painted[frame]) > 0.005 for frame in range(1, FRAMES))
    attention = prompt[str(node_of(workflow, "CrossFrameAttention")["id"])]["inputs"]
    sampler["model"] = attention["model"]
    plain = latents(server, server.run(prompt))
    assert difference(plain, apart) > 0.005


@pytest.mark.parametrize(
    ("file", "node", "socket"),
    [(RESTYLE, "QwenImageDiffsynthControlnet", "image"), (EDIT, "ReferenceLatent", "latent")],
)
def test_every_frame_of_a_transformer_has_its_own_picture(server, object_info, file, node, socket):
    """Without attention, a frame that is painted alone comes out as it does in the clip."""
    workflow, prompt = prepare_transformer(object_info, file)
    bypass_attention(workflow, prompt, "KSampler")
    whole = latents(server, server.run(prompt))
    holder = prompt[str(node_of(workflow, node)["id"])]["inputs"]
    sampler = prompt[str(node_of(workflow, "KSampler")["id"])]["inputs"]
    kind = "ImageFromBatch" if socket == "image" else "LatentFromBatch"
    name = "image" if socket == "image" else "samples"
    for frame in (0, FRAMES - 1):
        cut = {"batch_index": frame, "length": 1}
        alone = json.loads(json.dumps(prompt))
        alone["3000"] = {"class_type": kind, "inputs": {name: holder[socket], **cut}}
        alone["3001"] = {
            "class_type": "LatentFromBatch",
            "inputs": {"samples": sampler["latent_image"], **cut},
        }
        alone[str(node_of(workflow, node)["id"])]["inputs"][socket] = ["3000", 0]
        alone[str(node_of(workflow, "KSampler")["id"])]["inputs"]["latent_image"] = ["3001", 0]
        outcome = server.run(alone)
        assert outcome.end == "execution_success", outcome.messages[-1]
        painted = latents(server, outcome)
        assert difference(painted[0], whole[frame]) < 1e-3
        assert difference(painted[0], whole[frame - 1]) > 0.05


def test_bypassing_the_attention_changes_all_frames_but_the_first(server, object_info, runs):
    workflow, prompt = prepare_example(object_info, "KSampler")
    bypass_attention(workflow, prompt, "KSampler")
    plain = latents(server, server.run(prompt))
    with_attention = latents(server, runs["KSampler"])
    assert difference(plain[:1], with_attention[:1]) < 1e-3
    for frame in range(1, FRAMES):
        assert difference(plain[frame], with_attention[frame]) > 0.05


def test_cancelled_run_leaves_nothing_behind(server, object_info, runs):
    kind = "CrossFrameKSampler"
    sampler = str(node_of(read_example(kind), kind)["id"])
    undisturbed = latents(server, runs[kind])
    server.post("/free", {"free_memory": True})  # else the result comes from ComfyUI's cache

    def cancel_in_the_second_frame(name: str, data: dict) -> None:
        if name == "progress" and data["node"] == sampler and data["value"] == STEPS + 1:
            server.post("/interrupt")

    cancelled = run_example(server, object_info, kind, cancel_in_the_second_frame)
    assert cancelled.end == "execution_interrupted"
    assert cancelled.progress(sampler)[-1][0] <= STEPS + 3
    again = run_example(server, object_info, kind)
    assert len(again.progress(sampler)) >= FRAMES * STEPS
    assert difference(undisturbed, latents(server, again)) == 0


def test_sampler_without_attention_is_refused_in_words(server, object_info):
    workflow, prompt = prepare_example(object_info, "CrossFrameKSampler")
    bypass_attention(workflow, prompt, "CrossFrameKSampler")
    outcome = server.run(prompt)
    assert outcome.end == "execution_error"
    (error,) = outcome.of_type("execution_error")
    assert "input 'model'" in error["exception_message"]
    assert "Put a CrossFrameAttention node before it." in error["exception_message"]
    assert error["exception_type"] == "crossframe.BadInputError"  # and not by the pack's path


def test_server_log_has_no_errors(server):
    refused = "the MODEL carries no cross-frame attention"  # what the test above provokes
    log = re.sub(rf"(?s)\n[^\n]*Exception during processing.*?{refused}.*?\n\n", "\n", server.log)
    assert "Traceback" not in log
    assert "ERROR" not in log
