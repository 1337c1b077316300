"""What every kind of image model can be asked for."""

from . import transformer, unet


def sample_weights(model) -> tuple[float, ...]:
    """Return some weights of a MODEL, by which its checkpoint is recognised."""
    kind = unet if unet.is_unet(model) else transformer
    return kind.sample_weights(model)


def other_counts(model) -> frozenset[int]:
    """Return the numbers of channels and heads of a MODEL, which could be taken for rows."""
    kind = unet if unet.is_unet(model) else transformer
    return kind.other_counts(model)
