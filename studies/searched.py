"""How well a run was searched: the hypervolume over its evaluations, how far the model was off, and what is left to gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..spaces.errors import InputError
from . import front
from .document import read_document
from .trial import PROPOSAL, Trial

if TYPE_CHECKING:
    from .run import Run

ACCOUNT_FILE = "searched.json"  # what the search's model says; written by the search
VERSION = 1
AHEAD = 10  # evaluations whose gain is told
EXPECTED_GAIN = "expected_gain"


def searched(run: Run) -> dict[str, Any]:
    """Return how well a run was searched, as plain data.

    Returns:
        ``hypervolumes``: after each trial, by what was measured, within limits or not; ``model_error``: medians over the
        proposals that were measured, of the size's and the speedup's relative error and of the drop's in decibels, and how
        often the 95 % intervals of the last two held; None where none is. What the search's model said at its end
        (`search.account`): ``evaluations``, ``ahead``, ``gain_ahead``, ``random`` and ``uniform``; None where no model was
        made, or where the run has grown since.
    """
    try:
        said = read_document(run.folder / ACCOUNT_FILE, "search", VERSION, "it is made at the end of a search")
    except InputError:  # made from the records, and not needed
        said = {}
    if said.get("evaluations") != len(run.trials):
        said = {}
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
    trials = [trial for trial in run.trials if trial.measured and expected_here(trial)]
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


def expected_here(trial: Trial) -> bool:
    """Whether a model expected something of a trial, in the environment whose timings count."""
    proposal, timing = trial.stages.get(PROPOSAL), trial.stages.get("timing")
    return proposal is not None and (timing is None or proposal["environment"] == timing["environment"])


def _within(trial: Trial, name: str, value: float) -> bool:
    reading = trial.readings[name]
    return reading.low is not None and reading.high is not None and reading.low <= value <= reading.high
