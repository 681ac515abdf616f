"""A run's model solved again for a budget: the candidate that it finds best is evaluated and added to the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..objectives.predictor import Predictor
from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError, InputError
from ..spaces.statistics import Progress
from ..studies.criteria import bounds_of
from ..studies.front import full_drop_db
from ..studies.limits import Limits, given_limits
from ..studies.pick import check_memory, check_preference, pick, preferred
from ..studies.records import FAILED
from ..studies.run import Run
from ..studies.trial import Trial
from .account import Watch, expected
from .addition import Addition, adding_to
from .frontier import Frontier
from .keeping import LIKELY, Keeping
from .proposers import Observation
from .recorded import Proposal
from .solve import Solved, refine
from .task import history_of, limits_of, tasks_of

Floats = NDArray[np.float64]

PROPOSALS = 4  # evaluated at most: one that misses its budget teaches the model, which then aims better
RATED = 20  # candidates whose speed is predicted kernel by kernel
SWEEPS = 1000
BETTER = 0.002  # by which a proposal has to look better than what is measured, in parts of an objective's span
BROKEN = 1e9  # more than any score of a candidate that keeps the limits
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
    min: Mapping[str, float] | None = None,
    max: Mapping[str, float] | None = None,
    max_memory: str | float | None = None,
) -> tuple[Trial, list[str]]:
    """Return the candidate that keeps the limits and suits best, of those measured and of all others.

    What the run's model finds best is evaluated and added to the run, until one keeps the limits, or until the model finds
    nothing that is better than what is measured.

    Args:
        run: with its reference measured; the study that it was made of has to be there.
        max_size, max_latency, min_psnr, max_drop, min_speedup, prefer: as for `Run.pick`; the model tells size, time and drop
            alone, so that no further objective can be preferred.
        progress: told what is being done, and the part of it that is done.
        min, max: as for `Run.pick`; what was measured tells which candidates will probably keep them.
        max_memory: as for `Run.pick`; only where the run knows of memory.

    Returns:
        The trial, and notes: a line for each candidate that was evaluated, or why none was.

    Raises:
        InputError: a limit that cannot be read, the study is not there any more, the run was timed in another environment,
            another process writes to it, it has too few candidates to learn from, or none keeps the limits, proposed
            ones included.
    """
    check_preference(prefer)
    bounds = bounds_of(run.criteria, min, max)
    limits = given_limits(max_size, max_latency, min_psnr, max_drop, min_speedup, max_memory, bounds)
    wanted = limits.over(run.limits)
    check_memory(run, wanted)
    with adding_to(run) as addition:
        _propose(addition, wanted, prefer, progress)
    try:
        return pick(addition.recorded.run, wanted, prefer), addition.notes
    except InputError as error:
        raise InputError("; ".join([str(error), *addition.notes])) from None


def _propose(addition: Addition, wanted: Limits, prefer: str, progress: Progress | None) -> None:
    """Evaluate what the model finds best, one after another; note each, or why there is none."""
    study, recorded = addition.study, addition.recorded
    study.prepare_spaces(progress)
    frontier = Frontier(*tasks_of(study, recorded.run, "frontier", study.settings.search.seed, progress))
    for number in range(PROPOSALS):
        if progress is not None:
            progress("solving the model, evaluating what it finds", number / PROPOSALS)
        history = history_of(recorded.run)
        solved = frontier.solve(history, SWEEPS, whole=True)
        if solved is None:
            raise InputError(f"{recorded.folder} has too few measured candidates to learn from; search on")
        candidate = best_unmeasured(frontier, solved, recorded.run, history, wanted, prefer, study.predictor)
        if candidate is None:
            addition.notes.append("the run's model finds nothing new that is in reach and better than what is measured")
            break
        told = expected(recorded.run, frontier, solved, history, candidate)
        trial = addition.evaluated(Proposal(candidate, expected=told))
        keeps = trial.measured and recorded.run.violation(trial, wanted) == 0.0
        addition.notes.append(_told(trial, keeps))
        if keeps:
            break
    Watch(frontier).write_account(recorded.run)


def best_unmeasured(
    frontier: Frontier,
    solved: Solved,
    run: Run,
    history: Sequence[Observation],
    limits: Limits,
    prefer: str,
    predictor: Predictor,
) -> Candidate | None:
    """Return the new candidate that the model finds best; None where what is measured is as good, or nothing is in reach.

    Args:
        frontier: of the run's study.
        solved: its model of what was measured, solved.
        run: what was measured.
        history: the same, as a proposer is told of it.
        limits: what the candidate must keep.
        prefer: as for `Run.pick`.
        predictor: tells speeds kernel by kernel, where it is calibrated.
    """
    most = np.array(limits_of(run, limits))
    keeping = _keeping(run, limits)
    aim = _aim(prefer, most, solved.centre, keeping)
    random = np.random.default_rng([frontier.task.seed, len(history)])
    found = refine(solved, frontier.grid.lengths, aim, random)
    found = found[frontier.unmeasured(found, history)][:RATED]
    if not len(found):
        return None
    candidates = [frontier.grid.decode(vector) for vector in found]
    points = solved.costs.predict(found)
    if predictor.calibrated:
        points[:, 1] = [_time(predictor, *pair) for pair in zip(candidates, points[:, 1].tolist(), strict=True)]
    scores = aim(points)
    order = np.argsort(scores, kind="stable")
    if (points[order[0]] - 2.0 * solved.costs.spread(found[order[:1]])[0] > most).any():
        return None  # out of reach
    kept = [run.point(trial) for trial in run.trials if trial.measured and run.violation(trial, limits) == 0.0]
    if not kept or scores[order[0]] >= BROKEN:
        return candidates[order[0]] if not kept else None
    within = order[scores[order] < BROKEN]
    together = np.concatenate([np.array(kept), points[within] + BETTER * np.ptp(solved.centre, axis=0)])
    quality = -together[:, 2] * full_drop_db(run.has_target)
    best = preferred(together, {"psnr": (-quality).tolist()}, prefer) - len(kept)
    return candidates[within[best]] if best >= 0 else None


def _keeping(run: Run, limits: Limits) -> Keeping:
    """Return what a run tells of keeping limits that lie on none of the objectives."""
    trials = [trial for trial in run.trials if trial.state != FAILED]
    return Keeping([run.point(trial) for trial in trials], [run.excesses(trial, limits) for trial in trials])


def _aim(prefer: str, most: Floats, centre: Floats, keeping: Keeping) -> Callable[[Floats], Floats]:
    """Return what a search on the model is to make least, of points ``[M, 3]``: those that keep the limits come first.

    Args:
        prefer: as for `Run.pick`.
        most: the largest point that keeps the limits.
        centre: points of the front, which tell the span of each objective ``[P, 3]``.
        keeping: tells how likely limits are kept that lie on none of the objectives.
    """
    fitting = centre[(centre <= most).all(axis=1) & (keeping.chance(centre) >= LIKELY)]
    fitting = fitting if len(fitting) else centre
    low, span = fitting.min(axis=0), np.ptp(fitting, axis=0)
    place = {"size": 0, "latency": 1, "psnr": 2}

    def aim(points: Floats) -> Floats:
        log_chance = keeping.log_chance(points)
        excess = np.maximum(points - most, 0.0).sum(axis=1) + np.maximum(np.log(LIKELY) - log_chance, 0.0)
        scaled = (points - low) / np.where(span > 0.0, span, 1.0)
        distance = np.linalg.norm(np.maximum(scaled, 0.0), axis=1)
        score = distance if prefer == "knee" else scaled[:, place[prefer]] + TIE * distance
        return np.asarray(np.where(excess > 0.0, BROKEN * (1.0 + excess), np.minimum(score, 0.5 * BROKEN)))

    return aim


def _time(predictor: Predictor, candidate: Candidate, otherwise: float) -> float:
    try:
        return 1.0 / predictor.predict(candidate).speedup
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
