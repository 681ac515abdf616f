"""What is worth its time: what is surely dominated goes no further, what is in doubt is timed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..objectives.protocol import Reading
from ..objectives.ratio import spread
from ..studies import front
from ..studies.criteria import Criterion, compared, coordinates
from ..studies.run import Run
from ..studies.trial import Trial

POSTPONED = "not timed yet: its speed is well predicted; it is timed when it may be on the front"
SURE_ENOUGH = 0.1  # half the interval of a prediction, in parts of it, from which timing can wait
WIDE = 0.025  # standard deviation of a speedup's logarithm from which its timing is repeated
SURE = 0.95  # probability of being on the front, or off it, from which nobody asks again


@dataclass(frozen=True, eq=False)
class Bar:
    """What a candidate has to beat to reach the front; of a run's, but small enough to be sent.

    Attributes:
        numbers: the trials of the front.
        rows: their sizes, drops, slowest times and further objectives ``[F, 3 + K]``.
        best_db: PSNR of the reference.
        has_target: whether the evaluation data has targets.
        criteria: the further objectives that dominance compares.
        best: what the reference has of their readings.
    """

    numbers: Sequence[int]
    rows: NDArray[np.float64]
    best_db: float
    has_target: bool
    criteria: Sequence[Criterion] = ()
    best: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Bar | None:
        """Return a run's bar; None where nothing is measured yet."""
        numbers, rows = run.bar
        if not numbers:
            return None
        return cls(numbers, rows, run.reference.value("psnr_db"), run.has_target, compared(run.criteria), run.best)

    def dominator(self, readings: Mapping[str, Reading]) -> int | None:
        """Return a trial that is no larger, no worse, and at its slowest no slower than a candidate at its best.

        None as well where a further objective that is compared was not measured yet: in that it may be the best.

        Args:
            readings: size, quality, predicted speedup and further objectives; the high ends of intervals count.
        """
        values = [criterion.value for criterion in self.criteria]
        needed = ("predicted_speedup", "size_bytes", "psnr_db", "fidelity_db", *values)
        if any(name not in readings for name in needed):
            return None
        speedup, psnr, fidelity = (_highest(readings[name]) for name in ("predicted_speedup", "psnr_db", "fidelity_db"))
        drop = front.drop_db(psnr, fidelity, self.best_db, self.has_target)
        further = coordinates(self.criteria, readings, self.best)
        own = np.array([readings["size_bytes"].value, drop, 1.0 / speedup, *further])
        found = np.flatnonzero((self.rows <= own).all(axis=1) & (self.rows != own).any(axis=1))
        return self.numbers[found[0]] if len(found) else None


def hopeless(run: Run, readings: Mapping[str, Reading]) -> str | None:
    """Return why a candidate need not be timed: a member of the front surely dominates it; None where it may reach the front.

    Args:
        run: with its reference measured.
        readings: of the candidate: size, quality and the predicted speedup.
    """
    bar = Bar.of(run)
    dominator = None if bar is None else bar.dominator(readings)
    if dominator is None:
        return None
    return (
        f"not timed: even at {_highest(readings['predicted_speedup']):.2f} times the reference's speed, the high end of its "
        f"prediction, trial {dominator} is no larger, no worse and no slower"
    )


def _highest(reading: Reading) -> float:
    return reading.high or reading.value


def sure_enough(readings: Mapping[str, Reading]) -> bool:
    """Whether a candidate's speed is predicted well enough for its timing to wait."""
    found = readings.get("predicted_speedup")
    if found is None or found.low is None or found.high is None:
        return False
    return found.high - found.low < 2 * SURE_ENOUGH * found.value


def doubtful(run: Run) -> list[Trial]:
    """Return the members of the front to be timed again, the most urgent first.

    Those whose timing was disturbed, by the width of their intervals; then those of which it is not sure that they belong
    there, the least sure first.
    """
    sure = run.probabilities()
    front = run.front_trials()
    disturbed = sorted((t for t in front if spread(t.speedup) > WIDE), key=lambda trial: -spread(trial.speedup))
    unsure = [t for t in front if t not in disturbed and 1 - SURE < sure[t.number] < SURE]
    return [*disturbed, *sorted(unsure, key=lambda trial: (abs(sure[trial.number] - 0.5), trial.timings))]
