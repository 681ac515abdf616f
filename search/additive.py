"""What a candidate will measure, as sums over layers and channel groups, learned from what was measured so far.

Bytes and time of a layer go with the channels that stay on both of its sides; errors of layers and groups add up (facts:
Spearman 0.996). What a layer costs in time and how much its error counts are unknown factors around a first guess: they
come by ridge regression from all measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import LayerChoice
from ..spaces.packing import stored_bytes
from ..spaces.space import Axis
from .grid import Grid

if TYPE_CHECKING:
    from .proposers import Task

Floats = NDArray[np.float64]
Vectors = NDArray[np.int64]

NOISE_DB = 0.05  # differences in quality below this say nothing about a layer
SPREAD = 1.0  # prior standard deviation of a factor around its mean of 1
TIME_NOISE = 0.02  # of 1 / speedup
BETWEEN = 0.1  # first guess: the part of the reference's time that is spent between the layers
INTEGER = 0.35  # first guess: the time of a layer in integer kernels, in parts of that in float ones
HOP = 0.01  # first guess: what a change between float and integer kernels costs, in parts of the reference's time
DB_PER_BIT = 6.0
PRUNED_DB = 2.0  # first guess: the drop where every group loses a quarter of its channels
ROUNDED_DB = {8: 0.05, 4: 0.8}  # first guesses: the drop of uniform candidates
CLEAN = 1e-6
WEIGHTS = 8000  # of a layer whose stored bytes tell those of others
NEIGHBOURS = 5  # measured candidates of like drop whose residuals are averaged


class Layout:
    """A task's layers, groups and options as arrays; made once for a task.

    Attributes:
        grid: the space; the first axes are layers, the others groups.
        layers: names of all layers, those that do not vary as well.
    """

    def __init__(self, grid: Grid, task: Task) -> None:
        self.grid, self.task = grid, task
        self.layers = list(task.parameters)
        index = {name: number for number, name in enumerate(self.layers)}
        self.layer_axes = [number for number, axis in enumerate(grid.axes) if not axis.is_group]
        self.group_axes = [number for number, axis in enumerate(grid.axes) if axis.is_group]
        self.axis_layer = np.array([index[grid.axes[number].name] for number in self.layer_axes], np.int64)
        held = {axis.name: option for axis, option in grid.held if not axis.is_group}
        self.held = {index[name]: option for name, option in held.items()}
        self.inputs = np.zeros((len(self.group_axes), len(self.layers)))
        self.outputs = np.zeros_like(self.inputs)
        for row, number in enumerate(self.group_axes):
            shares = task.shares.get(grid.axes[number].name, ({}, {}))
            for table, share in zip((self.inputs, self.outputs), shares, strict=True):
                for name, value in share.items():
                    table[row, index[name]] = value
        self.ratio = grid.values(lambda axis, option: option if axis.is_group else 0.0)[self.group_axes]
        relative = task.space.relative
        self.bytes = self._by_layer(lambda name, choice: _bytes_a_weight(choice) * relative(name, choice)[0])
        self.pace = self._by_layer(
            lambda name, choice: relative(name, choice)[1]
        )  # time, in parts of the native form's
        self.integer = self._by_layer(lambda name, choice: float(choice.integer))
        self.parameters = np.array([task.parameters[name] for name in self.layers], float)
        work = np.array([task.work.get(name, 0) for name in self.layers], float)
        self.work = work / max(work.sum(), 1.0)

    def _by_layer(self, value: Any) -> tuple[Floats, Floats]:
        """Return a number for each option of the layers that vary [A, K], and for all layers where they are held [N]."""
        every = self.grid.values(lambda axis, option: 0.0 if axis.is_group else float(value(axis.name, option)))
        table = every[self.layer_axes]
        held = (self.held.get(n, LayerChoice()) for n in range(len(self.layers)))
        fixed = np.array([float(value(name, choice)) for name, choice in zip(self.layers, held, strict=True)])
        return table, fixed

    def chosen(self, tables: tuple[Floats, Floats], vectors: Vectors) -> Floats:
        """Return the number of each layer [M, N] for candidates [M, L]."""
        table, fixed = tables
        result = np.tile(fixed, (len(vectors), 1))
        result[:, self.axis_layer] = table[np.arange(len(table)), vectors[:, self.layer_axes]]
        return result

    def kept(self, vectors: Vectors) -> tuple[Floats, Floats]:
        """Return the parts of each layer's inputs and outputs that stay, [M, N] each."""
        ratios = self.ratio[np.arange(len(self.ratio)), vectors[:, self.group_axes]]
        return 1.0 - ratios @ self.inputs, 1.0 - ratios @ self.outputs


