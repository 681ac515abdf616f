"""Our own sampler: errors, times and sizes add up over the layers, so a few measurements tell where the front is.

The squared error of a mixed assignment is close to the sum of its layers' own errors. So each layer has one unknown
sensitivity that scales the error of a bit width, and one unknown share of the time that integer kernels save; both
are learned by ridge regression from all that was measured, starting from "all layers alike" and "time goes with the
multiply-adds"; so is what a hop between float and integer kernels costs. Candidates come from
sweeps over the weights of size, time and error, which a sum over layers lets each layer decide alone (Shoham and
Gersho, 1988), and from mutations of the front. Those that promise the largest gain of hypervolume are proposed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import Candidate
from ..studies.front import WORST, hypervolume, nondominated
from .grid import Grid, distinct
from .proposers import Observation, Task
from .start import start_points

SWEEPS = 400
MUTANTS = 800
NOISE_DB = 0.05  # differences in quality below this say nothing about a layer
SPREAD = 1.0  # prior standard deviation of a layer's sensitivity around the mean of 1
RATED = 300  # candidates whose gain is computed
DB_PER_BIT = 6.0
TIME_NOISE = 0.02  # of 1 / speedup
HOP_SHARE = 0.5  # prior cost of a hop between float and integer kernels, in savings of a layer

Floats = NDArray[np.float64]


class Frontier:
    """An additive model of the three objectives and the candidates that it finds most promising."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.grid = Grid(task.space)
        self.starts = dict(start_points(task.space))
        self.worst = np.minimum(WORST, task.limits)

    def propose(self, history: Sequence[Observation], n: int) -> list[Candidate]:
        """Return ``n`` unseen candidates, the most promising first."""
        random = np.random.default_rng([self.task.seed, len(history)])
        seen = [(self.grid.encode(o.candidate), o.point) for o in history if o.point is not None]
        vectors = [vector for vector, _ in seen if vector is not None]
        points = np.array([point for vector, point in seen if vector is not None]).reshape(-1, 3)
        known = {observation.candidate for observation in history}
        ranked: list[Candidate] = []
        if len(points) >= 2:
            model = AdditiveModel(self, np.array(vectors), points)
            ranked = self._ranked(model, np.array(vectors), points, known, n, random)
        draw = iter(ranked)
        return distinct(lambda: next(draw, None), self.grid, known, n, random)

    def _ranked(
        self,
        model: AdditiveModel,
        vectors: NDArray[np.int64],
        points: Floats,
        known: set[Candidate],
        n: int,
        random: np.random.Generator,
    ) -> list[Candidate]:
        """Return up to ``n`` new candidates, each the one that gains most with those before it."""
        front = vectors[nondominated(points)]
        swept = model.sweep(random, SWEEPS)
        parents = np.concatenate([front, swept])
        mutants = self.grid.mutate(parents[random.integers(0, len(parents), MUTANTS)], random)
        pool = np.unique(np.concatenate([swept, mutants]), axis=0)
        fresh = np.array([self.grid.decode(vector) not in known for vector in pool])
        pool = random.permutation(pool[fresh])
        predicted = model.predict(pool)
        taken = points[(points < self.worst).all(axis=1)]
        useful = (predicted < self.worst).all(axis=1)
        if not useful.any():  # nothing promises to keep the limits: come as near to them as may be
            excess = np.maximum(predicted - self.worst, 0.0).sum(axis=1)
            return [self.grid.decode(vector) for vector in pool[np.argsort(excess)[:n]]]
        return [self.grid.decode(vector) for vector in _greedy(pool[useful], predicted[useful], taken, self.worst, n)]


def _greedy(
    pool: NDArray[np.int64], predicted: Floats, taken: Floats, worst: Floats, n: int
) -> list[NDArray[np.int64]]:
    """Return up to ``n`` of the pool, each the one that adds most hypervolume to those taken before it."""
    chosen: list[NDArray[np.int64]] = []
    while len(chosen) < n:
        rated = nondominated(np.concatenate([taken, predicted]))[len(taken) :].nonzero()[0][:RATED]
        if len(rated):
            gains = [hypervolume(np.vstack([taken, predicted[i]]), worst) for i in rated]
            best = int(rated[int(np.argmax(gains))])
        elif len(pool):  # nothing promises a gain: the one that lacks least
            behind = (predicted[:, None] - taken).min(axis=2).max(axis=1)
            best = int(behind.argmin())
        else:
            break
        chosen.append(pool[best])
        taken = np.vstack([taken, predicted[best]])
        pool, predicted = np.delete(pool, best, axis=0), np.delete(predicted, best, axis=0)
    return chosen


