"""How well a run was searched: the hypervolume over its evaluations, how far the model was off, and what is left to gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import front
from .document import read_document
from .trial import Trial

if TYPE_CHECKING:
    from .run import Run

ACCOUNT_FILE = "searched.json"  # what the search's model says; written by the search
VERSION = 1
EXPECTED_GAIN = "expected_gain"


def searched(run: Run) -> dict[str, Any]:
    """Return how well a run was searched, as plain data.

    Returns:
        ``hypervolumes``: after each trial, by what was measured; ``model_error``: medians over the proposals that were
        measured, of the size's and the speedup's relative error and of the drop's in decibels, and how often the 95 %
        intervals of the last two held; None where none is. What the search's model said at its end (`search.account`):
        ``evaluations``, ``ahead``, ``gain_ahead``, ``random`` and ``uniform``; None where no model was made.
    """
    path = run.folder / ACCOUNT_FILE
    said = read_document(path, "search", VERSION, f"there is no {path}") if path.exists() else {}
    keys = ("evaluations", "ahead", "gain_ahead", "random", "uniform")
    return {
        "hypervolumes": hypervolumes(run),
        "model_error": model_error(run),
        **{key: said.get(key) for key in keys},
    }


def hypervolumes(run: Run) -> list[float]:
    """Return the hypervolume of the measured trials among the first, after each trial."""
    found, points = [0.0], np.zeros((0, 3))
    for trial in run.trials:
        if not trial.measured:
            found.append(found[-1])
            continue
        points = np.vstack([points, run.point(trial)])
        points = points[front.nondominated(points)]
        found.append(front.hypervolume(points))
    return found[1:]


def model_error(run: Run) -> dict[str, Any] | None:
    """Return how far what the sampler's model expected was off, over the proposals that were measured."""
    trials = [trial for trial in run.trials if trial.measured and "expected_speedup" in trial.readings]
    if not trials:
        return None
    size = [trial.value("expected_size_bytes") / trial.value("size_bytes") - 1.0 for trial in trials]
    speedup = [trial.value("expected_speedup") / trial.value("speedup") - 1.0 for trial in trials]
    drop = [trial.value("expected_drop_db") - run.drop_db(trial) for trial in trials]
    return {
        "proposals": len(trials),
        "size": float(np.median(np.abs(size))),
        "speedup": float(np.median(np.abs(speedup))),
        "drop_db": float(np.median(np.abs(drop))),
        "speedup_within": float(
            np.mean([_within(trial, "expected_speedup", trial.value("speedup")) for trial in trials])
        ),
        "drop_within": float(np.mean([_within(trial, "expected_drop_db", run.drop_db(trial)) for trial in trials])),
    }


def _within(trial: Trial, name: str, value: float) -> bool:
    reading = trial.readings[name]
    return reading.low is not None and reading.high is not None and reading.low <= value <= reading.high
