"""What a candidate will measure, from sums over layers and channel groups that measurements so far have corrected.

Bytes and time of a layer go with the channels that stay on both of its sides; errors of layers and groups add up (facts:
Spearman 0.996), and those of neighbours may add to or cancel each other. What a layer costs in time and how much its error
counts are unknown factors around a first guess.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .chain import best_chain
from .costs import LEAST_TIME, Times, fit_size
from .first_guess import error_guess, uniform_rows
from .layout import Floats, Layout, Vectors, hops
from .sums import Guess, Sums
from .vectors import draw

NOISE_DB = 0.05  # differences in quality below this say nothing about a layer
ERROR_SCALES = (0.02, 0.05, 0.1, 0.2)  # standard deviations of what sums of errors miss, in parts
MOST_DB = 60.0
CHUNK = 1000  # candidates whose numbers stay in the processor's cache
NEIGHBOURS = 5  # measured candidates of like drop whose residuals tell what is missed
LATEST = 20  # measured candidates by whose errors the stated doubts are corrected
AS_STATED = 3  # candidates that the statement itself counts as
MOST_DOUBT = 3.0


class AdditiveModel:
    """Size, time and drop of candidates, fitted to what was measured.

    Args:
        layout: of the task.
        vectors: measured candidates ``[M, L]``, at least one.
        points: their (size, time, drop) ``[M, 3]``.
        doubt: what the stated standard deviations are to be multiplied by ``[3]``.
    """

    def __init__(self, layout: Layout, vectors: Vectors, points: Floats, doubt: Sequence[float] = (1.0,) * 3) -> None:
        self.layout = layout
        self.doubt = np.asarray(doubt)
        self.db = layout.task.drop_db
        both = np.multiply(*layout.kept(vectors))
        self.size = fit_size(layout, vectors, both, points[:, 0])
        self.times = Times(layout, vectors, both, points[:, 1])
        error = _error_of(self.db * points[:, 2])
        guess = error_guess(layout, vectors, error, uniform_rows(layout, vectors))
        self.floor = float(_error_of(NOISE_DB)) / max(ERROR_SCALES)
        self.errors = Sums(Guess(guess, _neighbours(layout)), vectors, error, error + self.floor, ERROR_SCALES)
        self._known = np.zeros((2, 0))
        predicted = self.predict(vectors)[:, 2]
        order = np.argsort(predicted, kind="stable")
        self._known = np.stack([predicted[order], _smooth((points[:, 2] - predicted)[order])])

    def predict(self, vectors: Vectors) -> Floats:
        """Return predicted points ``[M, 3]`` of candidates ``[M, L]``."""
        parts = [self._predict(vectors[first : first + CHUNK]) for first in range(0, len(vectors), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, 3))

    def _predict(self, vectors: Vectors) -> Floats:
        both = np.multiply(*self.layout.kept(vectors))
        changes = hops(self.layout.chosen(self.layout.integer, vectors))
        size, time = (costs.sums(vectors, both, changes) for costs in (self.size, self.times.costs))
        drop = 10.0 * np.log10(1.0 + self.errors.predict(vectors)) / self.db
        if self._known.size:  # what like candidates were off by: differences too small for the layers' factors to learn
            drop = np.maximum(drop + np.interp(drop, *self._known), 0.0)
        return np.stack([size, np.maximum(time, LEAST_TIME), drop], axis=1)

    def spread(self, vectors: Vectors) -> Floats:
        """Return standard deviations ``[M, 3]`` of what is predicted; that of the size is 0."""
        time = self.times.spread(vectors, np.multiply(*self.layout.kept(vectors)))
        error = self.errors.predict(vectors)
        spread = np.hypot(self.errors.spread(vectors), self.errors.posterior.noise * (error + self.floor))
        drop = 10.0 / np.log(10.0) * spread / (1.0 + error) / self.db
        return np.stack([np.zeros(len(vectors)), time, drop], axis=1) * self.doubt

    def novelty(self, vectors: Vectors) -> Floats:
        """Return how little the options of candidates were measured before ``[M]``."""
        return self.errors.novelty(vectors)

    def canonical(self, vectors: Vectors) -> Vectors:
        """Return the vectors: each candidate has one."""
        return vectors

    def sweep(self, random: np.random.Generator, count: int, starts: Vectors) -> Vectors:
        """Return candidates ``[count, L]`` that are nearly best for random weights of the three objectives.

        Args:
            random: draws the weights and where to start.
            count: how many weights.
            starts: candidates ``[S, L]`` whose pruning ratios may be started from.
        """
        weights = 10.0 ** random.uniform([-1.0, -2.0, -2.5], [1.0, 1.0, 1.5], size=(count, 3))
        vectors = draw(self.layout.grid.lengths, random, count)
        known = random.random(count) < 0.75
        vectors[known] = starts[random.integers(0, len(starts), int(known.sum()))]
        vectors[random.random(count) < 0.25] = 0
        return self.decide(vectors, weights)

    def decide(self, vectors: Vectors, weights: Floats) -> Vectors:
        """Return the candidates ``[W, L]`` that cost least by ``weights [W, 3]`` of size, time and error.

        For given channels the layers decide exactly, as a chain whose neighbours cost time and error together; for given
        layers each group alone (Shoham and Gersho: Efficient bit allocation, 1988), in turn.

        Args:
            vectors: whose pruning ratios are started from ``[W, L]``.
            weights: of the objectives.
        """
        if self.layout.split == len(self.layout.grid.axes):
            return self._decide_layers(vectors, weights)
        for _ in range(2):
            vectors = self._decide_groups(self._decide_layers(vectors, weights), weights)
        return vectors

    def _decide_layers(self, vectors: Vectors, weights: Floats) -> Vectors:
        """Return the vectors with the best options of the layers."""
        layout, split = self.layout, self.layout.split
        if not split:
            return vectors
        both = np.multiply(*layout.kept(vectors))[:, :, None]
        integer = layout.every(layout.integer)
        changing = np.zeros(len(weights))
        own = np.zeros((len(weights), *integer.shape))
        for weight, costs in zip(weights.T, (self.size, self.times.costs), strict=False):
            own += weight[:, None, None] * (layout.every(costs.paid) * both + layout.every(costs.flat))
            changing += weight * costs.change
        own[:, layout.axis_layer] += weights[:, 2:, None] * self.errors.table[:split]
        pairs = self._layer_pairs()

        def together(place: int) -> Floats | None:
            change = np.abs(integer[place][:, None] - integer[place + 1])
            if place in pairs:
                error = self.errors.together(pairs[place])
                return np.asarray(changing[:, None, None] * change + weights[:, 2:, None] * error)
            return np.asarray(changing[:, None, None] * change) if change.any() else None

        chosen = best_chain(np.where(layout.valid(), own, np.inf), together)
        result = vectors.copy()
        result[:, :split] = chosen[:, layout.axis_layer]
        return result

    def _layer_pairs(self) -> dict[int, int]:
        """Return the pairs whose errors pull at each other, by the place of the first of two layers that vary in a row."""
        layers, links = self.layout.axis_layer, self.errors.guess.links
        return {
            int(layers[first]): pair
            for pair, (first, second) in enumerate(links.tolist())
            if second < len(layers) and self.errors.pulls[pair]
        }

    def _decide_groups(self, vectors: Vectors, weights: Floats) -> Vectors:
        """Return the vectors with the best ratio of each group, one group after another."""
        layout = self.layout
        result = vectors.copy()
        whole = weights[:, :1] * layout.chosen(self.size.paid, result)
        whole += weights[:, 1:2] * layout.chosen(self.times.costs.paid, result)
        kept_in, kept_out = layout.kept(result)
        for row, axis in enumerate(range(layout.split, len(layout.grid.axes))):
            options = int(layout.grid.lengths[axis])
            touched = np.flatnonzero(layout.inputs[row] + layout.outputs[row])
            now = layout.ratio[row, result[:, axis]][:, None]
            rest_in = kept_in[:, touched] + now * layout.inputs[row, touched]
            rest_out = kept_out[:, touched] + now * layout.outputs[row, touched]
            ratios = layout.ratio[row, :options]
            left_in = rest_in[:, None] - ratios[:, None] * layout.inputs[row, touched]
            left_out = rest_out[:, None] - ratios[:, None] * layout.outputs[row, touched]
            costs = np.einsum("mt,mot,mot->mo", whole[:, touched], left_in, left_out)
            costs += weights[:, 2:] * (self.errors.table[axis] + self.errors.pulled(axis, result))[:, :options]
            result[:, axis] = costs.argmin(axis=1)
            new = ratios[result[:, axis]][:, None]
            kept_in[:, touched] = rest_in - new * layout.inputs[row, touched]
            kept_out[:, touched] = rest_out - new * layout.outputs[row, touched]
        return result


def fitted(layout: Layout, vectors: Vectors, points: Floats) -> AdditiveModel:
    """Return the model of what was measured, its doubts as large as the latest errors of predictions.

    The latest candidates are compared with what those before them say.

    Args:
        layout: of the task.
        vectors: measured candidates ``[M, L]`` in the order that they were measured, at least two.
        points: their (size, time, drop) ``[M, 3]``.
    """
    latest = min(LATEST, len(vectors) // 2)
    before = AdditiveModel(layout, vectors[:-latest], points[:-latest])
    off, stated = points[-latest:] - before.predict(vectors[-latest:]), before.spread(vectors[-latest:])
    scores = np.divide(off, stated, out=np.zeros_like(off), where=stated > 0)
    doubt = np.sqrt((AS_STATED + np.square(scores).sum(axis=0)) / (AS_STATED + latest))
    return AdditiveModel(layout, vectors, points, np.minimum(doubt, MOST_DOUBT))


def _neighbours(layout: Layout) -> Vectors:
    """Return the pairs of axes that follow each other ``[P, 2]``: layers next to each other in the graph, and groups."""
    layers = np.flatnonzero(np.diff(layout.axis_layer) == 1)
    groups = np.arange(layout.split, max(len(layout.grid.axes) - 1, layout.split))
    firsts = np.concatenate([layers, groups])
    return np.stack([firsts, firsts + 1], axis=1)


def _error_of(decibels: Floats | float) -> Floats:
    """Return by how much a drop enlarges the reference's error, in parts of it."""
    return np.asarray(np.expm1(np.minimum(decibels, MOST_DB) * np.log(10.0) / 10.0))


def _smooth(values: Floats) -> Floats:
    """Return medians over `NEIGHBOURS` values in order; at the ends the last one counts for those that lack."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(values, size=NEIGHBOURS, mode="nearest"))
