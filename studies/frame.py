"""The frame that figures draw: one row a candidate of a run, with what is known of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..spaces.candidate import REFERENCE
from .criteria import readings_of
from .figures import COLUMNS, SYMBOLS

if TYPE_CHECKING:
    import pandas as pd

    from .run import Run
    from .trial import Trial

#: Beside `figures.COLUMNS`: what the board shows and filters by.
MORE = ("state", "latency_ms", "drop_db", "fidelity_db", "ssim", "worst_psnr_db", "base", "feasible")


def run_frame(run: Run) -> pd.DataFrame:
    """Return the frame that `figures` draws: one row a measured candidate.

    Where there are no targets the reference's PSNR is against itself, hence no number.
    """
    rows = (trial_row(run, trial) for trial in run.trials if trial.measured)
    return as_frame(rows, readings_of(run.criteria)).assign(on_front=_on_front(run))


def as_frame(rows: Iterable[dict[str, Any]], more: Iterable[str] = ()) -> pd.DataFrame:
    """Return rows of `trial_row`, which may have more columns, as a frame; missing numbers are NaN."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=[*COLUMNS, *MORE, *more])
    return frame.astype({"on_front": bool, "trial": int, "feasible": bool})


def _on_front(run: Run) -> Any:
    front = {trial.number for trial in run.front_trials()}
    return lambda frame: frame["trial"].isin(front)


def trial_row(run: Run, trial: Trial) -> dict[str, Any]:
    """Return the row of a trial whose size, quality and speed are known, the speed by prediction where it was not timed.

    ``drop_db`` is below 0 where it is better than the reference, ``feasible`` tells whether it keeps the study's limits;
    ``on_front`` is False.
    """
    kind, speedup = kind_of(trial), trial.speedup
    itself = kind == "reference" and not run.has_target
    return {
        "trial": trial.number,
        "kind": kind,
        "label": trial.label,
        "on_front": False,
        "size_bytes": trial.value("size_bytes"),
        "speedup": speedup.value,
        "speedup_low": _number(speedup.low),
        "speedup_high": _number(speedup.high),
        "psnr_db": math.nan if itself else trial.value("psnr_db"),
        "state": trial.state,
        "latency_ms": trial.latency_ms,
        "drop_db": run.signed_drop_db(trial),
        "fidelity_db": trial.value("fidelity_db"),
        "ssim": _reading(trial, "ssim"),
        "worst_psnr_db": _reading(trial, "worst_psnr_db"),
        "base": trial.candidate.base,
        "feasible": run.violation(trial) == 0.0,
        **{
            name: math.nan if itself and about.unit == "dB" else _reading(trial, name)
            for name, about in readings_of(run.criteria).items()
        },
    }


def kind_of(trial: Trial) -> str:
    """Return how a trial is marked: of `figures.SYMBOLS`."""
    if trial.candidate.base != REFERENCE:
        return "student"
    kind = trial.label.split(" ")[0] if trial.label else "search"
    return kind if kind in SYMBOLS else "search"


def _reading(trial: Trial, name: str) -> float:
    return trial.value(name) if name in trial.readings else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value
