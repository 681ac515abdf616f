"""A run's model solved again for a budget: the candidate that it finds best is evaluated and added to the run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..objectives.predictor import Prediction
from ..objectives.predictor_file import take_predictor, write_predictor
from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError, InputError
from ..spaces.statistics import Progress
from ..studies.limits import Limits, given_limits
from ..studies.pick import check_preference, pick
from ..studies.records import RecordFile
from ..studies.run import Run
from ..studies.run_folder import PREDICTOR_FILE, RECORDS_FILE, start_run, writing_to
from ..studies.trial import Trial
from .account import expected
from .frontier import Frontier
from .recorded import RecordedRun
from .solve import refine
from .task import history_of, limits_of, task_of
from .vectors import unseen

Floats = NDArray[np.float64]

PROPOSALS = 4  # evaluated at most: one that misses its budget teaches the model, which then aims better
RATED = 20  # candidates whose speed is predicted kernel by kernel
SWEEPS = 1000
BETTER = 0.002  # by which a proposal has to look better than what is measured, in parts of its objective's span
HOPELESS = 1e3
TIE = 1e-3  # what the distance to the ideal counts beside what is preferred


def propose(
    run: Run,
    max_size: str | float | None = None,
    max_latency: str | float | None = None,
    min_psnr: float | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    prefer: str = "knee",
    progress: Progress | None = None,
) -> tuple[Trial, list[str]]:
    """Return the candidate that keeps the limits and suits best, of those measured and of all others.

    What the run's model finds best is evaluated and added to the run, until one keeps the limits, or until the model finds
    nothing that is better than what is measured.

    Args:
        run: with its reference measured; the study that it was made of has to be there.
        max_size, max_latency, min_psnr, max_drop, min_speedup, prefer: as for `Run.pick`.
        progress: told what is being done, and the part of it that is done.

    Returns:
        The trial, and a line for each candidate that was evaluated.

    Raises:
        InputError: a limit that cannot be read, the study is not there any more, another process writes to the run, or no
            candidate keeps the limits, proposed ones included.
    """
    check_preference(prefer)
    wanted = given_limits(max_size, max_latency, min_psnr, max_drop, min_speedup).over(run.limits)
    study = run.load()
    study.check()
    notes: list[str] = []
    with RecordFile(run.folder / RECORDS_FILE) as records:
        start_run(run.folder, study, study.environment)
        recorded = RecordedRun(study, run.folder, records)
        study.prepare(study.space.rounded, study.space.pruned, progress)
        take_predictor(study.predictor, run.folder / PREDICTOR_FILE)
        frontier = Frontier(task_of(study, recorded.run, "frontier", study.settings.search.seed, progress))
        for number in range(PROPOSALS):
            if progress is not None:
                progress("solving the model, evaluating what it finds", number / PROPOSALS)
            history = history_of(recorded.run)
            candidate = best_unmeasured(frontier, recorded.run, wanted, prefer, study.predictor.predict)
            if candidate is None:
                break
            said = expected(recorded.run, frontier, history, candidate)
            trial, _ = recorded.evaluate(candidate, foreseen=said)
            keeps = trial.measured and recorded.run.violation(trial, wanted) == 0.0
            notes.append(_told(trial, keeps))
            if keeps:
                break
        recorded.keep_files([])
        with writing_to(run.folder):
            write_predictor(study.predictor, run.folder / PREDICTOR_FILE)
    try:
        return pick(recorded.run, wanted, prefer), notes
    except InputError as error:
        raise InputError("; ".join([str(error), *notes])) from None


def best_unmeasured(
    frontier: Frontier, run: Run, limits: Limits, prefer: str, predict: Callable[[Candidate], Prediction]
) -> Candidate | None:
    """Return the new candidate that the model finds best; None where what is measured is as good, or nothing is in reach.

    Args:
        frontier: of the run's study.
        run: what was measured.
        limits: what the candidate must keep.
        prefer: as for `Run.pick`.
        predict: gives a candidate's `Prediction` of its speedup; it may raise `BuildError`.
    """
    history = history_of(run)
    solved = frontier.solve(history, SWEEPS)
    if solved is None:
        raise InputError(f"{run.folder} has too few measured candidates to learn from; search on")
    most = np.array(limits_of(run, limits))
    aim = _aim(prefer, most, solved.centre)
    found = refine(solved, frontier.grid.lengths, aim, np.random.default_rng([frontier.task.seed, len(history)]))
    vectors = [frontier.grid.encode(observation.candidate) for observation in history]
    found = found[unseen(found, [vector for vector in vectors if vector is not None])][:RATED]
    if not len(found):
        return None
    points = solved.costs.predict(found)
    candidates = [frontier.grid.decode(vector) for vector in found]
    points[:, 1] = [_time(candidate, predict, time) for candidate, time in zip(candidates, points[:, 1], strict=True)]
    scores = aim(points)
    best = int(scores.argmin())
    if (points[best] - 2.0 * solved.costs.spread(found[best : best + 1])[0] > most).any():
        return None  # out of reach
    measured = [run.point(trial) for trial in run.trials if trial.measured]
    if measured and scores[best] > aim(np.array(measured)).min() - BETTER:
        return None
    return candidates[best]


def _aim(prefer: str, most: Floats, centre: Floats) -> Callable[[Floats], Floats]:
    """Return what is to be least of points ``[M, 3]``: what is preferred among those that keep the limits.

    Args:
        prefer: as for `Run.pick`.
        most: the largest point that keeps the limits.
        centre: points of the front, which tell the span of each objective ``[P, 3]``.
    """
    fitting = centre[(centre <= most).all(axis=1)]
    fitting = fitting if len(fitting) else centre
    low, span = fitting.min(axis=0), np.maximum(np.ptp(fitting, axis=0), 1e-9)

    def aim(points: Floats) -> Floats:
        excess = np.maximum(points - most, 0.0).sum(axis=1)
        scaled = (points - low) / span
        distance = np.linalg.norm(np.maximum(scaled, 0.0), axis=1)
        place = {"size": 0, "latency": 1, "psnr": 2}
        chosen = distance if prefer == "knee" else scaled[:, place[prefer]] + TIE * distance
        return np.asarray(np.where(excess > 0.0, HOPELESS * (1.0 + excess), chosen))

    return aim


def _time(candidate: Candidate, predict: Callable[[Candidate], Prediction], otherwise: float) -> float:
    try:
        return 1.0 / predict(candidate).speedup
    except BuildError:
        return otherwise


def _told(trial: Trial, keeps: bool) -> str:
    if not trial.measured:
        return f"proposed trial {trial.number}: {trial.reason or trial.state}"
    row = trial.row()
    return (
        f"proposed trial {trial.number}: {row['size_bytes']:,} bytes, {row['speedup']:.2f}×, {row['psnr_db']:.2f} dB: "
        + ("keeps the limits" if keeps else "misses the limits; its measurement corrects the model")
    )
