"""How well a search searched, by its own model: what it expected of candidates, what is left to gain, what others had found.

The model is taught by what was measured; what it says of candidates that were not measured is as good as its errors, which
are told beside it (`studies.searched`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objectives.protocol import Reading
from ..spaces.candidate import Candidate
from ..studies.front import full_drop_db, hypervolume
from ..studies.run import Run
from ..studies.run_folder import write_derived
from ..studies.searched import ACCOUNT_FILE, AHEAD, EXPECTED_GAIN, VERSION, expected_here
from .frontier import Frontier, points_of
from .proposers import Observation, Point
from .solve import Solved, choose
from .start import uniform_candidates
from .task import history_of
from .vectors import draw

Floats = NDArray[np.float64]

LATEST = 20  # proposals by whose success expected gains are judged
LEAST = 5
Z = 1.96  # standard deviations of a 95 % interval
SEARCHES = 10  # random ones that are averaged
DRAWS = 50  # of which candidates ahead will keep limits
STOPS = 12  # numbers of evaluations after which their hypervolume is told
LOOK = 5  # evaluations from one look ahead to the next
CONVERGED = 0.002  # of the hypervolume: less is little, for so many evaluations ahead
PATIENCE = 3  # looks in a row that find little


class Watch:
    """Follows a search of the frontier sampler: what it expects, and when little is left.

    Attributes:
        gain_ahead: what the next `AHEAD` evaluations will probably add to the hypervolume; None before the first look.
    """

    def __init__(self, frontier: Frontier) -> None:
        self.frontier = frontier
        self.gain_ahead: float | None = None
        self._looks: dict[int, bool] = {}  # by length of the history, whether little was found

    def expect(self, run: Run, history: Sequence[Observation], candidate: Candidate) -> dict[str, Reading] | None:
        """Return what the model expects of a candidate that is proposed."""
        return expected(run, self.frontier, self.frontier.solve(history), history, candidate)

    def little_is_left(self, run: Run, history: Sequence[Observation]) -> bool:
        """Look ahead after every `LOOK` evaluations; return whether the latest looks, `PATIENCE` of them, found little.

        It follows from the history alone: a search that was resumed looks back first.
        """
        proposed = sum(not trial.label for trial in run.trials[: len(history)])
        last = len(history) - len(history) % LOOK
        stops = [last - LOOK * back for back in reversed(range(PATIENCE)) if LOOK * back <= proposed]
        for stop in stops:
            if stop not in self._looks and stop > 0:
                self.gain_ahead = gain_ahead(run, self.frontier, history[:stop])
                reached = self.frontier.reached(history[:stop])
                self._looks[stop] = self.gain_ahead is not None and self.gain_ahead < CONVERGED * reached
        return len(stops) == PATIENCE and all(self._looks.get(stop, False) for stop in stops)

    def write_account(self, run: Run) -> None:
        """Keep what the model says of the search in the run's folder."""
        write_derived(run.folder / ACCOUNT_FILE, {"version": VERSION, **account(run, self.frontier, history_of(run))})

    def __str__(self) -> str:
        return f"the next {AHEAD} evaluations would probably add {self.gain_ahead or 0.0:.4f} to the hypervolume"


def expected(
    run: Run, frontier: Frontier, solved: Solved | None, history: Sequence[Observation], candidate: Candidate
) -> dict[str, Reading] | None:
    """Return what a model expects of a candidate, with 95 % intervals; None where it cannot say."""
    vector = frontier.grid.encode(candidate)
    if solved is None or vector is None:
        return None
    points, spreads = solved.costs.predict(vector[None]), solved.costs.spread(vector[None])
    point, doubt = points[0], Z * spreads[0]
    more = hypervolume([*points_of(history), point], frontier.worst) - frontier.reached(history)
    gain = more * solved.keeping.chance(points, spreads)[0]
    size, decibels = run.reference.value("size_bytes"), full_drop_db(run.has_target)
    fastest, slowest = max(point[1] - doubt[1], 0.1 * point[1]), point[1] + doubt[1]
    best, worst = max(point[2] - doubt[2], 0.0) * decibels, (point[2] + doubt[2]) * decibels
    how = "the sampler's model"
    interval = f"{how}, 95 % interval"
    return {
        "expected_size_bytes": Reading(float(point[0] * size), "bytes", how=how),
        "expected_speedup": Reading(float(1 / point[1]), "x", float(1 / slowest), float(1 / fastest), how=interval),
        "expected_drop_db": Reading(float(point[2] * decibels), "dB", float(best), float(worst), how=interval),
        EXPECTED_GAIN: Reading(float(gain), "", how=how),
    }


