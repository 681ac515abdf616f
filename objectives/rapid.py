"""Thousands of predictions a second: what the latency predictor says, as a sum over the nodes of the captured graph.

The predictor's kernels are exact but take a lowering each. Those of some candidates teach, by node, how its time goes with
its domain, its neighbours', and its sizes (`node_features`): a ridge regression each. What that misses is found by cross-
validation on the same candidates, and part of the intervals.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError
from ..spaces.space import Space
from ..spaces.statistics import Progress
from .calibration import draw
from .kernel_times import SHARES
from .node_features import NodeFeatures, Structures, structures
from .predictor import Predictor, Sample

Floats = NDArray[np.float64]
Forms = tuple[tuple[str, str], ...]

RIDGE = 0.02  # of features whose mean square is 1
FOLDS = 5
SURE = 0.015  # standard deviation of what the sums miss, from which no more is learned
LEAST_LEARNED = 40
IN_VAIN = 50  # draws, after which a space is taken to have no candidate with other kernels
STEP = 20  # candidates that are learned between two looks at it
UNKNOWN = 0.3  # what the sums are taken to miss where no two candidates tell it
LEAST_MS = 1e-3
MOST_FORMS = 64  # combinations of forms whose graphs are in memory
SUMMED = len(SHARES) + 2  # the shares, the ways from kernel to kernel, and standard deviations
ROWS = 1000  # candidates whose features are in memory at once


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
        self._features: dict[Forms, NodeFeatures] = {}
        self.predictor.kernels(Candidate())

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
                self._forget()
                if self.error < SURE:
                    break
            with suppress(BuildError):
                self.predictor.kernels(draw(space, random))
            in_vain = 0 if len(self.predictor.samples) > known else in_vain + 1
            if progress is not None:
                progress("sums over nodes", min(over / seconds, 1.0))
        self._forget()

    def predict(self, candidates: Sequence[Candidate]) -> Speedups:
        """Return the predicted speedups of candidates; by their kernels, one by one, where too little was learned.

        Raises:
            InputError: a candidate names a layer or a channel group that the graph has not, or a form that a layer cannot
                take.
            BuildError: a candidate cannot be built.
        """
        found = self.predict_structures(structures(self.graph, candidates))
        for row in np.flatnonzero(np.isnan(found.speedup)).tolist():
            exact = self.predictor.predict(candidates[row])
            found.speedup[row], found.low[row], found.high[row] = exact.speedup, exact.low, exact.high
        return found

    def predict_structures(self, found: Structures) -> Speedups:
        """Return the predicted speedups of structures.

        NaN where a node stands between neighbours, or runs in a domain, that it had in no candidate that was learned from.
        """
        sums = self._sums(found, self._fitted)
        speedups = np.full((len(sums), 3), np.nan)
        known = np.flatnonzero(np.isfinite(sums).all(axis=1))
        if len(known):
            centre, doubt = self.predictor.speedups(sums[known, :-1])
            table = self._together * sums[known, -1] / _ms(sums[known])
            half = self.predictor.reach * np.sqrt(doubt**2 + self.error**2 + table**2)
            speedups[known] = np.exp(np.stack([centre, centre - half, centre + half], axis=1))
        return Speedups(*speedups.T)

    @cached_property
    def error(self) -> float:
        """The standard deviation of the logarithm of what the sums miss of the predictor's, found by cross-validation."""
        folds = np.arange(len(self._samples)) % FOLDS
        missed = np.zeros(len(self._samples))
        for fold in range(FOLDS):
            rows = np.flatnonzero(folds == fold)
            left = self._fit(np.flatnonzero(folds != fold))
            found = self._sums(self._structures.take(rows), left)
            missed[rows] = np.log(_ms(found) / _ms(self._whole[rows]))
        return float(np.sqrt(np.nanmean(missed**2))) if np.isfinite(missed).any() else UNKNOWN

    @cached_property
    def _samples(self) -> list[Sample]:
        return list(self.predictor.samples.values())

    @cached_property
    def _structures(self) -> Structures:
        return structures(self.graph, [sample.candidate for sample in self._samples])

    @cached_property
    def _targets(self) -> list[dict[str, Floats]]:
        """For each sample, by node, what is summed up: the shares, and the standard deviation of their milliseconds."""
        found = []
        for sample in self._samples:
            by_node: dict[str, Floats] = {}
            for node, key in zip(sample.nodes, sample.keys, strict=True):
                by_node[node] = by_node.get(node, 0.0) + self._summed(key)
            found.append(by_node)
        return found

    def _summed(self, key: str) -> Floats:
        if key not in self._by_key:
            kernel = {key: 1}
            shares = self.predictor.shares(kernel)
            self._by_key[key] = np.append(shares, shares[:-1].sum() * self.predictor.spread(kernel))
        return self._by_key[key]

    @cached_property
    def _by_key(self) -> dict[str, Floats]:
        return {}

    @cached_property
    def _whole(self) -> Floats:
        """What is summed up over all of a sample, ``[samples, summed]``."""
        return np.array([np.sum(list(target.values()), axis=0) for target in self._targets])

    @cached_property
    def _together(self) -> float:
        """Which part of the sum of kernels' standard deviations the sum of kernels has."""
        own = [self.predictor.spread(sample.kernels) for sample in self._samples]
        return float(np.sum(own * _ms(self._whole)) / self._whole[:, -1].sum())

    @cached_property
    def _fitted(self) -> Mapping[str, _Node]:
        return self._fit(np.arange(len(self._samples)))

    def _fit(self, rows: NDArray[np.int64]) -> dict[str, _Node]:
        """Return what was learned of each node, by its signature."""
        features: dict[str, list[Floats]] = {}
        targets: dict[str, list[Floats]] = {}
        for forms, some in _by_forms(self._structures.take(rows)).items():
            of = self._features_of(forms)
            rest = np.stack([self._rest(rows[row], of.names) for row in some])
            nodes = zip(of.signatures, of.names, of.of(self._structures.take(rows[some])), strict=True)
            for signature, name, found in nodes:
                features.setdefault(signature, []).append(found)
                own = [self._targets[rows[row]].get(name, np.zeros(SUMMED)) for row in some]
                targets.setdefault(signature, []).append(np.stack(own) + rest / len(of.names))
        return {
            signature: _node(np.concatenate(features[signature]), np.concatenate(targets[signature]))
            for signature in features
        }

    def _rest(self, row: int, names: Sequence[str]) -> Floats:
        """Return what belongs to no node of a sample's graph: it is divided among all."""
        known = set(names)
        left = [each for name, each in self._targets[row].items() if name not in known]
        return np.sum([np.zeros(SUMMED), *left], axis=0)

    def _sums(self, found: Structures, fitted: Mapping[str, _Node]) -> Floats:
        """Return what is summed up over all nodes of each, ``[M, summed]``; NaN where a node is in a state never met."""
        sums = np.zeros((len(found), SUMMED))
        for forms, rows in _by_forms(found).items():
            of = self._features_of(forms)
            for start in range(0, len(rows), ROWS):
                some = rows[start : start + ROWS]
                for signature, features in zip(of.signatures, of.of(found.take(some)), strict=True):
                    node = fitted.get(signature)
                    sums[some] += np.nan if node is None else node.costs(features)
        return np.maximum(sums, LEAST_MS / SUMMED)

    def _features_of(self, forms: Forms) -> NodeFeatures:
        if forms not in self._features:
            if len(self._features) >= MOST_FORMS:
                self._features.pop(next(iter(self._features)))
            self._features[forms] = NodeFeatures(self.graph, dict(forms))
        return self._features[forms]

    def _forget(self) -> None:
        for name in ("error", "_samples", "_structures", "_targets", "_by_key", "_whole", "_together", "_fitted"):
            vars(self).pop(name, None)


