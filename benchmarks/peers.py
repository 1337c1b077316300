"""Other packs for steady video, as further rows for `benchmarks.speed`.

    python tools/module.py benchmarks.peers <folder>    says which of them run here, or why not

The folder holds clones of the packs' repositories, each under its repository's name. A pack is
loaded by ComfyUI's own loader and used through its own nodes, with the settings of its examples
or with its defaults. If a pack does not determine the sampling, it is that of the stock KSampler
row.
"""

import argparse
import asyncio
import contextlib
import functools
import io
import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

# The settings of `speed.stock`, for the one pack that brings its own sampler.
SEED, CFG, SAMPLER, SCHEDULER, DENOISE = 1, 7.0, "euler", "normal", 0.6


@dataclass(frozen=True)
class Peer:
    """A pack, and how it samples a clip.

    name: its name in a table. folder: the folder of its repository. sample: a function of the
    pack's node classes, a MODEL, (positive, negative), a clip (frames, 4, h, w) and the steps,
    which returns samples of the clip's shape.
    """

    name: str
    folder: str
    sample: Callable[[dict, object, tuple, Tensor, int], Tensor]


def rave_attention(classes, model, prompts, clip, steps, grid: int) -> Tensor:
    """Sample with frames shuffled into grids, where each frame attends to its whole grid.

    grid: the number of frames along each side of a grid.
    """
    from .speed import stock

    (patched,) = run_node(classes["ApplyRaveAttentionNode"], model=model, grid_size=grid, seed=SEED)
    return stock(patched, prompts, clip, steps)


def rave_sampler(classes, model, prompts, clip, steps, grid: int = 3) -> Tensor:
    """Sample pictures of `grid` x `grid` tiled frames, which are shuffled again for every step.

    The node has no denoise, so it gets the schedule and the step at which the stock KSampler
    begins with DENOISE. It expects noisy latents and gets them, because its own `add_noise` raises
    AttributeError in ComfyUI 0.33.0.
    """
    total = int(steps / DENOISE)
    with _silence():  # it prints what it does at every call
        (latent,) = run_node(
            classes["KSamplerRAVE"],
            model=model,
            grid_size=grid,
            pad_grid=False,
            noise_seed=SEED,
            add_noise=False,
            steps=total,
            cfg=CFG,
            sampler_name=SAMPLER,
            scheduler=SCHEDULER,
            positive=prompts[0],
            negative=prompts[1],
            latent_image={"samples": with_noise(model, clip, steps)},
            start_at_step=total - steps,
            end_at_step=total,
        )
    return latent["samples"]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def with_noise(model, clip: Tensor, steps: int) -> Tensor:
    """Return the clip (frames, 4, h, w) with the noise that the stock KSampler begins with.

    ComfyUI itself would add 0.2 % more noise with one step, which begins at the strongest noise.
    """
    import comfy.sample
    import comfy.samplers

    schedule = comfy.samplers.KSampler(model, steps, "cpu", SAMPLER, SCHEDULER, DENOISE)
    scale = model.get_model_object("latent_format").scale_factor
    return clip + comfy.sample.prepare_noise(clip, SEED) * schedule.sigmas[0] / scale


def flatten(classes, model, prompts, clip, steps) -> Tensor:
    """Sample with every token also attending to its own trajectory through all frames."""
    from .speed import stock

    frames, _, height, width = clip.shape
    (patched,) = run_node(
        classes["ApplyFlattenAttentionNode"],
        model=model,
        trajectories=still_trajectories(classes["TrajectoryNode"], frames, height, width),
        use_old_qk=False,
        input_attn_1=True,
        input_attn_2=True,
        output_attn_9=True,
        output_attn_10=True,
        output_attn_11=True,
    )
    return stock(patched, prompts, clip, steps)


@functools.cache
def still_trajectories(node, frames: int, height: int, width: int) -> dict:
    """Return FLATTEN's trajectories of a clip without motion, for latents of height x width.

    FLATTEN's own node makes them, with a stand-in for the RAFT network that it would download. A
    token attends to equally many others whatever moves, so sampling takes the same time.
    They are made only once, because making them is not part of sampling.
    """
    images = torch.zeros(frames, 8 * height, 8 * width, 3)
    with mock.patch.object(sys.modules[node.__module__], "raft_large", return_value=_Still()):
        # 0 puts all frames in one window, because several windows need AnimateDiff-Evolved.
        return run_node(node, images=images, context_length=0, context_overlap=0)[0]


class _Still(torch.nn.Module):
    """Stands in for an optical flow network and reports no motion."""

    def forward(self, images: Tensor, _next_images: Tensor) -> list[Tensor]:
        """Return one estimate of the flow, (pairs, 2, h, w), between images, (pairs, 3, h, w)."""
        return [images.new_zeros(len(images), 2, *images.shape[-2:])]


