"""How large a graph's tensors are when channels are removed, for many candidates at once and without pruning anything."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .graph import Graph
from .groups import Channels
from .sizes import Slot


class KeptSizes:
    """Sizes of tensors by how many pieces of each channel group are removed.

    Args:
        graph: in any form; its shapes are those of all channels.
        channels: the groups of the captured graph, whose tensors keep their names in any form.
    """

    def __init__(self, graph: Graph, channels: Channels) -> None:
        self.graph = graph
        self._lost: dict[Slot, dict[int, int]] = {}  # entries that go with a piece, by axis and group
        for number, group in enumerate(channels.groups.values()):
            for slot, entries in group.slots.items():
                self._lost.setdefault(slot, {})[number] = entries.shape[1]

    def axis(self, tensor: str, axis: int, removed: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the size of an axis ``[M or 1]``, for the removed pieces of each group ``[M, groups]``."""
        shape = self.graph.shapes[tensor]
        lost: Mapping[int, int] = self._lost.get((tensor, axis % len(shape)), {})
        size = np.full(1, float(shape[axis]))
        for group, entries in lost.items():
            size = size - entries * removed[:, group]
        return size

    def elements(self, tensor: str, removed: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the elements of a tensor ``[M or 1]``; 1 where its shape is not known."""
        shape = self.graph.shapes.get(tensor, ())
        varying = [axis for axis in range(len(shape)) if (tensor, axis) in self._lost]
        fixed = math.prod(size for axis, size in enumerate(shape) if axis not in varying)
        found = np.full(1, float(fixed))
        for axis in varying:
            found = found * self.axis(tensor, axis, removed)
        return found
