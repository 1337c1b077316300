"""Cut the rows of some frames out of a tensor that has one row per frame."""

from collections.abc import Sequence

from torch import Tensor


def take(tensor: Tensor, places: Sequence[int]) -> Tensor:
    """Return rows of a tensor in a given order, as a view if they follow one another."""
    first = places[0]
    if list(places) == list(range(first, first + len(places))):
        return tensor[first : first + len(places)]
    return tensor[list(places)]


def in_order(tensor: Tensor, places: Sequence[int]) -> Tensor:
    """Return the rows of a tensor sorted by their places; the tensor itself if they are sorted.

    places: where each row belongs.
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    return take(tensor, order)
