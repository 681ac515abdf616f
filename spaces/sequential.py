"""Sequential repair: layers rounded in the order of the data, each refitted to the inputs it will really get.

Before a layer is rounded its weights are solved by least squares so that on the inputs from layers already rounded it gives
the reference's outputs, with a ridge towards the old weights; then they are rounded with the Gram matrix of those inputs.
The idea of matching the uncompressed outputs layer by layer is that of Optimal Brain Compression (arXiv:2208.11580).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from .cache import Store, content_hash
from .candidate import Candidate
from .graph import Graph, Layer
from .matrix import columns, from_matrix, has_matrix, has_own_biases, mask, row_channels, to_matrix
from .repair import RoundedLayer, round_layer
from .rounding import VERSION as ROUNDING_VERSION
from .session import batches
from .statistics import columns_of_feed
from .stepwise import Stepwise
from .weights import per_channel, shifted_bias

if TYPE_CHECKING:
    from .build import Builder

VERSION = 6  # part of the cache key: raise it when results change
RIDGES = (0.01, 0.1, 1.0, 10.0)  # of the mean diagonal of the Gram matrix
NEARLY = 1.2  # times the least error on data that was not fitted
NOISE = 1e-5  # of the mean diagonal before the mean is taken out: what float32 leaves of an input that never changes
MEMORY_BYTES = 3_000_000_000  # of activations held; fewer calibration samples are used where all do not fit


def sequential_repair(builder: Builder, candidate: Candidate) -> dict[str, RoundedLayer]:
    """Return the rounded weights of all layers of a candidate with weight bits 2-8, from the cache where they are there."""
    static = builder.static
    store = Store(
        content_hash(static.statistics.key, static.rounding.name, VERSION, ROUNDING_VERSION, candidate.to_json())
    )
    arrays = store.arrays("sequential")
    if arrays is None:
        found = _repair(builder, candidate)
        names = list(found)
        arrays = {"names": np.array(names)}
        for number, name in enumerate(names):
            for field in ("codes", "scale", "zero", "shift"):
                arrays[f"{field}-{number}"] = getattr(found[name], field)
        store.put_arrays("sequential", arrays)
    return {
        str(name): RoundedLayer(*(arrays[f"{field}-{number}"] for field in ("codes", "scale", "zero", "shift")))
        for number, name in enumerate(arrays["names"])
    }


def _repair(builder: Builder, candidate: Candidate) -> dict[str, RoundedLayer]:
    graph = builder.equalised
    lowering = builder.lower(Candidate(candidate.layers, candidate.base, "static"))
    lowering.run()
    feeds = list(batches(builder.statistics.calibration, graph.batch))[: _fitting(graph)]
    reference = Stepwise(graph, feeds)
    compressed = Stepwise(graph, feeds, lowering.grids, lowering.integer)
    result = {}
    for name, layer in graph.layers.items():
        bits = candidate.choice(name).weight_bits
        if bits > 8:
            continue
        result[name] = rounded = _refit(builder, layer, bits, reference, compressed, name)
        weight = (rounded.codes * per_channel(layer, rounded.scale)).astype(np.float32)
        for node in graph.model.graph:
            if node.name in layer.nodes:
                compressed.replace(node.name, layer.weight, weight, shifted_bias(node, layer, rounded))
    return result


def _refit(
    builder: Builder, layer: Layer, bits: int, reference: Stepwise, compressed: Stepwise, name: str
) -> RoundedLayer:
    if len(layer.nodes) > 1 or not has_matrix(layer):
        # weights that serve several places keep the statistics of all of them
        return builder.static.rounded(layer, bits)
    rows = to_matrix(layer, builder.equalised.weight(layer))
    halves = _pairs(layer, compressed.inputs_of(name), reference.inputs_of(name), rows)
    whole, rows = halves[0] + halves[1], rows.astype(np.float64)
    fitted = _fit(layer, whole, rows, _best_ridge(layer, halves, rows))
    moments = (whole.gram / whole.count, whole.now / whole.count)
    weight = from_matrix(layer, fitted.astype(np.float32))
    rounded = round_layer(layer, weight, moments, builder.static.rounding, (bits,))[bits]
    if layer.op == "MatMul":
        return rounded
    moved = (np.einsum("grd,gd->gr", rows, whole.before) - np.einsum("grd,gd->gr", fitted, whole.now)) / whole.count
    return RoundedLayer(rounded.codes, rounded.scale, rounded.zero, rounded.shift + _by_channel(layer, moved))


@dataclass(frozen=True)
class _Pairs:
    """Sums over ``count`` sampled positions of what a layer reads: x now, y before anything was rounded.

    Attributes:
        gram: x x^T [G, D, D].
        cross: x y^T [G, D, D].
        now: x [G, D].
        before: y [G, D].
        power: the squared outputs before, [G, R].
    """

    gram: np.ndarray
    cross: np.ndarray
    now: np.ndarray
    before: np.ndarray
    power: np.ndarray
    count: int

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> _Pairs:
        """Return the sums over columns [G, M, D] of a layer with weights [G, R, D]."""
        turned = x.transpose(0, 2, 1)
        power = np.square(y @ rows.transpose(0, 2, 1)).sum(axis=1)
        return cls(turned @ x, turned @ y, x.sum(axis=1), y.sum(axis=1), power, x.shape[1])

    def __add__(self, other: _Pairs) -> _Pairs:
        return _Pairs(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def means(self, group: int, centred: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return E[x x^T] and E[x y^T] of a group, float64 [D, D], about the means where a bias makes good for these."""
        gram, cross = (sums[group].astype(np.float64) / self.count for sums in (self.gram, self.cross))
        if not centred:
            return gram, cross
        now, before = self.now[group] / self.count, self.before[group] / self.count
        return gram - np.outer(now, now), cross - np.outer(now, before)


