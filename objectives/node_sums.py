"""The time of a model as a sum over the nodes of the captured graph, learned from models whose kernels are known.

A ridge regression for each node says how its kernels' time goes with its domain, its neighbours', and its sizes
(`node_features`). What the sums miss is found by cross-validation on the same models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..spaces.graph import Graph
from ..spaces.rules import Rules
from .kernel_times import SHARES
from .node_features import NodeFeatures, Structures, structures
from .predictor import Predictor, Sample

Floats = NDArray[np.float64]
Forms = tuple[tuple[str, str], ...]

RIDGE = 0.02  # of features whose mean square is 1
FOLDS = 5
UNKNOWN = 0.3  # what the sums are taken to miss where no two models tell it
LEAST_MS = 1e-3
MOST_FORMS = 64  # combinations of forms whose graphs are in memory
SUMMED = len(SHARES) + 2  # the shares, the ways from kernel to kernel, and standard deviations
ROWS = 1000  # models whose features are in memory at once


class FormGraphs:
    """A captured graph with each combination of forms that was asked for."""

    def __init__(self, graph: Graph, rules: Rules) -> None:
        self.graph = graph
        self.rules = rules
        self._known: dict[Forms, NodeFeatures] = {}

    def features(self, forms: Forms) -> NodeFeatures:
        """Return the features of the graph's nodes where layers are written in these forms."""
        if forms not in self._known:
            if len(self._known) >= MOST_FORMS:
                self._known.pop(next(iter(self._known)))
            self._known[forms] = NodeFeatures(self.graph, dict(forms), self.rules)
        return self._known[forms]


class NodeSums:
    """What some models teach about each node.

    Args:
        predictor: whose times their kernels have.
        graphs: of the predictor's graph.
        samples: the models.
    """

    def __init__(self, predictor: Predictor, graphs: FormGraphs, samples: Sequence[Sample]) -> None:
        self.predictor = predictor
        self.graphs = graphs
        self.samples = samples
        self._by_key: dict[str, Floats] = {}

    def of(self, found: Structures) -> Floats:
        """Return what is summed up over all nodes of each structure ``[M, SUMMED]``; NaN where a node's state is new."""
        return self._sums(found, self._fitted)

    @cached_property
    def error(self) -> float:
        """The standard deviation of the logarithm of what the sums miss of the predictor's, found by cross-validation."""
        folds = np.arange(len(self.samples)) % FOLDS
        missed = np.zeros(len(self.samples))
        for fold in range(FOLDS):
            rows = np.flatnonzero(folds == fold)
            left = self._fit(np.flatnonzero(folds != fold))
            found = self._sums(self._structures.take(rows), left)
            missed[rows] = np.log(total_ms(found) / total_ms(self._whole[rows]))
        return float(np.sqrt(np.nanmean(missed**2))) if np.isfinite(missed).any() else UNKNOWN

    @cached_property
    def _structures(self) -> Structures:
        return structures(self.graphs.graph, [sample.candidate for sample in self.samples], self.graphs.rules)

    @cached_property
    def _targets(self) -> list[dict[str, Floats]]:
        """For each sample, by node, what is summed up: the shares, and the standard deviation of their milliseconds."""
        found = []
        for sample in self.samples:
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
    def _whole(self) -> Floats:
        """What is summed up over all of a sample, ``[samples, summed]``."""
        return np.array([np.sum(list(target.values()), axis=0) for target in self._targets])

    @cached_property
    def together(self) -> float:
        """Which part of the sum of kernels' standard deviations the sum of kernels has."""
        own = [self.predictor.spread(sample.kernels) for sample in self.samples]
        return float(np.sum(own * total_ms(self._whole)) / self._whole[:, -1].sum())

    @cached_property
    def _fitted(self) -> Mapping[str, _Node]:
        return self._fit(np.arange(len(self.samples)))

    def _fit(self, rows: NDArray[np.int64]) -> dict[str, _Node]:
        """Return what was learned of each node, by its signature."""
        features: dict[str, list[Floats]] = {}
        targets: dict[str, list[Floats]] = {}
        for forms, some in _by_forms(self._structures.take(rows)).items():
            of = self.graphs.features(forms)
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
            of = self.graphs.features(forms)
            for start in range(0, len(rows), ROWS):
                some = rows[start : start + ROWS]
                for signature, features in zip(of.signatures, of.of(found.take(some)), strict=True):
                    node = fitted.get(signature)
                    sums[some] += np.nan if node is None else node.costs(features)
        return np.maximum(sums, LEAST_MS / SUMMED)


@dataclass(frozen=True)
class _Node:
    """What was learned of a node.

    Attributes:
        coefficients: what a unit of each feature costs ``[features, summed]``.
        met: in which of its states it was met (`node_features.NodeFeatures.of`) ``[states]``.
    """

    coefficients: Floats
    met: NDArray[np.bool_]

    def costs(self, features: Floats) -> Floats:
        """Return what features ``[M, states, features]`` cost, ``[M, summed]``; NaN in a state that was not met."""
        unknown = (_states(features) & ~self.met).any(axis=1, keepdims=True)
        return np.where(unknown, np.nan, _flat(features) @ self.coefficients)


def _node(features: Floats, targets: Floats) -> _Node:
    return _Node(_ridge(_flat(features), targets), np.asarray(_states(features).any(axis=0)))


def _states(features: Floats) -> NDArray[np.bool_]:
    """Return in which state a node with these features ``[M, states, features]`` is, ``[M, states]``."""
    return np.asarray(features[:, :, 0] != 0)


def _flat(features: Floats) -> Floats:
    return features.reshape(len(features), -1)


def total_ms(sums: Floats) -> Floats:
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
