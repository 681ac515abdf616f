"""What runs attain: the best speedup within a drop and a size, as an empirical attainment table of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..texts import number_text

if TYPE_CHECKING:
    import pandas as pd

DROPS_DB = (0.1, 0.3, 0.6, 1.0)
PARTS = (1.0, 0.1)  # of the reference's size


def attained(
    frames: Mapping[str, pd.DataFrame], studies: Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, list[str]]]:
    """Return goals, and what each run attains of them, in words; after them what half and all of the runs of a study attain.

    The last are levels of the empirical attainment function (Grunert da Fonseca, Fonseca and Hall, EMO 2001) at these goals.

    Args:
        frames: of the runs, by name (`frame.as_frame`); each has its reference.
        studies: what the study of each run is called, alike for runs of the same.
    """
    goals = [(drop, part) for part in PARTS for drop in DROPS_DB]
    heads = [f"{drop:g} dB" + ("" if part == 1.0 else f", {part:.0%} of the size") for drop, part in goals]
    found = {name: [best(frame, *goal) for goal in goals] for name, frame in frames.items()}
    rows = {name: [_text(speedup) for speedup in speedups] for name, speedups in found.items()}
    for study, names in _alike(studies or {}).items():
        for words, count in (("half", -(-len(names) // 2)), ("all", len(names))):
            levels = [_by_at_least([found[name][place] for name in names], count) for place in range(len(goals))]
            rows[f"{words} of {len(names)} runs of {study}"] = [_text(level) for level in levels]
    return heads, rows


def _alike(studies: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of the runs of each study that has several."""
    by_study: dict[str, list[str]] = {}
    for name, study in studies.items():
        by_study.setdefault(study, []).append(name)
    return {study: names for study, names in by_study.items() if len(names) > 1}


def _by_at_least(speedups: Sequence[float | None], count: int) -> float | None:
    """Return the highest speedup that at least so many attain; None where fewer attain any."""
    able = sorted((speedup for speedup in speedups if speedup is not None), reverse=True)
    return able[count - 1] if len(able) >= count else None


def best(frame: pd.DataFrame, drop_db: float, part: float) -> float | None:
    """Return the highest measured speedup among candidates that lose at most so many decibels and take at most such a part of
    the reference's bytes; None where there is none."""
    measured = frame[frame["state"] == "measured"]
    reference = float(measured.loc[measured["kind"] == "reference", "size_bytes"].iloc[0])
    able = measured[(measured["drop_db"] <= drop_db) & (measured["size_bytes"] <= part * reference)]
    return None if able.empty else float(np.max(able["speedup"]))


def _text(speedup: float | None) -> str:
    return "–" if speedup is None else f"{number_text(speedup)}×"
