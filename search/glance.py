"""What a few images tell of all: a candidate that is surely dominated by what they show is not judged any further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..objectives.protocol import Reading
from ..spaces.candidate import Candidate
from ..studies.run import Run
from ..studies.trial import GLANCE, Trial
from .doubt import Bar

READ = {"psnr_db": "glance_psnr_db", "fidelity_db": "glance_fidelity_db"}  # of all images, and of the first
LEAST = 12  # candidates that were judged on all images, before the first few are relied on
REMEMBERED = 200  # the latest of them
SURE = 0.9995  # probability that a candidate is no better than it is taken for
LEAST_ERROR_DB = 0.02  # standard deviation of what all images add to the first


@dataclass(frozen=True)
class Line:
    """A straight line through readings, and how far others lie from it.

    Attributes:
        slope: of the line.
        centre: mean of the readings that it was drawn through, and of what they stand for.
        spread: sum of the squares of the former's distances from their mean.
        error: standard deviation of the latter around the line.
        count: how many there were.
    """

    slope: float
    centre: tuple[float, float]
    spread: float
    error: float
    count: int

    @classmethod
    def through(cls, pairs: Sequence[tuple[float, float]]) -> Line:
        """Draw the line of least squares through at least three pairs."""
        seen, whole = np.array(pairs).T
        x, y = seen - seen.mean(), whole - whole.mean()
        spread = float(x @ x)
        slope = float(x @ y) / spread if spread else 1.0
        error = float(np.sqrt(((y - slope * x) ** 2).sum() / (len(pairs) - 2)))
        return cls(slope, (float(seen.mean()), float(whole.mean())), spread, max(error, LEAST_ERROR_DB), len(pairs))

    def at(self, seen: float) -> tuple[float, float]:
        """Return what a reading probably stands for, and by how much that is surely not exceeded.

        The one-sided prediction interval of simple linear regression (e.g. Draper and Smith, Applied Regression Analysis).
        """
        from scipy.stats import t

        away = seen - self.centre[0]
        width = self.error * (1.0 + 1.0 / self.count + (away**2 / self.spread if self.spread else 0.0)) ** 0.5
        return self.centre[1] + self.slope * away, float(t.ppf(SURE, self.count - 2)) * width


@dataclass(frozen=True, eq=False)
class Look:
    """What a worker has to know to see that a candidate is hopeless.

    Attributes:
        bar: what has to be beaten.
        lines: by name of a reading of all images, what the first few tell of it.
    """

    bar: Bar
    lines: Mapping[str, Line]

    def hopeless(self, readings: Mapping[str, Reading]) -> tuple[dict[str, Reading], str] | None:
        """Return a candidate's quality as estimated, and why it need not be judged on all images; None where it must be.

        Args:
            readings: of the candidate: size, predicted speedup and the glance.
        """
        if any(name not in readings for name in READ.values()):
            return None
        estimated = {}
        for name, line in self.lines.items():
            seen = readings[READ[name]]
            value, more = line.at(seen.value)
            how = f"estimated from the {seen.how.removeprefix('mean of the ')}"
            estimated[name] = Reading(value, "dB", value - more, value + more, how)
        dominator = self.bar.dominator({**readings, **estimated})
        if dominator is None:
            return None
        return estimated, (
            f"not judged on all images: at best, by the first few and by its predicted speedup, trial {dominator} is still no "
            "larger, no worse and no slower"
        )


class Glances:
    """Learns from the candidates of a run that were judged on all images what the first few tell."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._pairs: dict[int, dict[str, tuple[float, float]]] = {}  # by trial
        self._lines: dict[str, Line] = {}
        for trial in run.all_trials:
            self.take(trial)

    def take(self, trial: Trial) -> None:
        """Learn from a trial that was judged, where it was glanced at before."""
        if not trial.judged or GLANCE not in trial.stages or trial.candidate == Candidate():
            return
        self._pairs[trial.number] = {name: (trial.value(seen), trial.value(name)) for name, seen in READ.items()}
        if len(self._pairs) > REMEMBERED:
            del self._pairs[next(iter(self._pairs))]
        self._lines = {}

    @property
    def look(self) -> Look | None:
        """What workers are told; None where too little is known yet."""
        bar = Bar.of(self.run)
        if bar is None or len(self._pairs) < LEAST:
            return None
        self._lines = self._lines or {
            name: Line.through([pairs[name] for pairs in self._pairs.values()]) for name in READ
        }
        return Look(bar, self._lines)
