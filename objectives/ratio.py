"""How many times faster: a ratio with its interval, from rounds that each timed the reference and the candidate.

Times of one model drift by several percent within minutes, bursts of other work double them; the ratio of two models that
are timed in turn drifts far less. Rounds that something disturbed are dropped, and the interval is that of the median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .protocol import Reading

COVERAGE = 0.95
Z = 1.96  # of COVERAGE under a normal distribution
Z_PREDICTED = 1.645  # of 90 %, the intervals of predictions
QUIET = 0.2  # the quantile of a model's times that is taken for what it needs when nothing disturbs it
DISTURBED = 1.1  # a round is dropped where one of its times is this many times what the model needs
LEAST_KEPT = 5
WAITED = 0.25
LEAST_SPREAD = 1e-4  # of a speedup's logarithm, to divide by
LEAST_TOLD = 6  # rounds from which order statistics give an interval of COVERAGE
# Standard deviations of the logarithm. Between processes, sessions lie elsewhere in memory, and 8 and 16 processes of two
# models differed by 0.4 to 0.6 % on a quiet machine; where rounds were dropped the others suffered, too.
SESSION = 0.006
SESSION_DISTURBED = 3.0  # times the share of the rounds that was dropped, added to 1
ONE_ROUND = 0.08  # of the ratio of a single round
# A reference slower by this part than it is known to be drifts. Beyond, other work slows it, and may slow the candidate not at
# all or twice as much: where a reference was 13 % slower than usual, ratios were off by up to 13 %.
DRIFT = 0.03


@dataclass(frozen=True)
class Estimate:
    """A ratio with its 95 % interval.

    Attributes:
        value, low, high: the ratio, positive.
        rounds: how many there were.
        dropped: how many of them were disturbed.
        quiet: which rounds were kept, bool ``[rounds]``.
    """

    value: float
    low: float
    high: float
    rounds: int
    dropped: int
    quiet: NDArray[np.bool_]

    @property
    def disturbed(self) -> bool:
        """Whether so many rounds were dropped that waiting for a quieter machine is worth it."""
        return self.dropped > WAITED * self.rounds

    @property
    def half_width(self) -> float:
        """Half the interval, in parts of the ratio."""
        return (self.high - self.low) / (2.0 * self.value)


def ratio_estimate(seconds: NDArray[np.float64], needed: float | None = None) -> Estimate:
    """Return how many times the second model is faster than the first.

    The interval joins that of the median of the rounds' ratios with what processes differ by.

    Args:
        seconds: of the reference and of the candidate in each round ``[rounds, 2]``; those that are not positive, of a
            clock that jumped, count as disturbed.
        needed: what the reference is known to need when nothing disturbs it, in seconds.
    """
    quiet = quiet_rounds(seconds, needed)
    ratios = np.log(seconds[quiet, 0] / seconds[quiet, 1]) if quiet.any() else np.zeros(1)
    centre = float(np.median(ratios))
    low, high = median_interval(ratios)
    dropped = len(seconds) - int(quiet.sum())
    slowed = float(np.median(seconds[quiet, 0])) / needed - 1.0 - DRIFT if needed and quiet.any() else 0.0
    between = Z * SESSION * (1.0 + SESSION_DISTURBED * dropped / max(len(seconds), 1))
    few = Z * ONE_ROUND / math.sqrt(len(ratios)) if len(ratios) < LEAST_TOLD else 0.0
    sides = (centre - low, high - centre)
    below, above = (math.hypot(max(side, few), between) + max(slowed, 0.0) for side in sides)
    return Estimate(math.exp(centre), math.exp(centre - below), math.exp(centre + above), len(seconds), dropped, quiet)


def quiet_rounds(seconds: NDArray[np.float64], needed: float | None = None) -> NDArray[np.bool_]:
    """Return which rounds ``[rounds]`` nothing disturbed; never fewer than `LEAST_KEPT` that a clock could measure.

    Args:
        seconds, needed: as for `ratio_estimate`.
    """
    usable = np.isfinite(seconds).all(axis=1) & (seconds > 0).all(axis=1)
    if not usable.any():
        return np.asarray(usable, dtype=bool)
    fastest = np.quantile(seconds[usable], QUIET, axis=0)
    if needed is not None:
        fastest[0] = min(fastest[0], needed)
    slowed = np.where(usable, np.max(np.abs(seconds) / fastest, axis=1), np.inf)
    limit = max(DISTURBED, float(np.sort(slowed)[: min(LEAST_KEPT, int(usable.sum()))][-1]))
    return np.asarray(slowed <= limit, dtype=bool)


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return a 95 % interval of the median from order statistics, free of any assumption on the distribution.

    The k-th smallest and k-th largest of n values enclose the median with probability 1 - 2 P(Binomial(n, 1/2) < k);
    k is the largest that keeps it at 95 % (Conover, Practical Nonparametric Statistics). Below 6 values: the extremes.
    """
    ordered = np.sort(values)
    n, rank, below = len(ordered), 0, 0.5 ** len(ordered)
    while rank + 1 <= (n - 1) // 2 and 2 * (tail := below + math.comb(n, rank + 1) * 0.5**n) <= 1 - COVERAGE:
        rank, below = rank + 1, tail
    return float(ordered[rank]), float(ordered[n - 1 - rank])


def pooled(timings: Sequence[Reading]) -> Reading:
    """Return the speedup that several timings of the same file tell together.

    Logarithms are weighted by their variances; where timings differ by more than their intervals say, the joint interval is
    widened by the Birge ratio (Birge, The Calculation of Errors by the Method of Least Squares, 1932).

    Args:
        timings: at least one, each with its interval.
    """
    if len(timings) == 1:
        return timings[0]
    values = np.log([timing.value for timing in timings])
    spreads = np.array([spread(timing) for timing in timings])
    weights = 1.0 / np.maximum(spreads, LEAST_SPREAD) ** 2
    centre = float((weights * values).sum() / weights.sum())
    birge = float((weights * (values - centre) ** 2).sum() / (len(values) - 1))
    half = Z * math.sqrt(max(birge, 1.0) / weights.sum())
    ends = (math.exp(centre + side * half) for side in (0, -1, 1))
    return Reading(next(ends), "x", next(ends), next(ends), how=f"{len(timings)} timings of the same file")


def spread(timing: Reading | Estimate, z: float = Z) -> float:
    """Return the standard deviation of a speedup's logarithm, from its interval; 0 where it has none.

    Args:
        timing: a speedup.
        z: half-width of its interval in standard deviations; by default of a 95 % interval.
    """
    return 0.0 if timing.low is None or timing.high is None else math.log(timing.high / timing.low) / (2.0 * z)


def joint_half_width(predicted: Reading, found: Estimate) -> float | None:
    """Return half the 95 % interval, in parts of the ratio, that a timing and a prediction give together.

    None where they differ by more than their intervals allow, or the prediction has none.

    Args:
        predicted: the speedup with its 90 % interval.
        found: by timing.
    """
    own, other = spread(found), spread(predicted, Z_PREDICTED)
    apart = abs(math.log(found.value / predicted.value))
    if other == 0.0 or apart > Z * math.hypot(own, other):
        return None
    return Z * (own**-2 + other**-2) ** -0.5


def drift(seconds: NDArray[np.float64]) -> float:
    """Return the median of the last third of ``seconds [rounds]`` over that of the first third, minus 1."""
    third = max(1, len(seconds) // 3)
    return float(np.median(seconds[-third:]) / np.median(seconds[:third]) - 1.0)
