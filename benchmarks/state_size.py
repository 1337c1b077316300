"""Measure the size of a state at full resolution: the estimate, what is kept, and the file.

It paints two frames with a U-Net of SD1.5's or SDXL's own geometry and random weights in a real
ComfyUI, frame by frame, and saves the state. The sizes do not depend on the weights. On a CPU
ComfyUI computes in fp32; fp16 takes half the size. SD1.5 at 20 steps takes twenty minutes on two
cores and 12 GB of memory. The sizes are proportional to the number of steps.

    python tools/module.py benchmarks.state_size --family sd15 --steps 20
"""

import argparse
import tempfile
from pathlib import Path

import torch

from .random_models import random_model, random_prompt

SIDE = {"sd15": 64, "sdxl": 128}  # side of a latent, for 512 and 1024 pixels
FRAMES = 2
MIB = 2**20


def main() -> None:
    options = parse_options()
    from comfyui_location import need_comfyui

    need_comfyui(cpu=True)
    with torch.inference_mode():
        for line in measure(options.family, options.steps, options.layers):
            print(line, flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=SIDE, default="sd15")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layers", default="up")
    return parser.parse_args()


def measure(family: str, steps: int, layers: str):
    """Paint the frames, keep the state and save it; yield the lines of a report."""
    from comfy.samplers import CFGGuider, sampler_object
    from comfy_extras.nodes_custom_sampler import BasicScheduler, Noise_RandomNoise

    from ..attention import FrameByFrame
    from ..hosts.comfy.orders.sampler_nodes import sample_custom
    from ..hosts.comfy.run.bank_size import expected_size
    from ..hosts.comfy.run.comfy_run import new_run
    from ..hosts.comfy.state.comfy_state import Origin
    from ..hosts.comfy.state.continuation import Continuation
    from ..hosts.comfy.state.files import write
    from ..nodes.attention import CrossFrameAttention

    patched = CrossFrameAttention.execute(
        model=random_model(family),
        references="first + previous",
        include_self=False,
        layers=layers,
        start_percent=0.0,
        end_percent=1.0,
        frames_per_batch=0,
    ).args[0]
    guider = CFGGuider(patched)
    guider.set_conds(random_prompt(family), random_prompt(family))
    guider.set_cfg(7.0)
    sampler = sampler_object("euler")
    sigmas = BasicScheduler.execute(patched, "normal", steps, 1.0).args[0]
    clip = torch.zeros(FRAMES, 4, SIDE[family], SIDE[family])
    continuation = Continuation(carry=True)
    origin = Origin.of(guider, clip, sampler, sigmas)
    run = new_run(guider, clip, FrameByFrame, continuation=continuation, origin=origin)
    estimate = expected_size(run, guider, sampler, sigmas, clip).nbytes
    yield f"{family}, {steps} steps, layers {layers}: estimate {estimate / MIB:.2f} MiB"
    noise = Noise_RandomNoise(0)
    latent = {"samples": clip}
    state = sample_custom(noise, guider, sampler, sigmas, latent, continuation).state
    yield f"kept {state.nbytes / MIB:.2f} MiB: {state!r}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.safetensors"
        write(state, file)
        yield f"file {file.stat().st_size / MIB:.2f} MiB"


if __name__ == "__main__":
    main()
