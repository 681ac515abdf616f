"""A model of costs, solved for its whole front, and which of the solutions to measure next.

Sweeps over weights of the objectives, then a genetic search on the model; of what it finds, the candidates that are
expected to gain most hypervolume are chosen, given how sure the model is. One in `EVERY` goes where it may be blind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..studies.front import nondominated
from .gain import expected_gain, open_boxes
from .keeping import NOTHING_ASKED, Keeping
from .vectors import cross, distinct_rows, mutate

Floats = NDArray[np.float64]
Vectors = NDArray[np.int64]

SWEEPS = 200
GENERATIONS = 3
REFINEMENTS = 20  # generations, towards one aim
PARENTS = 100  # that each of them starts from
CHILDREN = 300  # of a generation by mutation, and as many by crossing
EVERY = 5  # one in so many choices is for diversity
NOVEL = 0.8  # it is made among the candidates above this quantile of novelty
DOUBT = 0.5  # the part of the model's doubts that counts as a chance


class Costs(Protocol):
    """What candidates will cost in up to three objectives, all minimised."""

    def predict(self, vectors: Vectors) -> Floats:
        """Return the expected objectives ``[M, 3]`` of candidates ``[M, L]``."""
        ...

    def spread(self, vectors: Vectors) -> Floats:
        """Return standard deviations ``[M, 3]`` of what is predicted."""
        ...

    def novelty(self, vectors: Vectors) -> Floats:
        """Return how little is known of what candidates consist of ``[M]``."""
        ...

    def canonical(self, vectors: Vectors) -> Vectors:
        """Return vectors in the one form that each candidate has, where there are several."""
        ...

    def sweep(self, random: np.random.Generator, count: int, starts: Vectors) -> Vectors:
        """Return candidates ``[count, L]`` that are nearly best for random weights of the objectives.

        Args:
            random: draws the weights.
            count: how many.
            starts: candidates ``[S, L]`` that may be started from.
        """
        ...


@dataclass(frozen=True)
class Solved:
    """Candidates that are, by a model, on the front or near it.

    Attributes:
        costs: the model.
        pool: the candidates ``[P, L]``.
        centre, spread: what the model expects of their objectives, and how surely ``[P, 3]``.
        novelty: how little is known of what they consist of ``[P]``.
        keeping: tells how likely they keep limits that lie on none of the objectives.
    """

    costs: Costs
    pool: Vectors
    centre: Floats
    spread: Floats
    novelty: Floats
    keeping: Keeping = NOTHING_ASKED


def solve(costs: Costs, lengths: Vectors, front: Vectors, random: np.random.Generator, sweeps: int = SWEEPS) -> Solved:
    """Return the front of a model and what is near it.

    Args:
        costs: the model.
        lengths: numbers of options of the axes ``[L]``.
        front: measured candidates to start from ``[F, L]``, at least one.
        random: of sweeps and of the genetic search.
        sweeps: how many weights.
    """
    pool = distinct_rows(np.concatenate([front, costs.sweep(random, sweeps, front)]))
    centre = costs.predict(pool)
    for _ in range(GENERATIONS):
        parents = pool[nondominated(centre)]
        first, second = (parents[random.integers(0, len(parents), CHILDREN)] for _ in range(2))
        children = costs.canonical(np.concatenate([cross(first, second, random), mutate(lengths, first, random)]))
        both = distinct_rows(np.concatenate([pool, children]))
        centre = np.concatenate([centre, costs.predict(both[len(pool) :])])
        pool = both
    return Solved(costs, pool, centre, costs.spread(pool), costs.novelty(pool))


def refine(solved: Solved, lengths: Vectors, score: Callable[[Floats], Floats], random: np.random.Generator) -> Vectors:
    """Return candidates ``[M, L]`` by the model, the one of least score first: the best of the pool and what grows from it.

    Args:
        solved: the pool.
        lengths: numbers of options of the axes ``[L]``.
        score: what is to be least, of expected objectives ``[M, 3]``.
        random: of the genetic search.
    """
    pool, scores = solved.pool, score(solved.centre)
    for _ in range(REFINEMENTS):
        order = np.argsort(scores, kind="stable")[:PARENTS]
        pool, scores = pool[order], scores[order]
        first, second = (pool[random.integers(0, len(pool), CHILDREN)] for _ in range(2))
        children = np.concatenate([cross(first, second, random), mutate(lengths, first, random)])
        both = distinct_rows(np.concatenate([pool, solved.costs.canonical(children)]))
        scores = np.concatenate([scores, score(solved.costs.predict(both[len(pool) :]))])
        pool = both
    return pool[np.argsort(scores, kind="stable")]


def choose(solved: Solved, new: NDArray[np.bool_], taken: Floats, worst: Floats, n: int, done: int = 0) -> list[int]:
    """Return which ``n`` rows of the pool to measure next, each the one that promises most with those before it.

    Fewer where the pool has no more.

    Args:
        solved: the pool.
        new: which rows may be chosen ``[P]``.
        taken: points that were measured, and keep all that is asked of them ``[N, 3]``.
        worst: the reference point of the hypervolume, or the limits where they are nearer ``[3]``.
        n: how many.
        done: how many were chosen before; the count decides whose turn diversity is.
    """
    left = new.copy()
    log_chance = solved.keeping.log_chance(solved.centre, solved.spread)
    chosen: list[int] = []
    while len(chosen) < n and left.any():
        rows = _hopeful(solved, left, taken, worst)
        if (done + len(chosen)) % EVERY == EVERY - 1:
            novel = rows[solved.novelty[rows] >= np.quantile(solved.novelty, NOVEL)]
            rows = novel if len(novel) else rows
        gain = expected_gain(solved.centre[rows], DOUBT * solved.spread[rows], *open_boxes(taken, worst))
        hopeful = gain > 0.0
        if hopeful.any():
            best = int(rows[hopeful][(np.log(gain[hopeful]) + log_chance[rows[hopeful]]).argmax()])
        else:  # nothing promises a gain: the one that lacks least
            lack = _lack(solved.centre, taken, worst) - np.expm1(log_chance)
            best = int(np.lexsort((-log_chance, np.where(left, lack, np.inf)))[0])
        chosen.append(best)
        left[best] = False
        taken = np.vstack([taken, solved.centre[best]])
    return chosen


def _hopeful(solved: Solved, left: NDArray[np.bool_], taken: Floats, worst: Floats) -> Vectors:
    """Return the rows that may be better than what was measured, by their doubts, and keep the limits."""
    best = solved.centre - 2.0 * solved.spread
    front = taken[nondominated(taken)]
    dominated = (front[:, None] <= best).all(axis=2).any(axis=0)
    return np.flatnonzero(left & ~dominated & (best < worst).all(axis=1))


def _lack(points: Floats, taken: Floats, worst: Floats) -> Floats:
    """Return how far points ``[M, 3]`` are from keeping the limits, or, where they do, from the front."""
    excess = np.maximum(points - worst, 0.0).sum(axis=1)
    moves = np.ptp(np.concatenate([points, taken]), axis=0) > 0.0  # objectives that do not move tell nothing
    behind = (points[:, None, moves] - taken[:, moves]).min(axis=2, initial=np.inf).max(axis=1, initial=0.0)
    behind = np.where(np.isfinite(behind), behind, 0.0)
    return np.asarray(np.where(excess > 0.0, behind.max(initial=0.0) + 1.0 + excess, behind))