def _pairs(layer: Layer, now: list[np.ndarray], before: list[np.ndarray], rows: np.ndarray) -> list[_Pairs]:
    """Return the sums of two halves of the batches, at the same sampled positions now and before.

    A single batch is cut in two by position; where there is but one position both halves are that.
    """
    limit = columns_of_feed(layer, len(now))
    halves: list[_Pairs | None] = [None, None]
    for number, (x, y) in enumerate(zip(now, before, strict=True)):
        a = columns(layer, x, limit, np.random.default_rng(number))
        b = columns(layer, y, limit, np.random.default_rng(number))
        cuts = [(number % 2, slice(None))] if len(now) > 1 else [(0, slice(0, None, 2)), (1, slice(1, None, 2))]
        for half, cut in cuts:
            if a[:, cut].size:
                part, so_far = _Pairs.of(a[:, cut], b[:, cut], rows), halves[half]
                halves[half] = part if so_far is None else so_far + part
    found = [half for half in halves if half is not None]
    return found * 2 if len(found) == 1 else found


def _fit(layer: Layer, pairs: _Pairs, rows: np.ndarray, ridge: float) -> np.ndarray:
    """Return weights [G, R, D] that give the reference's outputs on the inputs now, drawn towards ``rows`` by a ridge."""
    allowed = mask(layer)
    fitted = np.empty_like(rows)
    for group in range(len(rows)):
        gram, cross = pairs.means(group, has_own_biases(layer))
        noise = NOISE * np.trace(pairs.gram[group]) / pairs.count
        towards = ((ridge * max(np.trace(gram), 0.0) + noise) / len(gram) + 1e-12) * np.eye(len(gram))
        fitted[group] = np.linalg.solve(gram + towards, (cross + towards) @ rows[group].T).T
    return fitted if allowed is None else fitted * allowed


def _best_ridge(layer: Layer, halves: list[_Pairs], rows: np.ndarray) -> float:
    """Return the smallest ridge that is nearly the best when fitted on one half of the data and judged on the other.

    A small one is preferred because errors made good here do not reach the layers that follow.
    """
    errors = {
        ridge: sum(
            _error(layer, judge, rows, _fit(layer, learn, rows, ridge)) for learn, judge in (halves, halves[::-1])
        )
        for ridge in RIDGES
    }
    return next(ridge for ridge in RIDGES if errors[ridge] <= NEARLY * min(errors.values()))


def _error(layer: Layer, pairs: _Pairs, rows: np.ndarray, fitted: np.ndarray) -> float:
    """Return the mean squared difference, summed over outputs, of fitted weights on x and the old ones on y."""
    total = 0.0
    for group in range(len(rows)):
        gram, cross = pairs.means(group, has_own_biases(layer))
        power = float(pairs.power[group].sum()) / pairs.count
        if has_own_biases(layer):
            power -= float(np.square(rows[group] @ pairs.before[group] / pairs.count).sum())
        total += power + float(np.sum((fitted[group] @ gram - 2 * rows[group] @ cross.T) * fitted[group]))
    return max(total, 0.0)


def _by_channel(layer: Layer, rows: np.ndarray) -> np.ndarray:
    channels = row_channels(layer).reshape(-1)
    return (np.bincount(channels, rows.reshape(-1)) / np.bincount(channels)).astype(np.float32)


def _fitting(graph: Graph) -> int:
    """Return how many batches of activations may be held at once (at least two)."""
    largest = 4 * max(int(np.prod(shape)) for shape in graph.shapes.values())
    return max(2, MEMORY_BYTES // (6 * largest))
