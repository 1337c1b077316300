"""Size of a state at full size: what is said before sampling, what is kept, and the file.

Paints two frames with a U-Net of SD1.5's or SDXL's own geometry and random weights in a real
ComfyUI, frame by frame, and saves the state. The sizes do not depend on the weights. On a CPU
ComfyUI computes in fp32; fp16 takes half of it. SD1.5 at 20 steps takes half an hour on two cores
and 12 GB of memory; the sizes are in proportion to the steps.

    python tools/module.py benchmarks.state_size --family sd15 --steps 20
"""

import argparse
import tempfile
from pathlib import Path

import torch

SIDE = {"sd15": 64, "sdxl": 128}  # of a latent: 512 and 1024 pixels
FRAMES = 2
MIB = 2**20
SHARED = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
    "dtype": torch.float32,
}
UNET = {
    "sd15": {
        **SHARED,
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "context_dim": 768,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    "sdxl": {
        **SHARED,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "context_dim": 2048,
        "use_linear_in_transformer": True,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    },
}


def main() -> None:
    options = parse_options()
    from comfyui_location import need_comfyui

    need_comfyui(cpu=True)
    with torch.inference_mode():
        for line in measure(options.family, options.steps, options.layers):
            print(line, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=UNET, default="sd15")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layers", default="up")
    return parser.parse_args()


def measure(family: str, steps: int, layers: str):
    """Paint, keep and save; yields lines of a report."""
    from comfy.samplers import CFGGuider, sampler_object
    from comfy_extras.nodes_custom_sampler import BasicScheduler, Noise_RandomNoise

    from ..hosts.comfy.bank_size import bank_bytes
    from ..hosts.comfy.continuation import Continuation
    from ..hosts.comfy.run import new_run
    from ..hosts.comfy.sampler_nodes import sample_custom
    from ..hosts.comfy.state import Origin
    from ..hosts.comfy.state_files import write
    from ..nodes.attention import CrossFrameAttention

    patched = CrossFrameAttention.execute(
        model=model(family),
        references="first + previous",
        include_self=False,
        layers=layers,
        start_percent=0.0,
        end_percent=1.0,
        frames_per_batch=0,
    ).args[0]
    guider = CFGGuider(patched)
    guider.set_conds(prompt(family), prompt(family))
    guider.set_cfg(7.0)
    sampler = sampler_object("euler")
    sigmas = BasicScheduler.execute(patched, "normal", steps, 1.0).args[0]
    clip = torch.zeros(FRAMES, 4, SIDE[family], SIDE[family])
    going = Continuation(carry=True)
    origin = Origin.of(guider, clip, sampler, sigmas)
    run = new_run(guider, clip, node="", one_frame=True, going=going, origin=origin)
    estimate = bank_bytes(run, guider, sampler, sigmas, clip)
    yield f"{family}, {steps} steps, layers {layers}: estimate {estimate / MIB:.2f} MiB"
    noise = Noise_RandomNoise(0)
    state = sample_custom(noise, guider, sampler, sigmas, {"samples": clip}, "", going).state
    yield f"kept {state.nbytes / MIB:.2f} MiB: {state!r}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.safetensors"
        write(state, file)
        yield f"file {file.stat().st_size / MIB:.2f} MiB"


def model(family: str):
    """A MODEL of full size with small random weights."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    base, settings = {
        "sd15": (comfy.model_base.BaseModel, comfy.supported_models.SD15),
        "sdxl": (comfy.model_base.SDXL, comfy.supported_models.SDXL),
    }[family]
    config = settings(dict(UNET[family]))
    heads = (8, -1) if family == "sd15" else (-1, 64)
    config.unet_config["num_heads"], config.unet_config["num_head_channels"] = heads
    real = base(config, model_type=comfy.model_base.ModelType.EPS)
    generator = torch.Generator().manual_seed(0)
    for weight in real.diffusion_model.parameters():
        weight.data.normal_(0, 0.01, generator=generator)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(real, device, device)


def prompt(family: str):
    """A CONDITIONING of the family's size."""
    pooled = {"pooled_output": torch.zeros(1, 1280)} if family == "sdxl" else {}
    return [[torch.zeros(1, 77, UNET[family]["context_dim"]), pooled]]


if __name__ == "__main__":
    main()
