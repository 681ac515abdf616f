"""Picking: the one candidate of a run that keeps the limits and suits best."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..spaces.errors import InputError, nearest
from .front import nondominated
from .limits import Bound, Limits
from .texts import preference_text
from .trial import Trial

if TYPE_CHECKING:
    from .criteria import Criterion
    from .run import Run

PREFERENCES = ("knee", "size", "latency", "psnr")


def pick(run: Run, limits: Limits, prefer: str = "knee", min_preference: float | None = None) -> Trial:
    """Return the candidate that keeps the limits and is best by ``prefer``.

    Args:
        run: a run with at least its reference measured.
        limits: what it must keep.
        prefer: "size", "latency", "psnr", and a further objective's name take the best of that kind (of equal ones the better in
            the others); "knee" the one nearest to the ideal corner, each objective scaled to its span among those that qualify.
        min_preference: how often people prefer it to the reference at least, 0 to 1 (`preference`); who was not judged does
            not qualify.

    Raises:
        InputError: no such preference, or no candidate keeps the limits; the message says what comes closest.
    """
    check_preference(prefer, run.criteria)
    check_memory(run, limits)
    measured = [trial for trial in run.trials if trial.measured]
    fitting = [trial for trial in measured if run.violation(trial, limits) == 0.0]
    if not fitting:
        raise InputError(f"no measured candidate keeps {limits}; {_closest(run, measured, limits)}")
    if min_preference is not None:
        fitting = _liked(run, fitting, limits, min_preference)
    points = np.array([run.coordinates(trial) for trial in fitting])
    best = {
        criterion.name: [criterion.about.minimised(trial.value(criterion.value)) for trial in fitting]
        for criterion in run.criteria
    }
    best["psnr"] = [-trial.value("psnr_db") for trial in fitting]
    return fitting[preferred(points, best, prefer)]


def _liked(run: Run, fitting: list[Trial], limits: Limits, least: float) -> list[Trial]:
    """Return the trials that people prefer to the reference at least so often."""
    if not 0.0 <= least <= 1.0:
        raise InputError(f"min_preference must be from 0 to 1, but got {least:g}: 0.5 is as good as the reference")
    known = run.preferences()
    judged = [trial for trial in fitting if trial.candidate.key in known]
    liked = [trial for trial in judged if known[trial.candidate.key].value >= least]
    if liked:
        return liked
    if not judged:
        raise InputError(
            f"no candidate that keeps {limits} was judged by people; "
            f"`slimfront board --judge {shlex.quote(str(run.folder))}` asks them"
        )
    best = max(judged, key=lambda trial: known[trial.candidate.key].value)
    closest = known[best.candidate.key]
    raise InputError(
        f"no judged candidate that keeps {limits} is preferred to the reference as often as {least:.0%}; trial {best.number} "
        f"comes closest with {preference_text(closest.value, closest.low, closest.high)}"
    )


def preferred(points: np.ndarray, best: Mapping[str, Sequence[float]], prefer: str) -> int:
    """Return the row of ``points [N, D]``, minimised, that is best by a preference (see `pick`).

    Args:
        points: at least one.
        best: by preference, values of each row, minimised, that a point does not tell: "psnr" (without targets all
            fidelities above 50 dB count as one in a point) and further objectives; the best of them may look dominated.
        prefer: one of `PREFERENCES`, or of ``best``.
    """
    rows = np.flatnonzero(nondominated(points)) if prefer not in best else np.arange(len(points))
    kept = points[rows]
    span = np.ptp(kept, axis=0)
    distance = np.linalg.norm((kept - kept.min(axis=0)) / np.where(span > 0, span, 1.0), axis=1)
    known = {"knee": distance, "size": kept[:, 0], "latency": kept[:, 1]}
    first = known[prefer] if prefer in known else np.array(best[prefer])[rows]
    return int(rows[np.lexsort((distance, first))[0]])


def check_memory(run: Run, limits: Limits) -> None:
    """Raise `InputError` where memory is limited that a run does not know."""
    if limits.max_memory is not None and all(trial.memory is None for trial in run.trials):
        raise InputError(
            f"max_memory cannot be kept: the memory of no candidate of {run.folder} is known; a search measures it where "
            "the study's [constraints] have max_memory, or its [objectives] memory"
        )


def check_preference(prefer: str, criteria: Sequence[Criterion] = ()) -> None:
    """Raise `InputError` where there is no such preference: of `PREFERENCES`, or the name of a further objective."""
    known = (*PREFERENCES, *(criterion.name for criterion in criteria))
    if prefer not in known:
        raise InputError(f"prefer must be one of {', '.join(known)}, but got {prefer!r}{nearest(prefer, known)}")


def choice_notes(run: Run, chosen: Trial) -> list[str]:
    """Return a note where people have judged the choice, or where it is the uncompressed model."""
    judged = run.preferences().get(chosen.candidate.key)
    if chosen.number != run.reference.number and judged is not None:
        return [
            f"people prefer it to the reference in {preference_text(judged.value, judged.low, judged.high)} of the cases"
        ]
    if chosen.number != run.reference.number:
        return []
    return [
        "this is the uncompressed model: nothing compressed that was measured suits better; loosen the limits, or search on"
    ]


def _closest(run: Run, measured: list[Trial], limits: Limits) -> str:
    """Say which candidate comes closest, and how it stands where it fails."""
    if not measured:
        return "the run has no measured candidate yet"
    best = min(measured, key=lambda trial: run.violation(trial, limits))
    shown: dict[str, Callable[[], str]] = {
        "max_size": lambda: f"{best.value('size_bytes'):,.0f} bytes",
        "max_latency": lambda: f"{best.latency_ms:.4g} ms",
        "min_psnr": lambda: f"{best.value('psnr_db'):.2f} dB",
        "max_drop": lambda: f"a drop of {run.drop_db(best):.2f} dB",
        "min_speedup": lambda: f"a speedup of {best.value('speedup'):.2f}",
        "max_memory": lambda: (
            "memory that is not known" if best.memory is None else f"{best.memory.value:,.0f} bytes of memory"
        ),
    }
    broken = [key for key, alone in limits.each().items() if run.violation(best, alone)]
    told = [shown[key]() for key in broken if key in shown]
    told += [_reading_text(best, bound) for bound in limits.bounds if str(bound) in broken]
    return f"trial {best.number} comes closest with {' and '.join(told)}"


def _reading_text(trial: Trial, bound: Bound) -> str:
    value = f"{trial.value(bound.reading):.4g}{f' {bound.unit}' if bound.unit else ''}"
    return f"{bound.title or bound.reading} {value}"
