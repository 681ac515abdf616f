"""What the scripts that search the zoo's models share: their arguments, the folder of their runs, and the search itself."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo import Model, parser

from slimfront.search.loop import search
from slimfront.studies.run import Run
from slimfront.studies.study import Study


def search_parser(script: str, models: Sequence[str], trials: int) -> argparse.ArgumentParser:
    """Return the arguments that scripts which search share, for a script's own to be added.

    Args:
        script, models: as for `zoo.parser`.
        trials: of each search, where none are given.
    """
    flags = parser(script, models)
    flags.add_argument("--trials", type=int, default=trials)
    flags.add_argument("--runs", type=Path, default=None, help="keep the runs here; what is there continues")
    return flags


@contextmanager
def folder_of_runs(runs: Path | None) -> Iterator[Path]:
    """Give the folder that was asked for, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        yield runs or Path(temporary)


def run_of(model: Model, name: str, seed: int, trials: int, folder: Path, options: Mapping[str, Any]) -> Run:
    """Search one space with one seed."""
    return search(study_of(model, name, seed, options), trials=trials, run_dir=folder)


def study_of(model: Model, name: str, seed: int, options: Mapping[str, Any], targets: bool = False) -> Study:
    """Return the study of a zoo's model.

    Args:
        model, name, seed: of the study.
        options: for `Study`, such as keys of its space, which is the default one without them.
        targets: whether its calibration data has its targets, where there are some.
    """
    samples, inputs = (next(iter(arrays.values())) for arrays in (model.calibration, model.inputs))
    learned = model.calibration_target if targets else None
    calibration = samples if learned is None else (samples, learned)
    evaluation = (inputs, model.target) if model.has_target else inputs
    bounds = (model.low, model.high)
    return Study(model.path, calibration, evaluation, name=name, range=bounds, seed=seed, **options)
