"""Which channels of a group matter: orders of its pieces, from the one to keep longest to the one that goes first.

A criterion is an extension point: a class with `order`. Orders are nested: what is kept at a high ratio is kept at all lower
ones, so that a ratio alone says which channels stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .graph import Layer
from .groups import Group
from .matrix import has_matrix, has_own_biases, matrix_inputs, to_matrix
from .narrow import matrix_columns
from .rounding import damped
from .statistics import Statistics
from .threads import threads_for

VERSION = 1  # part of the cache key: raise it when orders change
STEPS = 32  # in which a group is emptied; scores are computed anew after each
MEMORY_BYTES = 3_000_000_000  # of inverse Gram matrices held; a long trunk of a large model has more readers than fit
FLOAT64_UP_TO = 2048  # inputs of a layer: above it a step in double precision takes too long


class Importance(Protocol):
    """A criterion. ``order`` is deterministic."""

    name: str

    def order(self, group: Group, statistics: Statistics) -> np.ndarray:
        """Return the pieces of a group [P], the most important first."""
        ...


class Magnitude:
    """The classical criterion: the sum of |W| of the weights that write a channel (Li et al., arXiv:1608.08710)."""

    name = "magnitude"

    def order(self, group: Group, statistics: Statistics) -> np.ndarray:
        """Return the pieces, those with large weights first."""
        graph = statistics.graph
        score = np.zeros(group.pieces)
        for name in group.writers:
            layer = graph.layers[name]
            axis = layer.channel_axis
            size = np.abs(graph.weight(layer)).sum(axis=tuple(a for a in range(len(layer.shape)) if a != axis))
            score += size[group.slots[(layer.weight, axis)]].sum(axis=1) / max(float(size.sum()), 1e-30)
        return np.argsort(-score, kind="stable")


class Activation:
    """The energy of the channel itself, the mean of x^2 where it is read."""

    name = "activation"

    def order(self, group: Group, statistics: Statistics) -> np.ndarray:
        """Return the pieces, those with large values first."""
        score = np.zeros(group.pieces)
        for layer, columns in _readers(group, statistics):
            for gram in statistics.moments(layer)[0]:  # type: ignore[index]
                energy = np.diag(gram)
                score += energy[columns].sum(axis=1) / max(float(energy.sum()), 1e-30)
        return np.argsort(-score, kind="stable")


class OutputEnergy:
    """What a channel carries of its readers' outputs that the other channels cannot: the error after repair.

    The pieces that cost least are removed step by step, the weights left and the inverse Gram matrix updated each time, as
    Optimal Brain Surgeon does for single weights (Hassibi and Stork, 1993) and ours for all columns of a channel at once.
    A reader's errors count in parts of the variance of its output.
    """

    name = "output-energy"

    def order(self, group: Group, statistics: Statistics) -> np.ndarray:
        """Return the pieces, those that are missed most first."""
        readers = _held_at_once(_readers(group, statistics))
        if not readers:
            return Magnitude().order(group, statistics)
        with threads_for(max(matrix_inputs(layer) for layer, _ in readers)):
            return self._emptied(group, [part for reader in readers for part in _parts(*reader, statistics)])

    def _emptied(self, group: Group, readers: list[_Reader]) -> np.ndarray:
        left, gone = np.arange(group.pieces), []
        step = -(-group.pieces // STEPS)
        while len(left) > 1:
            score = np.sum([reader.costs() for reader in readers], axis=0)
            worst = np.argsort(score, kind="stable")[: min(step, len(left) - 1)]
            gone.append(left[worst][::-1])
            left = np.delete(left, worst)
            for reader in readers:
                reader.remove(worst)
        return np.concatenate([left, *gone[::-1]])


METHODS: dict[str, Callable[[], Importance]] = {
    "output-energy": OutputEnergy,
    "magnitude": Magnitude,
    "activation": Activation,
}


def _readers(group: Group, statistics: Statistics) -> list[tuple[Layer, np.ndarray]]:
    """Return the layers that read the group and have a Gram matrix, with the matrix columns of each piece [P, n]."""
    found = []
    for name in group.readers:
        layer = statistics.graph.layers[name]
        entries = group.slots[(layer.weight, layer.input_axis)]
        if not has_matrix(layer) or layer.depthwise:
            continue
        if layer.op == "ConvTranspose" and layer.group > 1:
            entries = entries[:, : entries.shape[1] // layer.group]  # the same positions in every group
        found.append((layer, np.stack([matrix_columns(layer, piece) for piece in entries])))
    return found


def _held_at_once(readers: list[tuple[Layer, np.ndarray]]) -> list[tuple[Layer, np.ndarray]]:
    """Return the readers, every second one of them again and again until their matrices fit `MEMORY_BYTES`."""
    while len(readers) > 1 and sum(8 * layer.group * matrix_inputs(layer) ** 2 for layer, _ in readers) > MEMORY_BYTES:
        readers = readers[::2]
    return readers


class _Reader:
    """A layer's weights [R, D] and inverse Gram matrix while its inputs go, piece after piece."""

    def __init__(self, rows: np.ndarray, gram: np.ndarray, columns: np.ndarray) -> None:
        kind: Any = np.float64 if len(gram) <= FLOAT64_UP_TO else np.float32
        self.rows: NDArray[np.floating[Any]] = rows.astype(kind)
        self.inverse: NDArray[np.floating[Any]] = np.linalg.inv(damped(gram)).astype(kind)
        self.columns = columns
        self.power = max(float(np.einsum("rd,de,re->", rows, gram, rows, optimize=True)), 1e-30)

    def costs(self) -> np.ndarray:
        """Return what each piece left would cost, [P]."""
        blocks = self.inverse[self.columns[:, :, None], self.columns[:, None, :]]
        weights = self.rows[:, self.columns].transpose(1, 2, 0)  # [P, n, R]
        return np.asarray(np.einsum("pnr,pnr->p", weights, np.linalg.solve(blocks, weights)) / self.power)

    def remove(self, pieces: np.ndarray) -> None:
        """Remove pieces, by their places among those left; their part is taken over by the others."""
        gone = self.columns[pieces].reshape(-1)
        share = np.linalg.solve(self.inverse[np.ix_(gone, gone)], self.inverse[gone])
        self.rows -= self.rows[:, gone] @ share
        self.inverse -= self.inverse[:, gone] @ share
        stays = np.setdiff1d(np.arange(len(self.inverse)), gone)
        self.rows, self.inverse = self.rows[:, stays], self.inverse[np.ix_(stays, stays)]
        self.columns = np.searchsorted(stays, np.delete(self.columns, pieces, axis=0))


def _parts(layer: Layer, columns: np.ndarray, statistics: Statistics) -> list[_Reader]:
    """Return a reader for each group of a convolution."""
    moments = statistics.moments(layer)
    assert moments is not None
    rows = to_matrix(layer, statistics.graph.weight(layer))
    parts = []
    for number, (gram, mean) in enumerate(zip(*moments, strict=True)):
        centred = gram - np.outer(mean, mean) if has_own_biases(layer) else gram
        parts.append(_Reader(rows[number], np.asarray(centred), columns))
    return parts
