"""The neighbours of a candidate on the front: what a step towards each objective would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .texts import number_text, size_text

if TYPE_CHECKING:
    from .run import Run
    from .trial import Trial

STEP_DB = 1.0
LEAST, LEAST_DB = 0.01, 0.05  # by how much smaller, faster or better another is at least


@dataclass(frozen=True)
class Neighbour:
    """A member of the front beside a candidate.

    Attributes:
        title: what it is the next for.
        trial: it.
        gains, costs: in words, what it has more than the candidate, and what it has less.
    """

    title: str
    trial: Trial
    gains: str
    costs: str


def neighbours(run: Run, trial: Trial) -> list[Neighbour]:
    """Return, as far as they are there, the next smaller, the next faster and the next better one, and one a decibel better."""
    itself = (
        () if run.has_target else (run.reference.number,)
    )  # without targets it is as good as itself, whatever that is
    others = [other for other in run.front_trials() if other.number not in (trial.number, *itself)]
    better = [other for other in others if _quality(other) >= _quality(trial) + STEP_DB]
    chosen = [
        ("next smaller", _next(others, lambda other: -_size(other), -(1.0 - LEAST) * _size(trial))),
        ("next faster", _next(others, _speed, (1.0 + LEAST) * _speed(trial))),
        ("next better", _next(others, _quality, _quality(trial) + LEAST_DB)),
        (f"{STEP_DB:g} dB better", min(better, key=lambda other: _cost(trial, other), default=None)),
    ]
    titles: dict[int, list[str]] = {}
    for title, other in chosen:
        if other is not None:
            titles.setdefault(other.number, []).append(title)
    found = {other.number: other for _, other in chosen if other is not None}
    return [
        Neighbour(", ".join(named), found[number], *_words(trial, found[number])) for number, named in titles.items()
    ]


def _next(others: Sequence[Trial], measure: Callable[[Trial], float], now: float) -> Trial | None:
    """Return the one whose measure is the least above what it is now; None where none is above."""
    return min((other for other in others if measure(other) > now), key=measure, default=None)


def _size(trial: Trial) -> float:
    return trial.value("size_bytes")


def _speed(trial: Trial) -> float:
    return trial.speedup.value


def _quality(trial: Trial) -> float:
    return trial.value("psnr_db")


def _cost(trial: Trial, other: Trial) -> float:
    """Return how much larger and slower another is, as the product of both ratios where they cost something."""
    return max(_size(other) / _size(trial), 1.0) * max(_speed(trial) / _speed(other), 1.0)


def _words(trial: Trial, other: Trial) -> tuple[str, str]:
    """Return what another candidate has more, and what it has less."""
    bytes_ = _size(other) - _size(trial)
    times = _speed(other) / _speed(trial)
    better = _quality(other) - _quality(trial)
    gains: list[str] = []
    costs: list[str] = []
    if bytes_:
        (gains if bytes_ < 0 else costs).append(f"{size_text(abs(bytes_))} {'smaller' if bytes_ < 0 else 'larger'}")
    if abs(times - 1.0) >= LEAST / 2:
        (gains if times > 1 else costs).append(
            f"{number_text(max(times, 1 / times))}× {'faster' if times > 1 else 'slower'}"
        )
    if abs(better) >= 0.005:
        (gains if better > 0 else costs).append(f"{number_text(abs(better))} dB {'better' if better > 0 else 'worse'}")
    return ", ".join(gains) or "nothing", ", ".join(costs) or "nothing"
