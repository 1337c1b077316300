"""The order in which the frames of a clip are painted, and what is kept on the way.

Both follow from the policy. A frame can be painted once its references are there. Frames that need
one another, directly or through others, make up a group and are painted together, in one call of
the model. Groups come after those that they refer to. A policy that looks back only, such as
"first + previous", has groups of one frame, in the order of the clip.

In graph theory the groups are the strongly connected components of the graph from each frame to
its references, in topological order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .references import Policy, attended, merged

Group = tuple[int, ...]
NOBODY = -1  # no later group attends to a frame


@dataclass(frozen=True)
class PaintingOrder:
    """Groups of frames in the order in which they are painted.

    start, frames: the frames from `start` on and before `frames` are painted; the frames before
    `start` are painted already. references: for each frame that is painted, the frames that it
    attends to, each as often as it counts. logits: for each frame whose references have different
    weights, what is added to the logits of the keys of each reference. groups: numbers of frames,
    ascending within a group.
    last_readers: for every frame before `frames`, the number of the last group that attends to it
    after its own group has been painted. It is NOBODY if there is none, and the number of groups if
    frames after these need it.
    """

    start: int
    frames: int
    references: Mapping[int, tuple[int, ...]]
    groups: tuple[Group, ...]
    last_readers: tuple[int, ...]
    logits: Mapping[int, Mapping[int, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, policy: Policy, frames: int, start: int = 0, carry: bool = False
    ) -> "PaintingOrder":
        """Work out the order for the frames from `start` on.

        frames: the number of the last frame, plus 1. carry: whether frames after these are to go
        on from them.
        Raises ValueError if the policy names a frame that is not there, or none at all.
        """
        merges = {frame: merged(attended(policy, frame)) for frame in range(start, frames)}
        references = {frame: named for frame, (named, _) in merges.items()}
        logits = {frame: added for frame, (_, added) in merges.items() if any(added.values())}
        for frame, named in references.items():
            _check(policy, frame, named, frames)
        groups = _groups(references)
        readers = _last_readers(groups, references, frames)
        for frame in carried_frames(policy, frames) if carry else ():
            readers[frame] = len(groups)
        return cls(start, frames, references, groups, tuple(readers), logits)

    @property
    def count(self) -> int:
        """The number of frames that are painted."""
        return self.frames - self.start

    def group_of(self) -> Mapping[int, int]:
        """Return the number of the group that each frame belongs to."""
        return {frame: number for number, group in enumerate(self.groups) for frame in group}

    def wanted(self, done: int = 0) -> frozenset[int]:
        """Return the frames that the groups from number `done` on need and do not paint."""
        painted = {frame for group in self.groups[done:] for frame in group}
        return frozenset(
            frame
            for frame, reader in enumerate(self.last_readers)
            if reader >= done and frame not in painted
        )

    def most_kept(self) -> int:
        """Return how many frames are kept at once, at most, while groups are painted in order."""
        own = self.group_of()
        ends = [0] * (len(self.groups) + 1)
        begins = [0] * (len(self.groups) + 1)
        for frame, reader in enumerate(self.last_readers):
            if reader == NOBODY:
                continue
            ends[reader] += 1
            if frame in own:
                begins[own[frame]] += 1
        kept = most = sum(frame not in own for frame in self.wanted())
        for number in range(len(self.groups)):
            # Frames that this group was the last to need are dropped before the group is stored.
            kept += begins[number] - ends[number]
            most = max(most, kept)
        return most


def carried_frames(policy: Policy, frames: int) -> frozenset[int]:
    """Return those of the first `frames` frames of a clip that later frames attend to.

    As many later frames are asked as there are earlier ones. A policy that looks back by a fixed
    distance, or at fixed frames, has named all of them by then.
    """
    return frozenset(
        reference.frame
        for later in range(frames, 2 * frames)
        for reference in attended(policy, later)
        if reference.frame < frames
    )


def _check(policy: Policy, frame: int, named: Collection[int], frames: int) -> None:
    """Raise ValueError if a frame attends to one that the clip does not have."""
    if not all(0 <= reference < frames for reference in named):
        raise ValueError(
            f"{policy!r} lets frame {frame} attend to {tuple(named)}, but the clip has the frames "
            f"0 to {frames - 1}"
        )


def _groups(references: Mapping[int, Sequence[int]]) -> tuple[Group, ...]:
    """Put frames into groups, and the groups in order.

    references: for each frame that is painted, the frames that it attends to.
    """
    if all(max(named) <= frame for frame, named in references.items()):
        return tuple((frame,) for frame in references)  # the graph below would give the same
    import networkx  # torch brings it

    graph = networkx.DiGraph()
    graph.add_nodes_from(references)
    graph.add_edges_from(
        (reference, frame)
        for frame, named in references.items()
        for reference in named
        if reference in references
    )
    together = networkx.condensation(graph)
    members = together.nodes.data("members")
    first = {number: min(frames) for number, frames in members}
    ordered = networkx.lexicographical_topological_sort(together, key=first.__getitem__)
    return tuple(tuple(sorted(members[number])) for number in ordered)


def _last_readers(
    groups: Iterable[Group], references: Mapping[int, Sequence[int]], frames: int
) -> list[int]:
    """Return for each frame the last group that attends to it and is not its own."""
    readers = [NOBODY] * frames
    for number, group in enumerate(groups):
        for frame in group:
            for reference in references[frame]:
                if reference not in group:
                    readers[reference] = number
    return readers
