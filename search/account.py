"""How well a search searched, by its own model: what it expected of candidates, what is left to gain, what others had found.

The model is taught by what was measured; what it says of candidates that were not measured is as good as its errors, which
are told beside it (`studies.searched`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objectives.protocol import Reading
from ..spaces.candidate import Candidate
from ..studies.front import full_drop_db, hypervolume
from ..studies.run import Run
from ..studies.run_folder import writing_to
from ..studies.searched import ACCOUNT_FILE, EXPECTED_GAIN, VERSION
from ..studies.trial import PROPOSAL
from .frontier import Frontier
from .proposers import Observation, Point
from .solve import choose
from .start import uniform_candidates
from .task import history_of
from .vectors import draw, unseen

Floats = NDArray[np.float64]

AHEAD = 10  # evaluations whose gain is told
LATEST = 20  # proposals by whose success expected gains are judged
LEAST = 5
Z = 1.96  # standard deviations of a 95 % interval
SEARCHES = 10  # random ones that are averaged
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
        self._poor_looks = 0

    def expect(self, run: Run, history: Sequence[Observation], candidate: Candidate) -> dict[str, Reading] | None:
        """Return what the model expects of a candidate that is proposed."""
        return expected(run, self.frontier, history, candidate)

    def little_is_left(self, run: Run, history: Sequence[Observation]) -> bool:
        """Look ahead, from time to time; return whether several looks in a row found little to gain."""
        if self.gain_ahead is None or len(history) % LOOK == 0:
            self.gain_ahead = gain_ahead(run, self.frontier, history)
            reached = hypervolume([o.point for o in history if o.point is not None], self.frontier.worst)
            poor = self.gain_ahead is not None and self.gain_ahead < CONVERGED * reached
            self._poor_looks = self._poor_looks + 1 if poor else 0
        return self._poor_looks >= PATIENCE

    def write_account(self, run: Run) -> None:
        """Keep what the model says of the search in the run's folder."""
        told = {"version": VERSION, **account(run, self.frontier, history_of(run))}
        with writing_to(run.folder):
            (run.folder / ACCOUNT_FILE).write_text(json.dumps(told), encoding="utf-8")

    def __str__(self) -> str:
        return f"the next {AHEAD} evaluations would probably add {self.gain_ahead or 0.0:.4f} to the hypervolume"


def expected(
    run: Run, frontier: Frontier, history: Sequence[Observation], candidate: Candidate
) -> dict[str, Reading] | None:
    """Return what the model expects of a candidate that was proposed, with 95 % intervals; None where it cannot say."""
    solved, vector = frontier.solve(history), frontier.grid.encode(candidate)
    if solved is None or vector is None:
        return None
    point, doubt = solved.costs.predict(vector[None])[0], Z * solved.costs.spread(vector[None])[0]
    points = [o.point for o in history if o.point is not None]
    gain = hypervolume([*points, point], frontier.worst) - hypervolume(points, frontier.worst)
    how = "the sampler's model, 95 % interval"
    size, decibels = run.reference.value("size_bytes"), full_drop_db(run.has_target)
    slowest = point[1] + doubt[1]
    fastest = max(point[1] - doubt[1], 0.1 * point[1])
    return {
        "expected_size_bytes": Reading(float(point[0] * size), "bytes", how=how),
        "expected_speedup": Reading(float(1 / point[1]), "x", float(1 / slowest), float(1 / fastest), how=how),
        "expected_drop_db": Reading(
            float(point[2] * decibels),
            "dB",
            float(max(point[2] - doubt[2], 0.0) * decibels),
            float((point[2] + doubt[2]) * decibels),
            how=how,
        ),
        EXPECTED_GAIN: Reading(float(gain), "", how=how),
    }


def gain_ahead(run: Run, frontier: Frontier, history: Sequence[Observation]) -> float | None:
    """Return what the next `AHEAD` evaluations will probably add to the hypervolume; None where the model cannot say.

    What the model expects of them, times the part of its expectations that the latest proposals came up to.
    """
    solved = frontier.solve(history)
    if solved is None:
        return None
    vectors = [frontier.grid.encode(observation.candidate) for observation in history]
    new = unseen(solved.pool, [vector for vector in vectors if vector is not None])
    points = np.array([o.point for o in history if o.point is not None])
    rows = choose(solved, new, points, frontier.worst, AHEAD, len(history))
    after = hypervolume(np.concatenate([points, solved.centre[rows]]), frontier.worst)
    return (after - hypervolume(points, frontier.worst)) * _came_true(run, frontier, history)


def _came_true(run: Run, frontier: Frontier, history: Sequence[Observation]) -> float:
    """Return which part of the expected gains the latest proposals brought, at most 1."""
    gains = [trial.readings[EXPECTED_GAIN].value if PROPOSAL in trial.stages else None for trial in run.trials]
    told = [number for number, gain in enumerate(gains) if gain is not None][-LATEST:]
    if len(told) < LEAST:
        return 1.0

    def reached(count: int) -> float:
        return hypervolume([o.point for o in history[:count] if o.point is not None], frontier.worst)

    came = sum(reached(number + 1) - reached(number) for number in told)
    hoped = sum(gains[number] or 0.0 for number in told)
    return float(np.clip(came / hoped, 0.0, 1.0)) if hoped > 0 else 1.0


def account(run: Run, frontier: Frontier, history: Sequence[Observation]) -> dict[str, Any]:
    """Return what the model says of the search, as plain data.

    Returns:
        ``evaluations``; ``ahead``, a number of further ones, and ``gain_ahead``, what they will probably add to the
        hypervolume (within the study's limits); ``random`` and ``uniform``: pairs of a number of evaluations and the
        hypervolume that so many would have reached beside the starting points, random ones in the mean of several
        searches, by the model where not measured.
    """
    solved = frontier.solve(history)
    told: dict[str, Any] = {
        "evaluations": len(history),
        "ahead": AHEAD,
        "gain_ahead": gain_ahead(run, frontier, history),
    }
    if solved is None:
        return told | {"random": [], "uniform": []}
    labels = {trial.candidate: trial.label for trial in run.trials}
    began = [o.point for o in history if o.point is not None and labels.get(o.candidate)]
    lengths, random = frontier.grid.lengths, np.random.default_rng(0)
    drawn = [solved.costs.predict(draw(lengths, random, len(history) - len(began))) for _ in range(SEARCHES)]
    alike = [frontier.grid.encode(candidate) for candidate in uniform_candidates(frontier.task.space)]
    vectors = np.array([vector for vector in alike if vector is not None]).reshape(-1, len(lengths))
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
