"""Graphs for a server: some frames of the demo's clip, painted frame by frame, and their state."""

from safetensors.torch import load_file

FRAMES, STEPS = 6, 6
SAMPLER = "9"


def graph(first=0, count=FRAMES, references="first + previous", **inputs):
    """Some frames of the demo's clip, painted frame by frame and saved as latents."""
    prompt = {
        "1": ("CrossFrameDemoModel", {}),
        "2": ("CrossFrameDemoClip", {}),
        "3": ("GetVideoComponents", {"video": ["2", 0]}),
        "4": ("ImageFromBatch", {"image": ["3", 0], "batch_index": first, "length": count}),
        "13": (
            "ImageScale",
            {
                "image": ["4", 0],
                "upscale_method": "area",
                "width": 64,
                "height": 64,
                "crop": "disabled",
            },
        ),
        "5": ("VAEEncode", {"pixels": ["13", 0], "vae": ["1", 2]}),
        "6": ("CLIPTextEncode", {"clip": ["1", 1], "text": "a drawing"}),
        "7": ("CLIPTextEncode", {"clip": ["1", 1], "text": ""}),
        "8": (
            "CrossFrameAttention",
            {
                "model": ["1", 0],
                "references": references,
                "include_self": False,
                "layers": "all",
                "start_percent": 0.0,
                "end_percent": 1.0,
                "frames_per_batch": 0,
            },
        ),
        SAMPLER: (
            "CrossFrameKSampler",
            {
                "model": ["8", 0],
                "seed": 1,
                "steps": STEPS,
                "cfg": 1.5,
                "sampler_name": "euler",
                "scheduler": "normal",
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
                "denoise": 1.0,
                "frame_noise": "different per frame",
                **inputs,
            },
        ),
        "10": ("SaveLatent", {"samples": [SAMPLER, 0], "filename_prefix": "painted"}),
    }
    return {name: {"class_type": kind, "inputs": values} for name, (kind, values) in prompt.items()}


def with_state_saved(prompt):
    """The graph, with a node that saves the sampler's state and one that shows it."""
    save = {"state": [SAMPLER, 1], "filename_prefix": "crossframe/state"}
    return {
        **prompt,
        "11": {"class_type": "CrossFrameSaveState", "inputs": save},
        "12": {"class_type": "PreviewAny", "inputs": {"source": [SAMPLER, 1]}},
    }


def with_state_loaded(prompt, file):
    """The graph, which goes on from the state in a file."""
    prompt[SAMPLER]["inputs"]["state"] = ["20", 0]
    return {**prompt, "20": {"class_type": "CrossFrameLoadState", "inputs": {"file": file}}}


def paint(server, prompt):
    """Run a graph: (latents, what it did)."""
    outcome = server.run(prompt)
    assert outcome.end == "execution_success", outcome.messages[-1]
    (file,) = server.outputs(outcome, "10")
    return load_file(file)["latent_tensor"], outcome


def saved_state(server, outcome):
    """(file, how Load State names it)."""
    (file,) = server.outputs(outcome, "11")
    return file, f"crossframe/{file.name} [output]"
