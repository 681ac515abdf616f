"""What layers add to size and time, and what changes between integer and float kernels cost, learned by regression."""

from __future__ import annotations

import numpy as np

from .layout import Floats, Layout, Table, Vectors, hops
from .regression import Posterior, regress

TIME_SCALES = (0.005, 0.01, 0.02, 0.04)  # of 1 / speedup
SIZE_SCALES = (0.0005, 0.002, 0.008)  # of size / reference size
SPREAD = 1.0  # prior standard deviation of a factor of time around its mean of 1
BETWEEN = 0.1  # first guess: the part of the reference's time that is spent between the layers
INTEGER = 0.35  # first guess: the time of a layer in integer kernels, in parts of that in float ones
HOP = 0.01  # first guess: what a change between float and integer kernels costs, in parts of the reference's time
LEAST_TIME = 0.01
BASE = 0.02  # how far the part of the reference's file that is no weights may be from its guess
NODES = 0.002  # how far what a rounded layer adds may be from its guess, in parts of the reference's file
NODE_BYTES = 1000.0  # and beside that, which counts in small models
GUESSES = (
    3000.0,
    700.0,
    250.0,
    200.0,
)  # first guesses in bytes: of the graph, a rounded layer, an integer one, a change


class LayerCosts:
    """A cost as a sum over layers: some go with the channels that stay on both sides, some do not, and changes cost as well.

    Args:
        layout: of the task.
        paid: what a choice costs for each part of the layer's inputs and outputs that stays.
        flat: what it costs however many stay.
        change: what a change between integer and float kernels costs.
        base: what no layer is to blame for.
    """

    def __init__(self, layout: Layout, paid: Table, flat: Table, change: float, base: float) -> None:
        self.layout = layout
        self.paid, self.flat, self.change, self.base = paid, flat, change, base

    def sums(self, vectors: Vectors, both: Floats, changes: Floats) -> Floats:
        """Return the costs of candidates ``[M, L]``, given the parts ``both [M, N]`` that stay and their changes ``[M]``."""
        found = np.einsum("mn,mn->m", self.layout.chosen(self.paid, vectors), both) + self.change * changes
        if self.flat.options.any() or self.flat.held.any():
            found += self.layout.chosen(self.flat, vectors).sum(axis=1)
        return np.asarray(found + self.base)


def fit_size(layout: Layout, vectors: Vectors, both: Floats, sizes: Floats) -> LayerCosts:
    """Find what weights, rounded layers, integer ones and changes between kernels add to the file.

    Args:
        layout: of the task.
        vectors: measured candidates ``[M, L]``.
        both: the parts of their layers that stay ``[M, N]``.
        sizes: of their files, in parts of the reference's ``[M]``.
    """
    weights = layout.chosen(layout.bytes, vectors) * layout.parameters * both
    rounded, integer = layout.chosen(layout.rounded, vectors), layout.chosen(layout.integer, vectors)
    columns = [np.ones(len(vectors)), weights.sum(axis=1), rounded.sum(axis=1), integer.sum(axis=1), hops(integer)]
    byte = 1.0 / (4.0 * max(layout.parameters.sum(), 1.0))
    graph, *nodes = (byte * guess for guess in GUESSES)
    guess, node = np.array([graph, byte, *nodes]), NODES + NODE_BYTES * byte
    spread = np.array([BASE + NODE_BYTES * byte, byte, node, node, node])
    posterior = regress(np.stack(columns, axis=1), sizes, np.ones(len(sizes)), guess, [spread], SIZE_SCALES)
    base, byte, rounding, pair, change = posterior.coefficients.tolist()
    paid = Table(
        byte * layout.bytes.options * _of_axes(layout, layout.parameters), byte * layout.bytes.held * layout.parameters
    )
    flat = Table(
        rounding * layout.rounded.options + pair * layout.integer.options,
        rounding * layout.rounded.held + pair * layout.integer.held,
    )
    return LayerCosts(layout, paid, flat, change, base)


class Times:
    """What candidates take, in parts of the reference's time: a factor for each layer in float and in integer kernels.

    Args:
        layout, vectors, both: as for `fit_size`.
        times: of the candidates, 1 / speedup ``[M]``.

    Attributes:
        costs: the sums.
    """

    def __init__(self, layout: Layout, vectors: Vectors, both: Floats, times: Floats) -> None:
        self.layout = layout
        float_time = (1.0 - BETWEEN) * layout.work
        self._guess = np.concatenate([float_time, INTEGER * float_time, [BETWEEN, HOP]])
        rows = self._rows(vectors, both)
        ones = np.ones(rows.shape[1])
        self.posterior: Posterior = regress(rows, times, np.ones(len(times)), ones, [SPREAD * ones], TIME_SCALES)
        found = np.maximum(self.posterior.coefficients, 0.0) * self._guess
        count = len(layout.layers)
        in_float, in_integers = found[:count], found[count : 2 * count]
        integer, pace = layout.integer, layout.pace
        options = np.where(integer.options > 0, _of_axes(layout, in_integers), _of_axes(layout, in_float))
        paid = Table(options * pace.options, np.where(integer.held > 0, in_integers, in_float) * pace.held)
        nothing = Table(np.zeros_like(paid.options), np.zeros_like(paid.held))
        self.costs = LayerCosts(layout, paid, nothing, float(found[-1]), float(found[-2]))

    def spread(self, vectors: Vectors, both: Floats) -> Floats:
        """Return the standard deviations of the times of candidates ``[M]``."""
        return np.hypot(self.posterior.spread(self._rows(vectors, both)), self.posterior.noise)

    def _rows(self, vectors: Vectors, both: Floats) -> Floats:
        integer = self.layout.chosen(self.layout.integer, vectors)
        paced = both * self.layout.chosen(self.layout.pace, vectors)
        columns = [paced * (1.0 - integer), paced * integer, np.ones(len(vectors)), hops(integer)]
        return np.asarray(np.column_stack(columns) * self._guess)


def _of_axes(layout: Layout, values: Floats) -> Floats:
    """Return values of all layers ``[N]`` for those that vary, as a column ``[A, 1]``."""
    return np.asarray(values[layout.axis_layer, None])
