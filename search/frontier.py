"""Our own sampler: errors, times and sizes add up, so a few measurements tell where the front is.

The additive model of what was measured (`additive`) is solved for the whole front (`solve`); what promises most is measured,
and the model is fitted anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import Candidate
from ..studies.front import WORST, hypervolume, nondominated
from .additive import fitted
from .grid import Grid, Points, distinct
from .joint import JointCosts, JointGrid
from .keeping import Keeping
from .layout import Layout, Vectors
from .proposers import Observation, Task, keys_of
from .solve import SWEEPS, Costs, Solved, choose, solve
from .vectors import unseen

STEPS = 50  # the model is fitted anew when the history has grown by this part of it, at first after each trial


class Frontier:
    """Candidates that an additive model of the three objectives finds most promising.

    Args:
        task: of the reference.
        students: of the other bases; what promises most of all bases is proposed.
    """

    def __init__(self, task: Task, *students: Task) -> None:
        self.task = task
        grids = [Grid(each.space) for each in (task, *students)]
        self.spaces = [each.space for each in (task, *students)]
        self.layouts = [Layout(*pair) for pair in zip(grids, (task, *students), strict=True)]
        self.grid: Points = JointGrid(grids) if students else grids[0]
        self.worst = np.minimum(WORST, task.limits)
        self._solved: tuple[tuple[list[Observation], int], Solved | None] = (([], 0), None)

    def propose(self, history: Sequence[Observation], n: int) -> list[Candidate]:
        """Return ``n`` unseen candidates, the most promising first; what is pending counts as the model expects it."""
        random = np.random.default_rng([self.task.seed, len(history)])
        solved = self.solve([observation for observation in history if not observation.pending])
        ranked: list[Candidate] = []
        if solved is not None:
            new = self.unmeasured(solved.pool, history)
            points = np.concatenate([points_of(history), self._expected(solved, history)])
            rows = choose(solved, new, points, self.worst, n, len(history))
            ranked = [self.grid.decode(solved.pool[row]) for row in rows]
        draw = iter(ranked)
        return distinct(lambda: next(draw, None), self.grid, keys_of(history), n, random)

    def _expected(self, solved: Solved, history: Sequence[Observation]) -> NDArray[np.float64]:
        """Return what the model expects of candidates that are pending ``[N, 3]``."""
        encoded = (self.grid.encode(o.candidate) for o in history if o.pending)
        vectors = [vector for vector in encoded if vector is not None]
        return solved.costs.predict(np.array(vectors)) if vectors else np.zeros((0, 3))

    def reached(self, history: Sequence[Observation]) -> float:
        """Return the hypervolume of a history within the limits."""
        return hypervolume(points_of(history), self.worst)

    def unmeasured(self, vectors: Vectors, history: Sequence[Observation]) -> NDArray[np.bool_]:
        """Return which rows ``[M]`` of candidates ``[M, L]`` a history does not hold."""
        known = (self.grid.encode(observation.candidate) for observation in history)
        return unseen(vectors, (vector for vector in known if vector is not None))

    def solve(self, history: Sequence[Observation], sweeps: int = SWEEPS, whole: bool = False) -> Solved | None:
        """Return the front of the model of a history, or of its beginning: that of a long one is not new each time.

        None where too little was measured. The last one is kept.

        Args:
            history: what was measured.
            sweeps: how many weights of the objectives are solved for.
            whole: whether the model is taught by all of the history, however long.
        """
        left_out = 0 if whole else len(history) % max(len(history) // STEPS, 1)
        taught = list(history[: len(history) - left_out])
        if (taught, sweeps) != self._solved[0]:
            self._solved = ((taught, sweeps), self._solve(taught, sweeps))
        return self._solved[1]

    def _solve(self, history: Sequence[Observation], sweeps: int) -> Solved | None:
        measured = [(self.grid.encode(o.candidate), o) for o in history if o.point is not None]
        inside = [(vector, o) for vector, o in measured if vector is not None]
        if len(inside) < 2 or not len(self.grid.lengths):
            return None
        vectors, points = np.array([vector for vector, _ in inside]), np.array([o.point for _, o in inside])
        random = np.random.default_rng([self.task.seed, len(history)])
        costs: Costs
        if isinstance(self.grid, JointGrid):
            signed = np.column_stack([points[:, :2], np.array([o.signed_drop for _, o in inside], float)])
            costs = JointCosts(self.grid, self.layouts, self._anchors(history), vectors, signed)
            if not costs.models:
                return None
        else:
            costs = fitted(self.layouts[0], vectors, points)
        breaks = np.array([not o.counts for _, o in inside])  # dominates nobody who keeps the limits
        front = vectors[nondominated(np.column_stack([points, breaks]))]
        keeping = Keeping(points, [o.excesses for _, o in inside])
        return replace(solve(costs, self.grid.lengths, front, random, sweeps), keeping=keeping)

    def _anchors(self, history: Sequence[Observation]) -> list[NDArray[np.float64] | None]:
        """Return what the uncompressed candidates of the bases measured, drops below 0 included; None where it is not known."""
        found = {
            o.candidate.base: np.array([*o.point[:2], o.signed_drop])
            for o in history
            if o.point is not None and o.candidate == o.candidate.uncompressed
        }
        return [found.get(space.base) for space in self.spaces]


def points_of(history: Sequence[Observation]) -> NDArray[np.float64]:
    """Return the points ``[N, 3]`` of a history that count for the hypervolume, those of sequential twins as well."""
    return np.array([o.point for o in history if o.counts], float).reshape(-1, 3)
