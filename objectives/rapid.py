"""Thousands of predictions a second: what the latency predictor says, as a sum over the nodes of the captured graph.

The predictor's kernels are exact but take a lowering each. Those of some candidates teach what each node takes (`node_sums`);
what the sums miss is part of the intervals.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError
from ..spaces.space import Space
from ..spaces.statistics import Progress
from .calibration import draw
from .node_features import Structures, structures
from .node_sums import FormGraphs, NodeSums, total_ms
from .predictor import Predictor

Floats = NDArray[np.float64]

SURE = 0.015  # standard deviation of what the sums miss, from which no more is learned
LEAST_LEARNED = 40
IN_VAIN = 50  # draws, after which a space is taken to have no candidate with other kernels
STEP = 20  # candidates that are learned between two looks at it


@dataclass(frozen=True)
class Speedups:
    """Predicted speedups of many candidates, and their 90 % intervals, ``[M]`` each; NaN where nothing is known."""

    speedup: Floats
    low: Floats
    high: Floats


class RapidPredictor:
    """Predicts as a predictor would, from what that knows.

    Args:
        predictor: calibrated; candidates that it met are learned from.

    Raises:
        BuildError: the reference does not run.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.graph = predictor.builder.graph
        self._graphs = FormGraphs(self.graph, predictor.builder.rules)
        self.predictor.kernels(Candidate())
        self._learn_from_met()

    def learn(self, space: Space, seconds: float = 30.0, progress: Progress | None = None, seed: int = 0) -> None:
        """Let the predictor meet random candidates of a space, until their times are known from their features.

        In a small space, until it has met most of them.

        Args:
            space: where candidates are drawn from.
            seconds: the longest time.
            progress: told what is being done, and the part of the time that is over.
            seed: of the draws.
        """
        begun = time.monotonic()
        random = np.random.default_rng([seed, 1])
        looked, in_vain = 0, 0
        while (over := time.monotonic() - begun) < seconds and in_vain < IN_VAIN:
            known = len(self.predictor.samples)
            if known >= looked + STEP and known >= LEAST_LEARNED:
                looked = known
                self._learn_from_met()
                if self._sums.error < SURE:
                    break
            with suppress(BuildError):
                self.predictor.kernels(draw(space, random))
            in_vain = 0 if len(self.predictor.samples) > known else in_vain + 1
            if progress is not None:
                progress("sums over nodes", min(over / seconds, 1.0))
        self._learn_from_met()

    def predict(self, candidates: Sequence[Candidate]) -> Speedups:
        """Return the predicted speedups of candidates; by their kernels, one by one, where too little was learned.

        Raises:
            InputError: a candidate names a layer or a channel group that the graph has not, or a form that a layer cannot
                take.
            BuildError: a candidate cannot be built.
        """
        found = self.predict_structures(structures(self.graph, candidates, self.predictor.builder.rules))
        for row in np.flatnonzero(np.isnan(found.speedup)).tolist():
            exact = self.predictor.predict(candidates[row])
            found.speedup[row], found.low[row], found.high[row] = exact.speedup, exact.low, exact.high
        return found

    def predict_structures(self, found: Structures) -> Speedups:
        """Return the predicted speedups of structures.

        NaN where a node stands between neighbours, or runs in a domain, that it had in no candidate that was learned from.
        """
        sums = self._sums.of(found)
        speedups = np.full((len(sums), 3), np.nan)
        known = np.flatnonzero(np.isfinite(sums).all(axis=1))
        if len(known):
            centre, doubt = self.predictor.speedups(sums[known, :-1])
            table = self._sums.together * sums[known, -1] / total_ms(sums[known])
            half = self.predictor.reach * np.sqrt(doubt**2 + self._sums.error**2 + table**2)
            speedups[known] = np.exp(np.stack([centre, centre - half, centre + half], axis=1))
        return Speedups(*speedups.T)

    @property
    def error(self) -> float:
        """The standard deviation of the logarithm of what the sums miss of the predictor's, found by cross-validation."""
        return self._sums.error

    def _learn_from_met(self) -> None:
        self._sums = NodeSums(self.predictor, self._graphs, list(self.predictor.samples.values()))
