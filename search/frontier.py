"""Our own sampler: errors, times and sizes add up, so a few measurements tell where the front is.

Candidates come from sweeps over the weights of size, time and error, which sums let each layer and group decide alone
(`additive`), and from mutations and crossings of the front. Those that promise the largest gain of hypervolume are proposed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import Candidate
from ..studies.front import WORST, largest_gain, nondominated
from .additive import AdditiveModel, Floats, Layout, Vectors
from .grid import Grid, distinct
from .proposers import Observation, Task
from .start import start_points

SWEEPS = 200
MUTANTS = 800
RATED = 300  # candidates whose gain is computed, or known to be smaller


class Frontier:
    """An additive model of the three objectives and the candidates that it finds most promising."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.grid = Grid(task.space)
        self.layout = Layout(self.grid, task)
        self.starts = dict(start_points(task.space))
        self.worst = np.minimum(WORST, task.limits)

    def propose(self, history: Sequence[Observation], n: int) -> list[Candidate]:
        """Return ``n`` unseen candidates, the most promising first."""
        random = np.random.default_rng([self.task.seed, len(history)])
        measured = [(o.candidate, o.point) for o in history if o.point is not None]
        seen = [(self.grid.encode(candidate), point) for candidate, point in measured]
        vectors = np.array([vector for vector, _ in seen if vector is not None])
        points = np.array([point for vector, point in seen if vector is not None]).reshape(-1, 3)
        taken = np.array([point for _, point in measured]).reshape(-1, 3)  # sequential twins as well
        known = {observation.candidate for observation in history}
        ranked: list[Candidate] = []
        if len(points) >= 2:
            model = AdditiveModel(self.layout, vectors, points, self._uniform(vectors))
            front = vectors[nondominated(points)]
            ranked = self._ranked(model, front, taken, known, n, random)
        draw = iter(ranked)
        return distinct(lambda: next(draw, None), self.grid, known, n, random)

    def _uniform(self, vectors: Vectors) -> dict[int, int]:
        """Return which rows are uniform candidates, by weight bits."""
        found = {}
        for label, candidate in self.starts.items():
            vector = self.grid.encode(candidate)
            if label.startswith("uniform") and vector is not None and not candidate.groups:
                for row in (vectors == vector).all(axis=1).nonzero()[0][:1]:
                    found[int(label.split()[1].split("/")[0])] = int(row)
        return found

    def _ranked(
        self,
        model: AdditiveModel,
        front: Vectors,
        points: Floats,
        known: set[Candidate],
        n: int,
        random: np.random.Generator,
    ) -> list[Candidate]:
        """Return up to ``n`` new candidates, each the one that gains most with those before it."""
        swept = model.sweep(random, SWEEPS, front)
        parents = np.concatenate([front, swept])
        first, second = (parents[random.integers(0, len(parents), MUTANTS)] for _ in range(2))
        groups = np.array([axis.is_group for axis in self.grid.axes])
        crossed = np.where(groups, second, first) if groups.any() and not groups.all() else second
        pool = np.concatenate([swept, crossed, self.grid.mutate(first, random)])
        vectors = (self.grid.encode(candidate) for candidate in known)
        seen = {vector.tobytes() for vector in vectors if vector is not None}
        rows = {vector.tobytes(): row for row, vector in enumerate(pool)}
        pool = random.permutation(pool[[row for vector, row in rows.items() if vector not in seen]])
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
            best = int(rated[largest_gain(predicted[rated], taken, worst)])
        elif len(pool):  # nothing promises a gain: the one that lacks least
            behind = (predicted[:, None] - taken).min(axis=2).max(axis=1)
            best = int(behind.argmin())
        else:
            break
        chosen.append(pool[best])
        taken = np.vstack([taken, predicted[best]])
        pool, predicted = np.delete(pool, best, axis=0), np.delete(predicted, best, axis=0)
    return chosen
