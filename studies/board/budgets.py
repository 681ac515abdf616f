"""Budgets of the board: what may be spent, on sliders in the user's units; which candidates keep them is for `limits` to say."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...spaces.errors import InputError
from ..limits import Bound, Limits
from ..texts import number_text, reading_text, size_text, time_text

if TYPE_CHECKING:
    import pandas as pd

    from ..criteria import Criterion

END = 100  # of a slider, from 0
DIGITS = 3  # of a limit's value, so that a round one is told and kept


@dataclass(frozen=True)
class Budget:
    """A limit on a slider.

    Attributes:
        key: of `Limits`; of a further objective "min_" or "max_" with the name of its reading.
        name: what it is called.
        low, high: the values at its ends.
        free: the position that is no limit: 0 or `END`.
        reading: of a further objective; empty where the limit is one of size, time or quality.
        unit: of the reading.
    """

    key: str
    name: str
    low: float
    high: float
    free: int
    reading: str = ""
    unit: str = ""

    def value(self, position: float) -> float | None:
        """Return the limit at a position, evenly spaced by ratios where values are ratios; None where there is none."""
        if position == self.free or not self.high > self.low:
            return None
        part = position / END
        even = self.low + part * (self.high - self.low)
        exact = even if self.key == "max_drop" or self.reading else self.low * (self.high / self.low) ** part
        return _round(exact, up=self.key.startswith("max"))

    def text(self, position: float) -> str:
        """Return the limit in words."""
        value = self.value(position)
        if value is None:
            return "any"
        if self.reading:
            return f"at {'most' if self.key.startswith('max') else 'least'} {reading_text(value, self.unit)}"
        shown = {
            "max_size": lambda: f"at most {size_text(value)}",
            "max_latency": lambda: f"at most {time_text(value)}",
            "min_speedup": lambda: f"at least {number_text(value)}×",
            "max_drop": lambda: f"at most {number_text(value)} dB",
        }
        return shown[self.key]()


def _round(value: float, up: bool) -> float:
    """Return a value to `DIGITS` digits, moved so that it allows no less."""
    if value <= 0.0:
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - DIGITS + 1)
    parts = value / step
    return float(f"{(math.ceil(parts - 1e-9) if up else math.floor(parts + 1e-9)) * step:.{DIGITS}g}")


def limits_at(spent: Sequence[Budget], placed: Mapping[str, float]) -> Limits:
    """Return the limits of budgets at positions, by their keys."""
    values = {budget.key: budget.value(placed[budget.key]) for budget in spent}
    given: dict[str, Any] = {budget.key: values[budget.key] for budget in spent if not budget.reading}
    bounds = tuple(
        Bound(budget.reading, budget.key[:3], limit, budget.unit)
        for budget in spent
        if budget.reading and (limit := values[budget.key]) is not None
    )
    return Limits(**given, bounds=bounds)


def budgets(frame: pd.DataFrame, has_target: bool, criteria: Sequence[Criterion] = ()) -> Sequence[Budget]:
    """Return the budgets for the candidates of a frame (`frame.as_frame`), those of further objectives among them."""
    drop = "Below the reference" if has_target else "Below a fidelity of 50 dB"
    return [
        Budget("max_size", "Size", *_span(frame["size_bytes"]), END),
        Budget("max_latency", "Latency", *_span(frame["latency_ms"]), END),
        Budget("min_speedup", "Speedup", *_span(frame["speedup"]), 0),
        Budget("max_drop", drop, 0.0, max(float(np.nanmax([*frame["drop_db"], 0.0])), 0.0), END),
        *(_further_budget(frame, criterion) for criterion in criteria),
    ]


def _further_budget(frame: pd.DataFrame, criterion: Criterion) -> Budget:
    about, name = criterion.about, criterion.value
    values = frame[name][np.isfinite(frame[name])]
    ends = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    kind, free = ("min", 0) if about.maximise else ("max", END)
    title = about.title[:1].upper() + about.title[1:]
    return Budget(f"{kind}_{name}", title, *ends, free, name, about.unit)


def _span(values: pd.Series) -> tuple[float, float]:
    known = values[np.isfinite(values) & (values > 0)]
    return (math.floor(float(known.min()) * 1e6) / 1e6, float(known.max())) if len(known) else (0.0, 0.0)


def fitting(frame: pd.DataFrame, limits: Limits, ranges: Mapping[str, Sequence[Sequence[float]]]) -> NDArray[np.bool_]:
    """Return a mask ``[N]`` of the rows that keep limits, those of the study included, and lie in a range of each column.

    Args:
        frame: `frame.as_frame`.
        limits: beside the study's.
        ranges: of columns, each a list of (low, high).
    """
    columns = ("size_bytes", "latency_ms", "psnr_db", "speedup")
    values = {name: frame[name].to_numpy(float) for name in columns}
    kept = frame["feasible"].to_numpy(bool, copy=True)
    drop_db = np.maximum(frame["drop_db"].to_numpy(float), 0.0)
    readings = {bound.reading: frame[bound.reading].to_numpy(float) for bound in limits.bounds}
    kept &= limits.kept(**values, drop_db=drop_db, readings=readings)
    for name, allowed in ranges.items():
        column = frame[name].to_numpy(float)
        kept &= np.logical_or.reduce([(low <= column) & (column <= high) for low, high in allowed])
    return kept


def answer(frame: pd.DataFrame, question: Mapping[str, str]) -> dict[str, Any]:
    """Return what a page asks of its budgets.

    Args:
        frame: `frame.as_frame`.
        question: ``budgets``, a list of `Budget` as the page was made with, so that a position goes on to mean what it meant;
            the position of each by its key; and ``ranges``, as of `fitting`. Lists and tables are JSON.

    Returns:
        Plain data: ``bits`` (`bits`), ``texts`` (each limit in words, by key) and ``left`` (what is left, in words).

    Raises:
        InputError: it is no such question.
    """
    try:
        spent = [Budget(**one) for one in json.loads(question["budgets"])]
        placed = {budget.key: float(question[budget.key]) for budget in spent}
        limits = limits_at(spent, placed)
        kept = fitting(frame, limits, json.loads(question["ranges"]))
        texts = {budget.key: budget.text(placed[budget.key]) for budget in spent}
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"no budgets of a page are told: {error!r}; open the page again") from error
    return {"bits": bits(frame["trial"], kept), "texts": texts, "left": left_text(frame, kept)}


def left_text(frame: pd.DataFrame, kept: NDArray[np.bool_]) -> str:
    """Return what is left of a frame of candidates: a mask ``[N]`` tells which rows are."""
    left = frame[kept]
    if left.empty:
        return f"none of {len(frame):,} candidates fits"
    timed = left[left["state"] == "measured"]  # speeds of others are foretold
    if timed.empty:
        return f"{len(left):,} of {len(frame):,} candidates fit, none of which was timed"
    front = int(left["on_front"].sum())
    ends = [("smallest", "size_bytes", timed["size_bytes"].idxmin()), ("fastest", "speedup", timed["speedup"].idxmax())]
    if timed["psnr_db"].notna().any():
        ends.append(("best", "psnr_db", timed["psnr_db"].idxmax()))
    show = {
        "size_bytes": lambda v: size_text(float(v)),
        "speedup": lambda v: f"{number_text(v)}×",
        "psnr_db": lambda v: f"{number_text(v)} dB",
    }
    words = ", ".join(
        f"the {what} {show[name](frame.loc[row, name])} (trial {frame.loc[row, 'trial']})" for what, name, row in ends
    )
    return f"{len(left):,} of {len(frame):,} candidates fit, {front} of them on the front; {words}"


def bits(numbers: Sequence[int] | NDArray, kept: NDArray[np.bool_]) -> str:
    """Return a bit for each number from 0 to the highest, set where it is kept, in base64; the lowest bit comes first."""
    flags = np.zeros(int(max(numbers, default=-1)) + 1, bool)
    flags[np.asarray(numbers, int)] = kept
    return base64.b64encode(np.packbits(flags, bitorder="little").tobytes()).decode()
