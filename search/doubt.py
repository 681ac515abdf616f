"""Which timings are worth their time: what is surely dominated is not timed, what is in doubt is timed again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..objectives.protocol import Reading
from ..objectives.ratio import spread
from ..studies import front
from ..studies.run import Run
from ..studies.trial import Trial

POSTPONED = "not timed yet: its speed is well predicted; it is timed when it may be on the front"
SURE_ENOUGH = 0.1  # half the interval of a prediction, in parts of it, from which timing can wait
WIDE = 0.025  # standard deviation of a speedup's logarithm from which its timing is repeated
SURE = 0.95  # probability of being on the front, or off it, from which nobody asks again


def hopeless(run: Run, readings: Mapping[str, Reading]) -> str | None:
    """Return why a candidate need not be timed; None where it may reach the front.

    It is hopeless where a member of the front is no larger, no worse, and at its slowest no slower than the candidate at
    the fast end of its predicted interval.

    Args:
        run: with its reference measured.
        readings: of the candidate: size, quality and the predicted speedup.
    """
    needed = ("predicted_speedup", "size_bytes", "psnr_db", "fidelity_db")
    numbers, rows = run.bar
    if any(name not in readings for name in needed) or not numbers:
        return None
    psnr, fidelity = readings["psnr_db"].value, readings["fidelity_db"].value
    drop = front.drop_db(psnr, fidelity, run.reference.value("psnr_db"), run.has_target)
    predicted = readings["predicted_speedup"]
    fastest = 1.0 / (predicted.high or predicted.value)
    own = np.array([readings["size_bytes"].value, drop, fastest])
    dominators = np.flatnonzero((rows <= own).all(axis=1) & (rows != own).any(axis=1))
    if not len(dominators):
        return None
    return (
        f"not timed: even at {1 / fastest:.2f} times the reference's speed, the high end of its prediction, "
        f"trial {numbers[dominators[0]]} is no larger, no worse and no slower"
    )


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