def reference_attention(classes, model, prompts, clip, steps) -> Tensor:
    """Sample with every frame also attending to the source's first frame, noised to the step."""
    from .speed import stock

    node = classes["ACN_ReferenceControlNet"]
    (control,) = run_node(node, reference_type="reference_attn", style_fidelity=0.5, ref_weight=1.0)
    # The pack's preprocessor node would make this from an image and a VAE, but there is no VAE.
    picture = sys.modules[node.__module__].ReferencePreprocWrapper(condhint=clip[:1])
    prompts = run_node(
        classes["ACN_AdvancedControlNetApply_v2"],
        positive=prompts[0],
        negative=prompts[1],
        control_net=control,
        image=picture,
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    return stock(model, prompts, clip, steps)


PEERS = (
    Peer(
        "RAVE attention, grid of 3 (ComfyUI-RAVE_ATTN)",
        "ComfyUI-RAVE_ATTN",
        functools.partial(rave_attention, grid=3),  # its node's default
    ),
    Peer(
        "RAVE attention, grid of 2 (ComfyUI-RAVE_ATTN)",
        "ComfyUI-RAVE_ATTN",
        functools.partial(rave_attention, grid=2),  # its example workflow
    ),
    Peer("RAVE KSampler, grid of 3 (ComfyUI-RAVE)", "ComfyUI-RAVE", rave_sampler),
    Peer("FLATTEN attention (ComfyUI-FLATTEN)", "ComfyUI-FLATTEN", flatten),
    Peer(
        "reference_attn (ComfyUI-Advanced-ControlNet)",
        "ComfyUI-Advanced-ControlNet",
        reference_attention,
    ),
)


def ways(
    folder_of_packs: Path, model, prompts: tuple, clip: Tensor, steps: int
) -> Iterator[tuple[str, Callable[[], Tensor] | str]]:
    """Yield each peer's name with a function that samples the clip, or with a reason for none.

    clip: (frames, 4, h, w), at least two frames. A pack is not loaded before its turn, so that rows
    without it can be timed first. It samples here once, with a single step, so things that a pack
    makes once per clip are made now and not within the timed call. The packs of PEERS do not change
    ComfyUI when they are loaded. The last one puts its own functions into the U-Net while it
    samples and removes them afterwards.
    """
    for peer in PEERS:
        classes = load_pack(folder_of_packs / peer.folder)
        if isinstance(classes, str):
            yield peer.name, classes
            continue
        sample = functools.partial(peer.sample, classes, model, prompts)
        yield peer.name, why_not(sample, clip) or functools.partial(sample, clip, steps)


@functools.cache
def load_pack(folder: Path) -> dict | str:
    """Return the node classes of a pack by name, or the reason why there are none."""
    import nodes

    if not folder.is_dir():
        return f"not in {folder.parent}"
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    try:
        loaded = asyncio.run(nodes.load_custom_node(str(folder)))
    finally:
        logging.getLogger().removeHandler(listener)
    if not loaded:
        return listener.heard
    module = f"custom_nodes.{folder.name}"
    return {
        name: node
        for name, node in nodes.NODE_CLASS_MAPPINGS.items()
        if getattr(node, "RELATIVE_PYTHON_MODULE", None) == module
    }


class _Listener(logging.Handler):
    """Records why a pack does not load, which ComfyUI's loader only writes to the log."""

    heard = "the loader gave no reason"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception that the loader is handling, or else the logged text."""
        error = sys.exc_info()[1]
        self.heard = one_line(error) if error else record.getMessage()


def run_node(node, **inputs) -> tuple:
    """Run a node, either of ComfyUI's old kind or a V3 node, and return its outputs."""
    outputs = getattr(node(), node.FUNCTION)(**inputs)
    return outputs.args if hasattr(outputs, "args") else tuple(outputs)


def why_not(sample: Callable[[Tensor, int], Tensor], clip: Tensor) -> str | None:
    """Return why frames of a clip would not depend on each other, or None if they do.

    clip: (frames, 4, h, w).
    """
    try:
        effect = effect_of_first_frame(sample, clip)
    except Exception as error:  # any error of a pack is a reason
        return one_line(error)
    if not math.isfinite(effect):
        return "runs, but its samples are not finite"
    return None if effect > 0 else "runs, but no other frame depends on the first one"


def effect_of_first_frame(sample: Callable[[Tensor, int], Tensor], clip: Tensor) -> float:
    """Return how much other frames' samples change if the clip's first frame changes.

    The unit is their standard deviation. It is exactly 0 for the stock sampler on a CPU, where
    rounding does not depend on other frames of the batch.
    clip: (frames, 4, h, w), sampled with one step.
    """
    # The noise of the first step is fifteen times as strong as the clip and would hide a small
    # change.
    other = torch.cat([100 * clip[:1], clip[1:]])
    before, after = (_repeatable(sample, samples)[1:] for samples in (clip, other))
    return float((after - before).abs().max() / before.std())


def _repeatable(sample: Callable[[Tensor, int], Tensor], clip: Tensor) -> Tensor:
    # A peer may draw from torch's own generator or seed it, which must not affect the others.
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return sample(clip, 1)


def one_line(error: BaseException) -> str:
    """Return an exception's type and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def main() -> None:
    from .speed import SUBJECTS, load, start_comfyui, stock

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", type=Path, help="folder that holds clones of the packs")
    parser.add_argument("--model", choices=SUBJECTS, default="sd15")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's own choice")
    options = parser.parse_args()
    start_comfyui("pytorch", options.threads)
    subject = SUBJECTS[options.model]
    size = (options.frames, 4, subject.side, subject.side)
    clip = torch.randn(size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model, prompts = load(subject)
        plain = stock(model, prompts, clip, options.steps)
        for name, way in ways(options.packs.expanduser(), model, prompts, clip, options.steps):
            if not isinstance(way, str):
                apart = float((way() - plain).abs().mean() / plain.std())
                way = f"runs, {apart:.1e} of their spread from the stock KSampler's samples"
            print(f"{name}: {way}")


if __name__ == "__main__":
    main()
