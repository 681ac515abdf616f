"""Channel groups: the channels of several tensors that can only be removed together, and what cannot be removed and why."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from .candidate import Candidate
from .errors import InputError, nearest
from .forms import check_form
from .graph import Graph
from .matrix import has_matrix
from .recurrent import GATES
from .ties import Slot, Ties

MOST_TRIALS = 64  # of ways to follow Reshapes


@dataclass(frozen=True)
class Group:
    """Pieces of one shape: each is a set of entries of the same axes that can only be removed together.

    Attributes:
        name: that of the first layer that writes the channels.
        slots: for each axis (of a tensor or a constant) the entries of each piece, int [pieces, entries of a piece].
        writers: layers whose output channels these are.
        readers: layers whose input channels these are.
        channels: output channels of the first writer that belong to the group.
    """

    name: str
    slots: Mapping[Slot, np.ndarray]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int

    @property
    def pieces(self) -> int:
        """How many pieces there are; one at least stays."""
        return len(next(iter(self.slots.values())))

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers whose weights change with the group."""
        return tuple(dict.fromkeys((*self.writers, *self.readers)))

    def kept(self, pruning_ratio: float) -> int:
        """Return how many pieces stay at a ratio: channels n keep max(1, round(n (1 - r))), in whole pieces."""
        share = self.channels // self.pieces
        wanted = max(1, round(self.channels * (1.0 - pruning_ratio)))
        return max(1, round(wanted / share))

    def ratio(self, kept: int) -> float:
        """Return the ratio at which this many pieces stay."""
        return round(1.0 - kept / self.pieces, 6)


@dataclass(frozen=True)
class Channels:
    """The channel groups of a graph.

    Attributes:
        groups: by name, in the order of the data.
        frozen: layers of which no output channel can be removed, with the reason.
    """

    groups: Mapping[str, Group]
    frozen: Mapping[str, str]

    def group(self, name: str) -> Group:
        """Return a group. Raises `InputError` with the op that froze it, or the nearest name, where there is none."""
        if name in self.groups:
            return self.groups[name]
        if name in self.frozen:
            raise InputError(f"the channels of {name!r} cannot be removed: {self.frozen[name]}")
        for group in self.groups.values():
            if name in group.writers:
                raise InputError(f"the channels of {name!r} go with those of {group.name!r}: name that group")
        raise InputError(f"there is no channel group {name!r}{nearest(name, self.groups)}")


_FOUND: WeakKeyDictionary[Graph, Channels] = WeakKeyDictionary()


def channel_groups(graph: Graph) -> Channels:
    """Return the channel groups of a graph, looked for once.

    Where a Reshape merges or splits axes, one factor of them can be followed (whole heads, whole normalisation groups): the
    one by which most weights can be pruned is taken.
    """
    if graph not in _FOUND:
        _FOUND[graph] = _best_pieces(graph).channels()
    return _FOUND[graph]


def _best_pieces(graph: Graph) -> _Pieces:
    followed: dict[object, int] = {}
    ties = Ties(graph, followed)
    best = _Pieces(graph, ties)
    trials = 0
    for pattern, count in ties.patterns.items():
        for choice in range(1, count):
            if trials >= MOST_TRIALS:
                break
            trials += 1
            other = _Pieces(graph, Ties(graph, {**followed, pattern: choice}))
            if other.removable > best.removable:
                followed[pattern] = choice
                best = other
    return best


def fitting(graph: Graph, candidate: Candidate) -> Candidate:
    """Return a candidate with the ratios that its groups really come to, so that equal models have equal keys.

    Raises:
        InputError: it names a layer or a channel group that the graph has not, one that is frozen, or a form that a layer
            cannot take.
    """
    candidate.check_layers(graph.layers)
    for name, choice in candidate.layers.items():
        check_form(graph, graph.layers[name], choice.form)
        if choice.sparsity and not has_matrix(graph.layers[name]):
            raise InputError(f"layer {name!r} is a dilated ConvTranspose, which has no sparse form: sparsity must be 0")
    if not candidate.groups:
        return candidate
    found = channel_groups(graph)
    groups = {name: found.group(name) for name in candidate.groups}
    ratios = {name: group.ratio(group.kept(candidate.groups[name])) for name, group in groups.items()}
    return replace(candidate, groups=ratios)


