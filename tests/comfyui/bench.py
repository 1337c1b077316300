"""What tests of samplings share: a spy on model calls, guiders, custom sampling, refusals."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import tiny
import torch

SIGMAS = (6.0, 3.0, 1.5, 0.7, 0.0)


class Call(NamedTuple):
    """One call of a model: the rows of its batch, the conds that they belong to, the noise level.

    It holds numbers only, since the pack would take a tensor for rows that a patch brings.
    """

    rows: int
    conds: tuple[int, ...]
    sigma: float

    @property
    def frames(self) -> int:
        """How many frames are in the batch."""
        return self.rows // len(self.conds)


def spied(model, on_call: Callable[[int, dict], None] = lambda number, args: None):
    """Return a clone of a MODEL, and a list that gets a `Call` for every call of the clone.

    on_call: gets the number of the call, counted from 0, and what ComfyUI passes to it. It is
    called before the model runs and may raise.
    """
    calls: list[Call] = []
    numbers = itertools.count()

    def look(apply_model, args):
        conds = tuple(args["cond_or_uncond"])
        calls.append(Call(len(args["input"]), conds, float(args["timestep"][0])))
        on_call(next(numbers), args)
        return apply_model(args["input"], args["timestep"], **args["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(look)
    return model, calls


class Planted(Exception):  # noqa: N818  (as the Cancel of ComfyUI)
    """An error in the middle of a sampling."""


def broken(model):
    """A clone of a MODEL whose every call raises Planted."""

    def fail(number, args):
        raise Planted

    return spied(model, fail)[0]


@contextlib.contextmanager
def networks_run() -> Iterator[list[str]]:
    """A list that gets the class of every module that any network runs within the block."""
    ran: list[str] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: ran.append(type(module).__name__)
    )
    try:
        yield ran
    finally:
        hook.remove()


def refuses(call: Callable[[], object], *words: str, match: str | None = None) -> None:
    """Check that a call raises an error with all these words before any network is run."""
    with networks_run() as ran, pytest.raises(ValueError, match=match) as caught:
        call()
    assert not ran, f"refused, but not before {ran[0]} was run"
    for word in words:
        assert word in str(caught.value)


def guider(model, conds, *cfg: float, kind=None):
    """A GUIDER on a MODEL: ComfyUI's CFGGuider, or one of another kind.

    conds: as many as the kind takes, positive and negative for a CFGGuider. cfg: as many scales
    as the kind takes; none leaves its default.
    """
    from comfy.samplers import CFGGuider

    made = (kind or CFGGuider)(model)
    made.set_conds(*conds)
    if cfg:
        made.set_cfg(*cfg)
    return made


def clip_noise(noise, frame_noise: str):
    """The output of the node CrossFrameNoise; noise: a NOISE, or the seed of ComfyUI's."""
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
    from crossframe.nodes.noise import CrossFrameNoise

    noise = Noise_RandomNoise(noise) if isinstance(noise, int) else noise
    return CrossFrameNoise.execute(noise, frame_noise).args[0]


def custom_output(
    guider,
    sampler="euler",
    sigmas=SIGMAS,
    latent=None,
    noise=5,
    frame_by_frame: bool = True,
    **inputs,
):
    """The output of the node CrossFrameSampler, or else of the stock SamplerCustomAdvanced.

    sampler: a SAMPLER or the name of one. sigmas: noise levels. latent: the usual clip if None.
    noise: a NOISE, or the seed of ComfyUI's. inputs: more inputs of the node.
    """
    from comfy.samplers import sampler_object
    from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
    from crossframe.nodes.sampling import CrossFrameSampler

    node = CrossFrameSampler if frame_by_frame else SamplerCustomAdvanced
    return node.execute(
        Noise_RandomNoise(noise) if isinstance(noise, int) else noise,
        guider,
        sampler_object(sampler) if isinstance(sampler, str) else sampler,
        torch.as_tensor(sigmas),
        tiny.clip() if latent is None else latent,
        **inputs,
    )


def custom(*args, **inputs) -> torch.Tensor:
    """The samples of `custom_output`."""
    return custom_output(*args, **inputs).args[0]["samples"]
