"""What the training scripts share: the loop, its checkpoints and averages, and seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from tqdm import tqdm

CLIP_NORM = 1.0  # gradients are clipped to this norm

# The loss of one iteration. It draws its random numbers from the generator.
Loss = Callable[[int, torch.Generator], Tensor]
Weights = dict[str, dict[str, Tensor]]  # of several networks


def minimise(
    loss: Loss,
    networks: dict[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    schedules: Sequence[torch.optim.lr_scheduler.LRScheduler],
    total: int,
    file: Path,
    seed: int,
    every: int = 500,
    memory: float = 0.999,
) -> Weights:
    """Train networks for `total` iterations in all; continue from the checkpoint `file`.

    every: the iterations between checkpoints. memory: how much of the averaged weights stays in
    one iteration. Returns the networks' averaged weights.
    """
    averages = {key: _copy(network) for key, network in networks.items()}
    learners = [*optimizers, *schedules]
    start = _restore(file, networks, averages, learners)
    parameters = [p for network in networks.values() for p in network.parameters()]
    bar = tqdm(range(start, total), initial=start, total=total, desc=file.stem, mininterval=5)
    smooth = None
    for iteration in bar:
        generator = torch.Generator().manual_seed(seed_of(seed, file.stem, iteration))
        value = loss(iteration, generator)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in schedules:
            schedule.step()
        _blend(averages, networks, min(memory, (1 + iteration) / (10 + iteration)))
        smooth = value.item() if smooth is None else 0.99 * smooth + 0.01 * value.item()
        if iteration % 50 == 0:
            bar.set_postfix(loss=f"{smooth:.4f}")
        if (iteration + 1) % every == 0 or iteration + 1 == total:
            _checkpoint(file, iteration + 1, networks, averages, learners)
    return averages


def seed_of(seed: int, stage: str, number: int) -> int:
    """Return a separate seed for each thing that is drawn."""
    return Random(f"{seed} {stage} {number}").getrandbits(48)


def save(value: object, file: Path) -> None:
    """Write a file completely or not at all."""
    unfinished = file.with_suffix(".part")
    torch.save(value, unfinished)
    unfinished.replace(file)


def _checkpoint(
    file: Path, done: int, networks: dict[str, nn.Module], averages: Weights, learners: Sequence
) -> None:
    """Write all that is needed to continue. learners: optimizers and schedules."""
    state = {
        "iteration": done,
        "networks": {key: network.state_dict() for key, network in networks.items()},
        "averages": averages,
        "learners": [learner.state_dict() for learner in learners],
    }
    save(state, file)


def _restore(
    file: Path, networks: dict[str, nn.Module], averages: Weights, learners: Sequence
) -> int:
    """Load a checkpoint if there is one; return the number of iterations that are done."""
    if not file.exists():
        return 0
    device = next(next(iter(networks.values())).parameters()).device
    saved = torch.load(file, map_location=device)
    averages.update(saved["averages"])
    for key, network in networks.items():
        network.load_state_dict(saved["networks"][key])
    for learner, state in zip(learners, saved["learners"], strict=True):
        learner.load_state_dict(state)
    return saved["iteration"]


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.state_dict().items()}


@torch.no_grad()
def _blend(averages: Weights, networks: dict[str, nn.Module], keep: float) -> None:
    """Move averaged weights towards the current weights."""
    for key, network in networks.items():
        weights = network.state_dict()
        floating = [name for name, weight in weights.items() if weight.is_floating_point()]
        torch._foreach_lerp_(
            [averages[key][name] for name in floating],
            [weights[name] for name in floating],
            1 - keep,
        )
