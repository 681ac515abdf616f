"""A predictor's knowledge as a file beside a run, for a machine whose cache has lost it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..spaces.cache import read_arrays
from .kernel_times import KernelTimes
from .predictor import VERSION, Predictor, outcome_arrays, outcomes_of


def write_predictor(predictor: Predictor, path: Path) -> None:
    """Write what a predictor knows, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    tables = (("table", predictor.times.to_arrays()), ("outcomes", outcome_arrays(predictor.outcomes)))
    arrays = {f"{name}-{key}": array for name, table in tables for key, array in table.items()}
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.savez(file, about=np.array([str(VERSION), predictor.target.fingerprint]), **arrays)  # type: ignore[arg-type]
    part.replace(path)


def take_predictor(predictor: Predictor, path: Path, anew: bool = False) -> str | None:
    """Let a predictor that knows nothing yet know what a file holds; return why the file is ignored, None where it is not.

    Args:
        predictor: of the machine and the study.
        path: what `write_predictor` wrote; where there is none, nothing happens.
        anew: take it even where the predictor knows something: what it says is newer.
    """
    if not path.exists():
        return None
    found = read_arrays(path)
    if found is None or "about" not in found:
        return f"the latency predictor in {path} cannot be read and is ignored"
    version, fingerprint = found["about"].tolist()
    if fingerprint != predictor.target.fingerprint:
        return f"the latency predictor in {path} is of another machine and is ignored"
    if version != str(VERSION) or (predictor.times.kernels and not anew):
        return None
    tables = [
        {key.removeprefix(f"{name}-"): array for key, array in found.items() if key.startswith(f"{name}-")}
        for name in ("table", "outcomes")
    ]
    predictor.replace(KernelTimes.from_arrays(tables[0]), outcomes_of(tables[1]))
    return None
