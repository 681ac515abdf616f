"""python studies/benchmarks/saved_time.py --zoo ../shared/zoo [rlfn_s_x2] [--trials 200] [--seed 0]

What does the latency predictor save? Searches a model twice with the same seed: once every candidate is timed, once only what
may be on the front. Prints, as a Markdown table: how many trials were timed, the seconds that this took (calibration of the
predictor is told apart; it is done once for a machine and a model), the hypervolume and the whole search's minutes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from searches import folder_of_runs, run_of, search_parser
from zoo import Model, load

from slimfront.objectives.predictor import Predictor
from slimfront.search import preparation
from slimfront.spaces.errors import BuildError
from slimfront.studies.records import read_records
from slimfront.studies.run import Run
from slimfront.studies.run_folder import RECORDS_FILE


def main() -> None:
    """Search and print the table."""
    flags = search_parser(__doc__ or "", ["rlfn_s_x2"], trials=200)
    flags.add_argument("--seed", type=int, default=0)
    arguments = flags.parse_args()
    print("| model | search | timed | seconds of timing | calibration | hypervolume | minutes |")
    print("|---|---|---|---|---|---|---|")
    with folder_of_runs(arguments.runs) as folder:
        for name in arguments.models:
            model = load(arguments.zoo, name)
            for predicting in (True, False):
                label = "with the predictor" if predicting else "every trial timed"
                cells = searched(
                    model, name, arguments.seed, arguments.trials, folder / f"{name}-{predicting}", predicting
                )
                print(f"| {name} | {label} | {cells} |", flush=True)


def searched(model: Model, name: str, seed: int, trials: int, folder: Path, predicting: bool) -> str:
    """Search and return a row's cells; a predictor knows nothing when it starts."""
    calibrating: list[float] = []
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, SLIMFRONT_CACHE=cache), measured(calibrating):
        begun = time.monotonic()
        if predicting:
            run = run_of(model, name, seed, trials, folder, {})
        else:
            with patch.object(Predictor, "kernels", side_effect=BuildError("predicts nothing")):
                run = run_of(model, name, seed, trials, folder, {})
        minutes = (time.monotonic() - begun) / 60
    return (
        f"{sum(trial.measured for trial in run.trials)} of {len(run.trials)} | {timing_seconds(run):.0f} | "
        f"{sum(calibrating):.0f} | {run.hypervolume():.4f} | {minutes:.1f}"
    )


@contextmanager
def measured(seconds: list[float]) -> Iterator[None]:
    """Note the seconds of each calibration."""
    real = preparation.calibrate

    def timed(*arguments: object) -> int:
        begun = time.monotonic()
        try:
            return real(*arguments)  # type: ignore[arg-type]
        finally:
            seconds.append(time.monotonic() - begun)

    with patch.object(preparation, "calibrate", timed):
        yield


def timing_seconds(run: Run) -> float:
    """Return the seconds that all timings of a run took."""
    return sum(record.seconds for record in read_records(run.folder / RECORDS_FILE) if record.stage == "timing")


if __name__ == "__main__":
    main()
