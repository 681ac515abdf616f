"""A task's layers, channel groups and options as arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import LayerChoice
from ..spaces.packing import stored_bytes
from .grid import Grid
from .start import start_points

if TYPE_CHECKING:
    from .proposers import Task

Floats = NDArray[np.float64]
Vectors = NDArray[np.int64]

WEIGHTS = 8000  # of a layer whose stored bytes tell those of others


@dataclass(frozen=True)
class Table:
    """A number for each layer's choices.

    Attributes:
        options: of the layers that vary ``[A, K]``, 0 where one has fewer.
        held: of all layers where they are held ``[N]``; those of layers that vary are not read.
    """

    options: Floats
    held: Floats


class Layout:
    """A task's layers, groups and options as arrays; made once for a task.

    Attributes:
        grid: the space; the first axes are layers, the others groups.
        split: number of axes that are layers.
        layers: names of all layers, those that do not vary as well ``[N]``.
        axis_layer: of each axis that is a layer, its place among the layers ``[A]``.
        inputs, outputs: of each group, the part of each layer's inputs and outputs that it is ``[G, N]``.
        ratio: of each group, the part of it that its options remove ``[G, K]``.
        bytes: of a weight. pace: the layer's time in parts of the native form's. integer, rounded: 1 where it is, else 0; a
            layer in the form "dynamic" counts as one in float that has its pace.
        parameters: of each layer ``[N]``.
        work: of each layer, in parts of the whole ``[N]``.
        uniform: by weight bits, the vectors of the unpruned uniform candidates that searches begin with ``[L]``.
    """

    def __init__(self, grid: Grid, task: Task) -> None:
        self.grid, self.task = grid, task
        self.layers = list(task.parameters)
        index = {name: number for number, name in enumerate(self.layers)}
        self.split = sum(not axis.is_group for axis in grid.axes)
        self.axis_layer = np.array([index[axis.name] for axis in grid.axes[: self.split]], np.int64)
        held = {axis.name: option for axis, option in grid.held if isinstance(option, LayerChoice)}
        self._held = [held.get(name, LayerChoice()) for name in self.layers]
        self.inputs = np.zeros((len(grid.axes) - self.split, len(self.layers)))
        self.outputs = np.zeros_like(self.inputs)
        for row, axis in enumerate(grid.axes[self.split :]):
            shares = task.shares.get(axis.name, ({}, {}))
            for table, share in zip((self.inputs, self.outputs), shares, strict=True):
                for name, value in share.items():
                    table[row, index[name]] = value
        self.ratio = grid.values(lambda axis, option: option if axis.is_group else 0.0)[self.split :]
        relative = task.space.relative
        self.bytes = self._table(lambda name, choice: _bytes_a_weight(choice) * relative(name, choice)[0])
        self.pace = self._table(lambda name, choice: relative(name, choice)[1])
        self.integer = self._table(lambda name, choice: float(choice.calibrated))
        self.rounded = self._table(lambda name, choice: float(choice.rounded))
        self.parameters = np.array([task.parameters[name] for name in self.layers], float)
        work = np.array([task.work.get(name, 0) for name in self.layers], float)
        self.work = work / max(work.sum(), 1.0)
        self.uniform = self._uniform()

    def _table(self, value: Callable[[str, LayerChoice], float]) -> Table:
        every = self.grid.values(lambda axis, option: 0.0 if axis.is_group else value(axis.name, option))
        pairs = zip(self.layers, self._held, strict=True)
        return Table(every[: self.split], np.array([value(name, choice) for name, choice in pairs]))

    def _uniform(self) -> dict[int, Vectors]:
        found = {}
        for label, candidate in start_points(self.task.space):
            vector = self.grid.encode(candidate)
            uniform = re.fullmatch(r"(?:.*, )?uniform (\d+)/\d+", label)
            if uniform and vector is not None and not candidate.groups:
                found[int(uniform[1])] = vector
        return found

    def chosen(self, table: Table, vectors: Vectors) -> Floats:
        """Return the number of each layer ``[M, N]`` for candidates ``[M, L]``."""
        options = table.options
        found = options.take(vectors[:, : self.split] + np.arange(len(options)) * options.shape[1])
        if len(options) == len(table.held):
            return np.asarray(found)
        result = np.tile(table.held, (len(vectors), 1))
        result[:, self.axis_layer] = found
        return result

    def kept(self, vectors: Vectors) -> tuple[Floats, Floats]:
        """Return the parts of each layer's inputs and outputs that stay, ``[M, N]`` each."""
        ratios = self.ratio.take(vectors[:, self.split :] + np.arange(len(self.ratio)) * self.ratio.shape[1])
        return 1.0 - ratios @ self.inputs, 1.0 - ratios @ self.outputs

    def every(self, table: Table) -> Floats:
        """Return the number of each option of all layers ``[N, K]``; a layer that is held has one, the first."""
        result = np.zeros((len(self.layers), table.options.shape[1]))
        result[:, 0] = table.held
        result[self.axis_layer] = table.options
        return result

    def valid(self) -> NDArray[np.bool_]:
        """Return which options all layers have ``[N, K]``."""
        lengths = np.ones(len(self.layers), np.int64)
        lengths[self.axis_layer] = self.grid.lengths[: self.split]
        return np.asarray(np.arange(int(self.grid.lengths.max(initial=1))) < lengths[:, None])


def _bytes_a_weight(choice: LayerChoice) -> float:
    return stored_bytes(WEIGHTS, round((1.0 - choice.sparsity) * WEIGHTS), choice.weight_bits) / WEIGHTS


def hops(integer: Floats) -> Floats:
    """Return how often ``[M]`` neighbours in ``integer [M, N]`` change between float and integer kernels."""
    return np.asarray(np.abs(np.diff(integer, axis=1)).sum(axis=1))