class AdditiveModel:
    """Size, time and drop of candidates, fitted to what was measured.

    Args:
        layout: of the task.
        vectors: measured candidates ``[M, L]``.
        points: their (size, time, drop) ``[M, 3]``.
        uniform: rows of ``vectors`` that are uniform candidates, by weight bits.
    """

    def __init__(self, layout: Layout, vectors: Vectors, points: Floats, uniform: Mapping[int, int]) -> None:
        self.layout = layout
        self.db = layout.task.drop_db
        kept_in, kept_out = layout.kept(vectors)
        both = kept_in * kept_out
        weights = layout.chosen(layout.bytes, vectors) * layout.parameters * both
        design = np.stack([np.ones(len(vectors)), weights.sum(axis=1)], axis=1)
        (self.size_base, self.size_slope), *_ = np.linalg.lstsq(design, points[:, 0], rcond=None)

        self._fit_time(vectors, both, points[:, 1])
        error = np.expm1(np.minimum(self.db * points[:, 2], 60.0) * np.log(10.0) / 10.0)
        profile = self._profile(vectors, error, uniform)
        floor = np.expm1(NOISE_DB * np.log(10.0) / 10.0)
        rows = profile[np.arange(len(profile)), vectors]
        factor = _ridge(rows, error, 0.2 * error + floor)
        self.error = profile * np.maximum(factor, 0.05)[:, None]
        self._known = np.zeros((2, 0))
        predicted = self.predict(vectors)[:, 2]
        order = np.argsort(predicted, kind="stable")
        self._known = np.stack([predicted[order], _smooth((points[:, 2] - predicted)[order])])

    def predict(self, vectors: Vectors) -> Floats:
        """Return predicted points ``[M, 3]`` of candidates ``[M, L]``."""
        layout = self.layout
        kept_in, kept_out = layout.kept(vectors)
        both = kept_in * kept_out
        size = (layout.chosen(layout.bytes, vectors) * layout.parameters * both).sum(axis=1)
        integer = layout.chosen(layout.integer, vectors)
        pace = layout.chosen(layout.pace, vectors)
        time = self.between + (both * pace * np.where(integer > 0, self.integer_time, self.float_time)).sum(axis=1)
        time = time + self.hop * _hops(integer)
        error = self.error[np.arange(len(self.error)), vectors].sum(axis=1)
        drop = 10.0 * np.log10(1.0 + error) / self.db
        if self._known.size:  # what like candidates were off by: differences too small for the layers' factors to learn
            drop = np.maximum(drop + np.interp(drop, *self._known), 0.0)
        return np.stack([self.size_base + self.size_slope * size, np.maximum(time, 0.01), drop], axis=1)

    def sweep(self, random: np.random.Generator, count: int, starts: Vectors) -> Vectors:
        """Return candidates ``[2 count, L]`` that are nearly best for random weights of the three objectives.

        For given channels each layer decides alone (Shoham and Gersho, 1988), and for given layers each group, in turn.

        Args:
            random: draws the weights and where to start.
            count: how many weights.
            starts: candidates ``[S, L]`` whose pruning ratios may be started from.
        """
        layout = self.layout
        weights = 10.0 ** random.uniform([-1.0, -2.0, -2.5], [1.0, 1.0, 1.5], size=(count, 3))
        vectors = np.zeros((count, len(layout.grid.lengths)), np.int64)
        vectors[:, layout.group_axes] = layout.grid.random(random, count)[:, layout.group_axes]
        known = random.random(count) < 0.75
        vectors[known] = starts[random.integers(0, len(starts), int(known.sum()))]
        vectors[random.random(count) < 0.25] = 0
        swept = vectors
        for _ in range(2 if layout.group_axes else 1):
            swept = self._decide_layers(swept, weights, whole=False)
            swept = self._decide_groups(swept, weights)
        return np.concatenate([swept, self._decide_layers(swept, weights, whole=True)])

    def _decide_layers(self, vectors: Vectors, weights: Floats, whole: bool) -> Vectors:
        """Return the vectors with the best option of each layer; ``whole``: only integer ones where they are offered."""
        layout = self.layout
        if not layout.layer_axes:
            return vectors
        kept_in, kept_out = layout.kept(vectors)
        both = (kept_in * kept_out)[:, layout.axis_layer, None]
        layers, axes = layout.axis_layer, layout.layer_axes
        size = self.size_slope * layout.bytes[0] * layout.parameters[layers, None]
        integer = layout.integer[0]
        time = np.where(integer > 0, self.integer_time[layers, None], self.float_time[layers, None]) * layout.pace[0]
        tables = weights[:, :1, None] * size + weights[:, 1:2, None] * time
        cost = tables * both + weights[:, 2:, None] * self.error[axes]
        valid = np.asarray(np.arange(cost.shape[2]) < layout.grid.lengths[axes][:, None])
        if whole:
            offered = np.asarray(integer.any(axis=1))
            valid = valid & ~(offered[:, None] & (integer == 0.0))
        result = vectors.copy()
        result[:, axes] = np.where(valid, cost, np.inf).argmin(axis=2)
        return result

    def _decide_groups(self, vectors: Vectors, weights: Floats) -> Vectors:
        """Return the vectors with the best ratio of each group, one group after another."""
        layout = self.layout
        result = vectors.copy()
        integer = layout.chosen(layout.integer, result)
        size = self.size_slope * layout.chosen(layout.bytes, result) * layout.parameters
        time = np.where(integer > 0, self.integer_time, self.float_time) * layout.chosen(layout.pace, result)
        cost = weights[:, :1] * size + weights[:, 1:2] * time  # of each whole layer
        kept_in, kept_out = layout.kept(result)
        for row, axis in enumerate(layout.group_axes):
            options = int(layout.grid.lengths[axis])
            touched = np.flatnonzero(layout.inputs[row] + layout.outputs[row])
            now = layout.ratio[row, result[:, axis]][:, None]
            rest_in = kept_in[:, touched] + now * layout.inputs[row, touched]
            rest_out = kept_out[:, touched] + now * layout.outputs[row, touched]
            ratios = layout.ratio[row, :options]
            left_in = rest_in[:, None] - ratios[:, None] * layout.inputs[row, touched]
            left_out = rest_out[:, None] - ratios[:, None] * layout.outputs[row, touched]
            costs = np.einsum("mt,mot,mot->mo", cost[:, touched], left_in, left_out)
            costs += weights[:, 2:] * self.error[axis, :options]
            result[:, axis] = costs.argmin(axis=1)
            new = ratios[result[:, axis]][:, None]
            kept_in[:, touched] = rest_in - new * layout.inputs[row, touched]
            kept_out[:, touched] = rest_out - new * layout.outputs[row, touched]
        return result

    def _fit_time(self, vectors: Vectors, both: Floats, times: Floats) -> None:
        layout = self.layout
        integer = layout.chosen(layout.integer, vectors)
        float_time = (1.0 - BETWEEN) * layout.work
        both = both * layout.chosen(layout.pace, vectors)
        guess = np.concatenate([float_time, INTEGER * float_time, [BETWEEN, HOP]])
        rows = np.column_stack([both * (1.0 - integer), both * integer, np.ones(len(vectors)), _hops(integer)]) * guess
        factor = np.maximum(_ridge(rows, times, np.full(len(times), TIME_NOISE)), 0.0)
        count = len(layout.layers)
        self.float_time, self.integer_time = (factor * guess)[:count], (factor * guess)[count : 2 * count]
        self.between, self.hop = (factor * guess)[2 * count :]

    def _profile(self, vectors: Vectors, error: Floats, uniform: Mapping[int, int]) -> Floats:
        """Return a first guess of the error of each axis's options ``[L, K]``.

        From the task's sensitivities where it has some; else all layers, and all groups, are taken to be alike, and uniform
        candidates tell how much a width costs.
        """
        task, grid = self.layout.task, self.layout.grid
        layers, groups = max(len(self.layout.layer_axes), 1), max(len(self.layout.group_axes), 1)
        measured = {bits: float(error[row]) for bits, row in uniform.items()} or {
            bits: 10.0 ** (db / 10.0) - 1.0 for bits, db in ROUNDED_DB.items()
        }

        def alike(bits: int) -> float:
            near = min(measured, key=lambda known: abs(known - bits))
            return measured[near] * 10.0 ** (DB_PER_BIT * (near - bits) / 10.0) if bits < 16 else 0.0

        rounded = {bits: alike(bits) / layers for bits in range(2, 33)}
        pruned = (10.0 ** (PRUNED_DB / 10.0) - 1.0) / groups

        def guess(axis: Axis, option: Any) -> float:
            known = task.errors.get(axis.label)
            if axis.is_group:
                return known[option] if known else pruned * (option / 0.25) ** 2
            own = known[option] if known else rounded[option.weight_bits] * (1.0 + 4.0 * option.sparsity**2)
            return max(own, CLEAN / layers if option.rounded else 0.0)

        table = grid.values(guess)
        beyond = {  # what integer kernels lose beyond rounding, for each of the layers that run in them
            bits: self._beyond_rounding(vectors[row], float(error[row]), table) for bits, row in uniform.items()
        }
        if beyond:
            least = min(beyond.values())
            saturated = max(beyond.get(8, 0.0) - 2 * least, 0.0)  # processors without VNNI lose more at 8 bits
            table += grid.values(
                lambda axis, option: (
                    0.0 if axis.is_group or not option.integer else least + saturated * (option.weight_bits == 8)
                )
            )
        return table

    def _beyond_rounding(self, vector: Vectors, error: float, table: Floats) -> float:
        axes = self.layout.grid.axes
        integers = sum(not axis.is_group and axis.options[i].integer for axis, i in zip(axes, vector, strict=True))  # type: ignore[union-attr]
        left = error - float(table[np.arange(len(vector)), vector].sum())
        return max(left, 0.02 * error, CLEAN) / max(integers, 1)


def _bytes_a_weight(choice: LayerChoice) -> float:
    return stored_bytes(WEIGHTS, round((1.0 - choice.sparsity) * WEIGHTS), choice.weight_bits) / WEIGHTS


def _smooth(values: Floats) -> Floats:
    """Return means over `NEIGHBOURS` values in order, fewer at the ends."""
    reach = NEIGHBOURS // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _hops(uses: Floats) -> Floats:
    """Return how often ``[M]`` neighbours in ``uses [M, N]`` change between float and integer kernels."""
    return np.asarray(np.abs(np.diff(uses, axis=1)).sum(axis=1))


def _ridge(rows: Floats, target: Floats, noise: Floats) -> Floats:
    """Return coefficients ``[L]`` around 1 that explain ``rows @ x = target``.

    Args:
        rows: ``[M, L]``.
        target: ``[M]``.
        noise: standard deviation of each target.
    """
    scaled = rows / noise[:, None]
    precision = scaled.T @ scaled + np.eye(rows.shape[1]) / SPREAD**2
    right = scaled.T @ ((target - rows.sum(axis=1)) / noise)
    return np.asarray(1.0 + np.linalg.solve(precision, right))