class AdditiveModel:
    """Size, time and error as sums over layers, fitted to what was measured.

    Args:
        frontier: its grid, task and starting points.
        vectors: measured candidates ``[M, L]``.
        points: their (size, time, drop) ``[M, 3]``.
    """

    def __init__(self, frontier: Frontier, vectors: NDArray[np.int64], points: Floats) -> None:
        grid, task = frontier.grid, frontier.task
        self.lengths = grid.lengths
        self.db = task.drop_db
        layers = len(grid.lengths)
        self.valid = np.arange(int(grid.lengths.max())) < grid.lengths[:, None]

        bits = grid.values(lambda layer, choice: task.parameters.get(layer, 0) * choice.weight_bits / 8.0)
        total = self._sum(bits, vectors)
        design = np.stack([np.ones_like(total), total], axis=1)
        (self.size_base, slope), *_ = np.linalg.lstsq(design, points[:, 0], rcond=None)
        self.size = bits * slope

        self.integer = integer = grid.values(lambda _, choice: float(choice.integer))
        uses = self._rows(integer, vectors)
        self.time_base, saved = _time_span(uses, points[:, 1])
        work = grid.values(lambda layer, _: float(task.work.get(layer, 1)))[:, 0]
        shares = integer * (saved * work / max(work[integer.any(axis=1)].sum(), 1.0))[:, None]
        hop = HOP_SHARE * saved / layers
        rows = np.column_stack([self._rows(shares, vectors), -hop * _hops(uses)])
        share = _ridge(rows, self.time_base - points[:, 1], np.full(len(points), TIME_NOISE))
        self.time = -shares * np.maximum(share[:-1, None], 0.0)
        self.hop = hop * max(share[-1], 0.0)

        error = 10.0 ** (np.minimum(self.db * points[:, 2], 60.0) / 10.0) - 1.0
        profile = self._profile(frontier, vectors, error) / layers
        floor = 10.0 ** (NOISE_DB / 10.0) - 1.0
        share = _ridge(self._rows(profile, vectors), error, 0.2 * error + floor)
        self.error = profile * np.maximum(share, 0.02)[:, None]

    def predict(self, vectors: NDArray[np.int64]) -> Floats:
        """Return predicted points ``[M, 3]`` of candidates ``[M, L]``."""
        drop = 10.0 * np.log10(1.0 + self._sum(self.error, vectors)) / self.db
        hops = _hops(self._rows(self.integer, vectors))
        time = self.time_base + self._sum(self.time, vectors) + self.hop * hops
        return np.stack([self.size_base + self._sum(self.size, vectors), np.maximum(time, 0.01), drop], axis=1)

    def sweep(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Return candidates ``[2 count, L]`` that are best for random weights of the three objectives."""
        weights = 10.0 ** random.uniform([-1.0, -2.0, -2.5], [1.0, 1.0, 1.5], size=(count, 3))
        tables = np.stack([self.size, self.time, self.error])
        cost = np.where(self.valid, np.einsum("co,olk->clk", weights, tables), np.inf)
        swept = np.asarray(cost.argmin(axis=2))
        offered = np.asarray(self.integer.any(axis=1))
        whole = np.where(self.valid & offered[:, None] & (self.integer == 0.0), np.inf, cost)
        return np.concatenate([swept, np.asarray(whole.argmin(axis=2))])  # each also without hops

    def _profile(self, frontier: Frontier, vectors: NDArray[np.int64], error: Floats) -> Floats:
        """Return the error ``[L, K]`` that a choice makes where all layers take it, read off the uniform candidates."""
        measured: dict[int, float] = {}
        for label, candidate in frontier.starts.items():
            vector = frontier.grid.encode(candidate)
            match = np.array([]) if vector is None else (vectors == vector).all(axis=1).nonzero()[0]
            if label.startswith("uniform") and len(match):
                measured[int(label.split()[1].split("/")[0])] = float(error[match[0]])
        widest = max(measured, default=8)
        activation = measured.get(8, 1e-3)
        for width in range(2, 17):
            if width not in measured:
                near = min(measured, key=lambda known: abs(known - width), default=widest)
                measured[width] = measured.get(near, 1e-2) * 10.0 ** (DB_PER_BIT * (near - width) / 10.0)
        own = {width: max(value - activation, 1e-3 * value, 1e-6) for width, value in measured.items()} | {32: 0.0}
        return frontier.grid.values(lambda _, c: own[c.weight_bits] + activation * c.integer)

    def _rows(self, table: Floats, vectors: NDArray[np.int64]) -> Floats:
        return table[np.arange(len(self.lengths)), vectors]

    def _sum(self, table: Floats, vectors: NDArray[np.int64]) -> Floats:
        return np.asarray(self._rows(table, vectors).sum(axis=1))


def _time_span(uses: Floats, times: Floats) -> tuple[float, float]:
    """Return the time without integer layers and what is saved where the most layers are integer."""
    counts = uses.sum(axis=1)
    base = float(np.median(times[counts == 0])) if (counts == 0).any() else 1.0
    return base, max(0.0, base - float(np.median(times[counts == counts.max()])))


def _hops(uses: Floats) -> Floats:
    """Return how often ``[M]`` neighbours in ``uses [M, L]`` change between float and integer kernels."""
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
