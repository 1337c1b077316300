"""What every kind of image model can be asked for."""

from types import ModuleType

from . import transformer, unet

SAMPLED_WEIGHTS = 16


def _kind(model) -> ModuleType:
    return unet if unet.is_unet(model) else transformer


def sample_weights(model) -> tuple[float, ...]:
    """Return some weights of a MODEL, by which its checkpoint is recognised."""
    weights = _kind(model).typical_weights(model).detach().flatten()
    return tuple(weights[:SAMPLED_WEIGHTS].float().tolist())


def other_counts(model) -> frozenset[int]:
    """Return the numbers of channels and heads of a MODEL, which could be taken for rows."""
    counts: frozenset[int] = _kind(model).other_counts(model)
    return counts
