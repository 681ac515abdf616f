"""What runs attain: the best speedup within a drop and a size, as an empirical attainment table of several runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..texts import number_text

if TYPE_CHECKING:
    import pandas as pd

DROPS_DB = (0.1, 0.3, 0.6, 1.0)
PARTS = (1.0, 0.1)  # of the reference's size


def attained(frames: Mapping[str, pd.DataFrame]) -> tuple[list[str], dict[str, list[str]]]:
    """Return goals, and what each run attains of them, in words.

    Args:
        frames: of the runs, by name (`frame.as_frame`); each has its reference.
    """
    goals = [(drop, part) for part in PARTS for drop in DROPS_DB]
    heads = [f"{drop:g} dB" + ("" if part == 1.0 else f", {part:.0%} of the size") for drop, part in goals]
    return heads, {name: [_text(best(frame, *goal)) for goal in goals] for name, frame in frames.items()}


def best(frame: pd.DataFrame, drop_db: float, part: float) -> float | None:
    """Return the highest measured speedup among candidates that lose at most so many decibels and take at most such a part of
    the reference's bytes; None where there is none."""
    measured = frame[frame["state"] == "measured"]
    reference = float(measured.loc[measured["kind"] == "reference", "size_bytes"].iloc[0])
    able = measured[(measured["drop_db"] <= drop_db) & (measured["size_bytes"] <= part * reference)]
    return None if able.empty else float(np.max(able["speedup"]))


def _text(speedup: float | None) -> str:
    return "–" if speedup is None else f"{number_text(speedup)}×"
