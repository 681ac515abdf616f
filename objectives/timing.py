"""Speed: a model timed in turn with the reference (A B A B) in one process, as a ratio with its interval.

Times of one model drift by several percent within minutes; the ratio to a model timed in turn with it drifts far less.
So each round times the reference, then the candidate, and the speedup is the median of the rounds' ratios.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..spaces.errors import BuildError
from ..spaces.session import batches
from .protocol import OpenModel, Reading, Subject

COVERAGE = 0.95


@dataclass(frozen=True)
class Timing:
    """Reads `speedup`, `reference_ms` and `reference_drift`.

    Attributes:
        warmups: untimed runs of each model, at least 2.
        least_rounds: always timed.
        most_rounds: never exceeded.
        half_width: rounds end when the interval's half-width is below this share of the speedup.
        seconds: or when the rounds after the first `least_rounds` have taken this long.
        slot_seconds: a model faster than this is run several times in a row and the mean is taken.
    """

    warmups: int = 2
    least_rounds: int = 7
    most_rounds: int = 30
    half_width: float = 0.02
    seconds: float = 3.0
    slot_seconds: float = 0.004
    name: str = "timing"

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the speedup against the reference, the reference's median time of one batch, and its drift.

        The drift is the time of the last third of the rounds over that of the first third, minus 1. The reference
        itself has a speedup of exactly 1.
        """
        reference = self._timer(subject.reference)
        candidate = None if subject.is_reference else self._timer(subject.model)
        with _no_collection():
            times = self._rounds(reference, candidate)
        readings = self._reference_readings(times[:, 0])
        if candidate is None:
            readings["speedup"] = Reading(1.0, "x", 1.0, 1.0, how="the reference itself")
        else:
            ratios = times[:, 0] / times[:, 1]
            low, high = median_interval(ratios)
            how = f"median of {len(ratios)} rounds in turn with the reference"
            readings["speedup"] = Reading(float(np.median(ratios)), "x", low, high, how=how)
        return readings

    def _timer(self, model: OpenModel) -> Callable[[], float]:
        """Return a function that runs the warm model once per call and gives the seconds of one inference."""
        feed = next(batches(model.samples.inputs, model.batch))
        run, output = model.session.run, [model.session.get_outputs()[0].name]
        clock = time.perf_counter
        took = math.inf
        try:
            for _ in range(max(2, self.warmups)):
                start = clock()
                run(output, feed)
                took = clock() - start
        except Exception as error:
            raise BuildError(f"ONNX Runtime fails while running the model: {error}") from error
        repeats = max(1, math.ceil(self.slot_seconds / took))

        def timed() -> float:
            start = clock()
            for _ in range(repeats):
                run(output, feed)
            return (clock() - start) / repeats

        return timed

    def _rounds(self, reference: Callable[[], float], candidate: Callable[[], float] | None) -> np.ndarray:
        """Return the seconds ``[rounds, 2]`` of the reference and of the candidate."""
        times: list[tuple[float, float]] = []
        deadline = math.inf
        while len(times) < self.most_rounds and time.perf_counter() < deadline:
            seconds = reference()
            times.append((seconds, candidate() if candidate else seconds))
            if len(times) == self.least_rounds:
                deadline = time.perf_counter() + self.seconds
            if len(times) >= self.least_rounds and self._settled(times, alone=candidate is None):
                break
        return np.array(times)

    def _settled(self, times: list[tuple[float, float]], alone: bool) -> bool:
        seconds = np.array(times)
        values = seconds[:, 0] if alone else seconds[:, 0] / seconds[:, 1]
        low, high = median_interval(values)
        return high - low < 2 * self.half_width * float(np.median(values))

    def _reference_readings(self, seconds: np.ndarray) -> dict[str, Reading]:
        third = max(1, len(seconds) // 3)
        low, high = median_interval(seconds)
        drift = float(np.median(seconds[-third:]) / np.median(seconds[:third]) - 1.0)
        return {
            "reference_ms": Reading(
                1e3 * float(np.median(seconds)), "ms", 1e3 * low, 1e3 * high, how=f"median of {len(seconds)} rounds"
            ),
            "reference_drift": Reading(drift, "", how="last third of the rounds over the first, minus 1"),
        }


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval of the median from order statistics, free of any assumption on the distribution.

    The k-th smallest and k-th largest of n values enclose the median with probability 1 - 2 P(Binomial(n, 1/2) < k);
    k is the largest that keeps it at 95 % (Conover, Practical Nonparametric Statistics). Below 6 values: the extremes.
    """
    ordered = np.sort(values)
    n, rank, below = len(ordered), 0, 0.5 ** len(ordered)
    while rank + 1 <= (n - 1) // 2 and 2 * (tail := below + math.comb(n, rank + 1) * 0.5**n) <= 1 - COVERAGE:
        rank, below = rank + 1, tail
    return float(ordered[rank]), float(ordered[n - 1 - rank])


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the timing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