@dataclass(frozen=True)
class _Node:
    """What was learned of a node.

    Attributes:
        coefficients: what a unit of each feature costs ``[features, summed]``.
        met: whether it was met in integers, and in float.
    """

    coefficients: Floats
    met: tuple[bool, bool]

    def costs(self, features: Floats) -> Floats:
        """Return what features ``[M, features]`` cost, ``[M, summed]``; NaN in a domain that was not met."""
        unknown = np.logical_and(_domains(features), np.logical_not(self.met)).any(axis=1, keepdims=True)
        return np.where(unknown, np.nan, features @ self.coefficients)


def _node(features: Floats, targets: Floats) -> _Node:
    integer, plain = _domains(features).T
    return _Node(_ridge(features, targets), (bool(integer.any()), bool(plain.any())))


def _domains(features: Floats) -> NDArray[np.bool_]:
    """Return whether a node with these features is in integers, and in float, ``[M, 2]``: half of them is not 0."""
    half = features.shape[1] // 2
    return np.stack([features[:, 0] != 0, features[:, half] != 0], axis=1)


def _ms(sums: Floats) -> Floats:
    """Return the milliseconds of all kernels, from what is summed up."""
    return np.asarray(sums[:, : len(SHARES)].sum(axis=1))


def _by_forms(found: Structures) -> dict[Forms, NDArray[np.int64]]:
    rows: dict[Forms, list[int]] = {}
    for row, forms in enumerate(found.forms):
        rows.setdefault(forms, []).append(row)
    return {forms: np.array(some, np.int64) for forms, some in rows.items()}


def _ridge(features: Floats, targets: Floats) -> Floats:
    """Return the coefficients ``[features, targets]`` of a ridge regression of features on one scale."""
    scale = np.sqrt(np.mean(features**2, axis=0))
    scale[scale == 0] = 1.0
    scaled = features / scale
    square = scaled.T @ scaled + RIDGE * np.eye(scaled.shape[1])
    return np.asarray(np.linalg.solve(square, scaled.T @ targets) / scale[:, None])
