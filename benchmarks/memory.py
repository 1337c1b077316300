"""Measure the memory of long clips: how much one more frame takes, in both orders.

It samples clips of several lengths with the demo model on small latents in a real ComfyUI, each in
a separate process, and compares the peaks. Only the clip's latents may grow with its length.

    python tools/module.py benchmarks.memory
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

SIDE = 8  # height and width of a latent
LATENT_BYTES = 4 * SIDE * SIDE * 4  # bytes of one frame's latent: 4 channels, fp32
ORDERS = ("all frames per step", "frame by frame")
LENGTHS = {ORDERS[0]: (1_000, 4_000, 10_000), ORDERS[1]: (250, 1_000, 2_500)}


def main() -> None:
    options = parse_options()
    if options.one is not None:
        print(peak_bytes(options.order, options.one))
        return
    print(f"one frame's latent: {LATENT_BYTES} bytes")
    for order in ORDERS:
        lengths = options.frames or LENGTHS[order]
        peaks = [in_a_process(order, frames) for frames in tqdm(lengths, desc=order)]
        print(report(order, lengths, peaks))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="*", help="lengths of clips")
    parser.add_argument("--order", choices=ORDERS, default=ORDERS[0], help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_process(order: str, frames: int) -> int:
    """Return the peak memory in bytes of a new process that samples one clip."""
    tool = Path(__file__).resolve().parent.parent / "tools" / "module.py"
    command = [sys.executable, tool, "benchmarks.memory", "--order", order, "--one", str(frames)]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout.split()[-1])


def report(order: str, lengths, peaks) -> str:
    """Report how much memory one more frame takes, which is the slope of the peaks."""
    slope = np.polyfit(lengths, peaks, 1)[0]
    sizes = ", ".join(f"{n} frames {peak / 2**20:.0f} MiB" for n, peak in zip(lengths, peaks))
    return f"{order}: {sizes}; {slope:.0f} bytes per frame = {slope / LATENT_BYTES:.1f} latents"


def peak_bytes(order: str, frames: int) -> int:
    """Sample a clip in this process and return the process's peak memory so far, in bytes."""
    from comfyui_location import need_comfyui

    need_comfyui(cpu=True)
    from ..demo.in_comfyui import load_in_comfyui
    from ..nodes.attention import CrossFrameAttention
    from ..nodes.sampling import CrossFrameSampler

    with torch.inference_mode():
        from comfy.samplers import CFGGuider, sampler_object
        from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

        import nodes

        model, clip, _, _ = load_in_comfyui()
        (model,) = CrossFrameAttention.execute(
            model=model,
            references="first + previous",
            include_self=False,
            layers="all",
            start_percent=0.0,
            end_percent=1.0,
            frames_per_batch=64,
        ).args
        guider = CFGGuider(model)
        prompts = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a drawing", "")]
        guider.set_conds(*prompts)
        guider.set_cfg(2.0)
        node = SamplerCustomAdvanced if order == ORDERS[0] else CrossFrameSampler
        latent = {"samples": torch.zeros(frames, 4, SIDE, SIDE)}
        sigmas = torch.tensor([5.0, 1.0, 0.0])
        node.execute(Noise_RandomNoise(0), guider, sampler_object("euler"), sigmas, latent)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