class _Pieces:
    """The connected pieces of a graph's units."""

    def __init__(self, graph: Graph, ties: Ties) -> None:
        self.graph = graph
        self.ties = ties
        count, self.piece = _connected(ties, len(ties.pairs))
        self.reason = np.full(count, -1)
        for number, (units, _) in reversed(list(enumerate(ties.frozen))):
            self.reason[self.piece[units]] = number

    @cached_property
    def removable(self) -> float:
        """How many weights can go at most, by the output channels of their layers and by the inputs': one piece stays."""
        total = 0.0
        for layer in self.graph.layers.values():
            for axis in (layer.channel_axis, layer.input_axis):
                pieces = self.piece[self.ties.units(layer.weight, axis)]
                free = pieces[self.reason[pieces] < 0]
                if len(free):
                    total += layer.parameters * len(free) / len(pieces) * (1 - 1 / len(np.unique(free)))
        return total

    def channels(self) -> Channels:
        """Return the groups that some layer writes and another reads, and why the other layers have none."""
        layers = self.graph.layers.values()
        order = {layer.name: number for number, layer in enumerate(layers)}
        found = []
        for slots in self._members():
            writers = tuple(layer.name for layer in layers if (layer.weight, layer.channel_axis) in slots)
            readers = tuple(layer.name for layer in layers if (layer.weight, layer.input_axis) in slots)
            if writers and readers and len(next(iter(slots.values()))) > 1:
                found.append((order[writers[0]], slots, writers, readers))
        groups: dict[str, Group] = {}
        for _, slots, writers, readers in sorted(found, key=lambda item: item[0]):
            first = self.graph.layers[writers[0]]
            entries = slots[(first.weight, first.channel_axis)].size
            earlier = sum(group.writers[0] == first.name for group in groups.values())
            name = f"{first.name}#{earlier + 1}" if earlier else first.name
            entries *= first.group if first.op == "ConvTranspose" else 1
            if first.recurrent:  # of a channel there is a row for every gate
                entries //= GATES[first.op]
            groups[name] = Group(name, slots, writers, readers, entries)
        return Channels(groups, self._frozen(groups))

    def _members(self) -> list[dict[Slot, np.ndarray]]:
        """Return for each set of pieces of one shape their entries, in the order of the data."""
        ties = self.ties
        slots = [slot for slot, units in ties.slots.items() if len(units)]
        slot_of = np.repeat(np.arange(len(slots)), [len(ties.slots[slot]) for slot in slots])
        index_of = np.concatenate([np.arange(len(ties.slots[slot])) for slot in slots] or [np.zeros(0, np.int64)])
        units = np.concatenate([ties.slots[slot] for slot in slots] or [np.zeros(0, np.int64)])
        free = self.reason[self.piece[units]] < 0
        units, slot_of, index_of = units[free], slot_of[free], index_of[free]
        order = np.lexsort((index_of, slot_of, self.piece[units]))
        units, slot_of, index_of = units[order], slot_of[order], index_of[order]
        edges = np.flatnonzero(np.diff(self.piece[units], prepend=-1))
        by_shape: dict[bytes, list[slice]] = {}
        for begin, end in itertools.pairwise([*edges, len(units)]):
            by_shape.setdefault(slot_of[begin:end].tobytes(), []).append(slice(begin, end))
        result = []
        for pieces in by_shape.values():
            shape = slot_of[pieces[0]]
            entries = np.stack([index_of[piece] for piece in pieces])
            entries = entries[np.lexsort(entries.T[::-1])]
            result.append({slots[number]: entries[:, shape == number] for number in dict.fromkeys(shape.tolist())})
        return result

    def _frozen(self, groups: Mapping[str, Group]) -> dict[str, str]:
        """Return why the output channels of layers are in no group."""
        result = {}
        for layer in self.graph.layers.values():
            axis = 0 if layer.op == "ConvTranspose" and layer.depthwise else layer.channel_axis
            if any((layer.weight, axis) in group.slots for group in groups.values()):
                continue
            pieces = self.piece[self.ties.units(layer.weight, axis)]
            reasons = self.reason[pieces][self.reason[pieces] >= 0]
            if len(reasons):
                result[layer.name] = self.ties.frozen[int(reasons.min())][1]
            elif len(np.unique(pieces)) > 1:
                result[layer.name] = "no layer with weights reads them"
            else:
                result[layer.name] = self._together(self.ties.units(layer.weight, axis))
        return result

    def _together(self, units: np.ndarray) -> str:
        """Return which node it is that makes one piece of these units, the nodes taken in their order."""
        if not len(units):
            return "there is only one"
        number = bisect_left(
            range(len(self.ties.pairs) + 1), True, key=lambda n: len(np.unique(_connected(self.ties, n)[1][units])) == 1
        )
        return f"{self.ties.pairs[number - 1][2]} makes one piece of them all"


def _connected(ties: Ties, pairs: int) -> tuple[int, np.ndarray]:
    """Return how many pieces the first so many ties leave, and which of them each unit belongs to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = (
        np.concatenate([np.zeros(0, np.int64), *(pair[side] for pair in ties.pairs[:pairs])]) for side in (0, 1)
    )
    links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(ties.count, ties.count))
    count, pieces = connected_components(links, directed=False)
    return int(count), pieces
