"""What people prefer: judgements of pairs as one score of each candidate, with its interval.

Bradley and Terry: Rank Analysis of Incomplete Block Designs (Biometrika 1952). Each candidate has a strength s, and one is
preferred to another with the probability 1 / (1 + exp(s2 - s1)); a judgement of no difference counts as half a preference
each way. What is told is the probability that a candidate is preferred to the reference, 0.5 where nobody sees a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..objectives.protocol import Reading
from .review import Judgement

PRIOR_SPREAD = 2.0  # standard deviation of what is assumed of strengths before anything was judged
Z95 = 1.959964  # of the normal distribution


@dataclass(frozen=True)
class Pair:
    """How often one of two was preferred to the other.

    Attributes:
        winner, loser: places in a list of candidates.
        count: how often; half where no difference was seen.
    """

    winner: int
    loser: int
    count: float


def preferences(judgements: Sequence[Judgement], reference: str) -> Mapping[str, Reading]:
    """Return, by candidate's key, the probability that it is preferred to the reference, with its 95 % interval.

    Args:
        judgements: of pairs of candidates, any number.
        reference: the reference's key.

    Returns:
        Readings of all candidates that were judged; one that no chain of judgements binds to the reference has an interval
        as wide as the assumption made before.
    """
    names = [reference, *sorted({key for one in judgements for key in (one.left, one.right)} - {reference})]
    if len(names) == 1:
        return {}
    pairs = _pairs(judgements, names)
    strengths, covariance = fit(pairs, len(names))
    readings = {}
    for place, name in enumerate(names):
        gap = strengths[place] - strengths[0]
        variance = covariance[place, place] + covariance[0, 0] - 2.0 * covariance[place, 0]
        reach = Z95 * np.sqrt(max(variance, 0.0))
        value, low, high = (float(1.0 / (1.0 + np.exp(-x))) for x in (gap, gap - reach, gap + reach))
        count = sum(name in (one.left, one.right) for one in judgements)
        readings[name] = Reading(value, "", low, high, how=f"preferred to the reference, by {count} judgements")
    return readings


def compared(judgements: Sequence[Judgement], reference: str) -> set[str]:
    """Return the keys of the candidates that a chain of judgements binds to the reference, which is one of them."""
    known, waiting = {reference}, list(judgements)
    while found := [one for one in waiting if {one.left, one.right} & known]:
        known |= {key for one in found for key in (one.left, one.right)}
        waiting = [one for one in waiting if one not in found]
    return known


def fit(pairs: Sequence[Pair], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the strengths ``[count]`` that make judgements likeliest, and their covariance ``[count, count]``.

    With a normal prior of `PRIOR_SPREAD`, so that one who always wins has a finite strength.
    """
    from scipy.optimize import minimize

    found = minimize(lambda s: _loss(s, pairs), np.zeros(count), jac=lambda s: _slope(s, pairs), method="BFGS")
    return found.x, np.linalg.inv(_curvature(found.x, pairs))


def _pairs(judgements: Sequence[Judgement], names: Sequence[str]) -> list[Pair]:
    places = {name: place for place, name in enumerate(names)}
    pairs = []
    for one in judgements:
        left, right = places[one.left], places[one.right]
        if one.better == "neither":
            pairs += [Pair(left, right, 0.5), Pair(right, left, 0.5)]
        else:
            pairs.append(Pair(left, right, 1.0) if one.better == "left" else Pair(right, left, 1.0))
    return pairs


def _loss(strengths: NDArray, pairs: Sequence[Pair]) -> float:
    """Return the negative logarithm of the posterior, but for a constant."""
    likely = sum(pair.count * np.logaddexp(0.0, strengths[pair.loser] - strengths[pair.winner]) for pair in pairs)
    return float(likely + 0.5 * np.sum(np.square(strengths / PRIOR_SPREAD)))


def _slope(strengths: NDArray, pairs: Sequence[Pair]) -> NDArray:
    slope = strengths / PRIOR_SPREAD**2
    for pair in pairs:
        wrong = pair.count / (1.0 + np.exp(strengths[pair.winner] - strengths[pair.loser]))
        slope[pair.winner] -= wrong
        slope[pair.loser] += wrong
    return slope


def _curvature(strengths: NDArray, pairs: Sequence[Pair]) -> NDArray:
    curvature = np.eye(len(strengths)) / PRIOR_SPREAD**2
    for pair in pairs:
        likely = 1.0 / (1.0 + np.exp(strengths[pair.loser] - strengths[pair.winner]))
        weight = pair.count * likely * (1.0 - likely)
        edge = np.zeros(len(strengths))
        edge[pair.winner], edge[pair.loser] = 1.0, -1.0
        curvature += weight * np.outer(edge, edge)
    return curvature