def gain_ahead(run: Run, frontier: Frontier, history: Sequence[Observation]) -> float | None:
    """Return what the next `AHEAD` evaluations will probably add to the hypervolume; None where the model cannot say.

    What the model expects of them, times the part of its expectations that the latest proposals came up to.
    """
    solved = frontier.solve(history)
    if solved is None:
        return None
    new = frontier.unmeasured(solved.pool, history)
    points = points_of(history)
    rows = choose(solved, new, points, frontier.worst, AHEAD, len(history))
    ahead = solved.centre[rows]
    chance = solved.keeping.chance(ahead, solved.spread[rows])
    outcomes, times = np.unique(
        np.random.default_rng(0).random((DRAWS, len(rows))) < chance, axis=0, return_counts=True
    )
    after = [hypervolume(np.concatenate([points, ahead[kept]]), frontier.worst) for kept in outcomes]
    gain = float(np.average(after, weights=times)) - frontier.reached(history)
    return gain * _came_true(run, frontier, history)


def _came_true(run: Run, frontier: Frontier, history: Sequence[Observation]) -> float:
    """Return which part of the expected gains the latest proposals brought, at most 1."""
    trials = run.trials[: len(history)]
    gains = [trial.readings[EXPECTED_GAIN].value if expected_here(trial) else None for trial in trials]
    told = [number for number, gain in enumerate(gains) if gain is not None][-LATEST:]
    if len(told) < LEAST:
        return 1.0
    came = sum(frontier.reached(history[: number + 1]) - frontier.reached(history[:number]) for number in told)
    hoped = sum(gains[number] or 0.0 for number in told)
    return float(np.clip(came / hoped, 0.0, 1.0)) if hoped > 0 else 1.0


def account(run: Run, frontier: Frontier, history: Sequence[Observation]) -> dict[str, Any]:
    """Return what the model says of the search, as plain data.

    Returns:
        ``evaluations``; ``ahead``, a number of further ones, and ``gain_ahead``, what they will probably add to the
        hypervolume (within the study's limits); ``random`` and ``uniform``: pairs of a number of evaluations and the
        hypervolume that so many would have reached beside the starting points, random ones in the mean of several
        searches, by the model where not measured; these two ask nobody to keep limits.
    """
    solved = frontier.solve(history)
    told: dict[str, Any] = {
        "evaluations": len(history),
        "ahead": AHEAD,
        "gain_ahead": gain_ahead(run, frontier, history),
    }
    if solved is None:
        return told | {"random": [], "uniform": []}
    history = [observation for observation in history if not observation.candidate.weights]  # nobody proposed those
    labels = {trial.candidate: trial.label for trial in run.trials}
    began = [o.point for o in history if o.point is not None and labels.get(o.candidate)]
    lengths, random = frontier.grid.lengths, np.random.default_rng(0)
    drawn = [solved.costs.predict(draw(lengths, random, len(history) - len(began))) for _ in range(SEARCHES)]
    uniform = [
        candidate for space in frontier.spaces for candidate in uniform_candidates(space) if not labels.get(candidate)
    ]
    alike = [frontier.grid.encode(candidate) for candidate in uniform]
    vectors = np.array([vector for vector in alike if vector is not None], np.int64).reshape(-1, len(lengths))
    return told | {
        "random": _curve(began, drawn),
        "uniform": _curve(began, [solved.costs.predict(vectors)[: len(history) - len(began)]]),
    }


def _curve(began: Sequence[Point], searches: Sequence[Floats]) -> list[tuple[int, float]]:
    """Return numbers of evaluations and the mean hypervolume after so many, the starting points before all others."""
    start = np.array(began).reshape(-1, 3)
    counts = np.unique(np.linspace(0, len(searches[0]), STOPS).round().astype(int)).tolist()
    return [
        (len(start) + count, float(np.mean([hypervolume(np.concatenate([start, s[:count]])) for s in searches])))
        for count in counts
    ]
