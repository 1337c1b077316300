"""Read from the CrossFrameAttention node's inputs which frames every frame attends to."""

from math import inf

from ....attention import WITH_KEYFRAMES, Policy, Weights, reference_policy
from ..errors import BadInputError


def chosen_policy(references: str, include_self: bool, weights: Weights, keyframes: str) -> Policy:
    """Return the policy that a user has chosen. keyframes: numbers of frames, as text.

    Raises BadInputError if a weight or the keyframes would do nothing, or if nothing has a weight.
    """
    if keyframes.strip() and references not in WITH_KEYFRAMES:
        raise BadInputError(
            "keyframes",
            f"with the references '{references}' nobody looks at keyframes.",
            "Leave it empty, or choose 'keyframes' or 'keyframes + previous' as references.",
        )
    if references in WITH_KEYFRAMES and weights.first == 0:
        raise BadInputError(
            "first_weight",
            "it is 0, so nobody looks at keyframes.",
            "Set it above 0, or choose references without keyframes.",
        )
    _check_weights(_weighed(references, include_self, weights))
    frames = tuple(sorted(set(frames_in("keyframes", keyframes))))
    return reference_policy(references, include_self, weights, frames)


def frames_in(name: str, text: str) -> list[int]:
    """Return the numbers of frames in a text such as "40, 95". name: the input it comes from."""
    words = text.replace(",", " ").split()
    if wrong := [word for word in words if not word.isdecimal()]:
        raise BadInputError(
            name,
            f"'{wrong[0]}' is not the number of a frame.",
            "Write whole numbers with commas between them, e.g. 40, 95. The first frame is 0.",
        )
    return [int(word) for word in words]


def _weighed(references: str, include_self: bool, weights: Weights) -> dict[str, tuple]:
    """Return for each input with a weight what it is, and whether such frames are looked at."""
    return {
        "first_weight": (weights.first, references != "previous"),
        "previous_weight": (weights.previous, "previous" in references),
        "self_weight": (weights.own, include_self),
    }


def _check_weights(weighed: dict[str, tuple]) -> None:
    """Raise BadInputError if a weight would do nothing, or if nothing has a weight."""
    used = [name for name, (_, is_used) in weighed.items() if is_used]
    for name, (weight, is_used) in weighed.items():
        if not 0 <= weight < inf:
            raise BadInputError(name, f"it is {weight}.", "Set it to 0 or more.")
        if weight == 1:
            continue
        if not is_used:
            raise BadInputError(
                name,
                "no frame looks at these frames, so their weight does nothing.",
                "Set it to 1, or choose references that include them (include_self for the "
                "frame itself).",
            )
        if used == [name]:
            raise BadInputError(
                name,
                "frames look at nothing else, so this weight does nothing.",
                "Set it to 1, or choose further references.",
            )
    if not any(weighed[name][0] for name in used):
        raise BadInputError(
            used[0],
            "the weights of all frames that are looked at are 0.",
            "Set at least one of them above 0.",
        )
