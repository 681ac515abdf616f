"""Sequential repair: layers changed in the order of the data, each refitted to the inputs it will really get.

Before a layer is rounded its weights are solved by least squares so that on the inputs from layers already changed it gives
the reference's outputs, with a ridge towards what static repair gives; then they are rounded with the Gram matrix of those
inputs.
The idea of matching the uncompressed outputs layer by layer is that of Optimal Brain Compression (arXiv:2208.11580).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from .cache import Store, content_hash
from .candidate import Candidate, LayerChoice
from .graph import Graph, Layer
from .importance import VERSION as ORDER_VERSION
from .matrix import columns, from_matrix, has_matrix, has_own_biases, mask, to_matrix
from .narrow import Removed, kept_inputs, kept_outputs, old_outputs, take_outputs
from .prune import pruned
from .recurrent import B, shifted
from .repair import REFIT_VERSION
from .repaired import FloatLayer, RoundedLayer, bias_shift, fields_of, round_layer, sparsified, take
from .rounding import VERSION as ROUNDING_VERSION
from .session import batches
from .sparsity import VERSION as SPARSITY_VERSION
from .statistics import columns_of_feed
from .stepwise import Stepwise
from .threads import threads_for
from .weights import per_channel, shifted_bias

if TYPE_CHECKING:
    from .build import Builder

Repaired = RoundedLayer | FloatLayer
VERSION = 8  # part of the cache key: raise it when results change
RIDGES = (0.01, 0.1, 1.0, 10.0)  # of the mean diagonal of the Gram matrix
NEARLY = 1.2  # times the least error on data that was not fitted
NOISE = 1e-5  # of the mean diagonal before the mean is taken out: what float32 leaves of an input that never changes
MEMORY_BYTES = 3_000_000_000  # of activations held; fewer calibration samples are used where all do not fit


def sequential_repair(builder: Builder, candidate: Candidate) -> dict[str, Repaired]:
    """Return the weights of all layers of a candidate that change, from the cache where they are there."""
    store = Store(
        content_hash(
            builder.statistics.key,
            builder.rules.runtime,
            (builder.rounding, builder.importance, builder.sparsify),
            (VERSION, ROUNDING_VERSION, REFIT_VERSION, ORDER_VERSION, SPARSITY_VERSION),
            candidate.to_json(),
        )
    )
    arrays = store.arrays("sequential")
    if arrays is None:
        found = _repair(builder, candidate)
        arrays = {"names": np.array(list(found))}
        for number, layer in enumerate(found.values()):
            arrays |= {f"{field}-{number}": values for field, values in fields_of(layer).items()}
        store.put_arrays("sequential", arrays)
    return {str(name): _stored(arrays, number) for number, name in enumerate(arrays["names"])}


def _stored(arrays: dict[str, np.ndarray], number: int) -> Repaired:
    kind = RoundedLayer if f"codes-{number}" in arrays else FloatLayer
    return kind(**{field.name: arrays[f"{field.name}-{number}"] for field in fields(kind)})


def _repair(builder: Builder, candidate: Candidate) -> dict[str, Repaired]:
    graph, removed = builder.graph_of(candidate), builder.removed(candidate)
    small = pruned(graph, removed) if removed else graph
    lowering = builder.lower(replace(candidate, repair="static"))
    lowering.run()
    feeds = list(batches(builder.statistics.calibration, graph.batch))[: _fitting(graph)]
    reference = Stepwise(graph, feeds)
    compressed = Stepwise(small, feeds, lowering.grids, lowering.integer, lowering.whole)
    result: dict[str, Repaired] = {}
    for name, layer in graph.layers.items():
        choice = candidate.choice(name)
        if not (choice.rounded or choice.sparsity or kept_inputs(layer, removed) is not None):
            continue
        if len(layer.nodes) > 1 or layer.recurrent or not has_matrix(layer):
            # weights that serve several places, or steps, keep the statistics of all of them
            found = builder.static_layer(candidate, name)
        else:
            found = _refit(builder, graph, name, choice, removed, small.layers[name], reference, compressed)
        result[name] = found
        narrow = small.layers[name]
        weight = found.weight if isinstance(found, FloatLayer) else found.codes * per_channel(narrow, found.scale)
        for node in small.model.graph:
            if node.name in narrow.nodes:
                if narrow.recurrent:
                    compressed.constants[node.inputs[B].name or ""] = shifted(node, narrow, found.shift)  # type: ignore[union-attr]
                bias = shifted_bias(node, narrow, None if narrow.recurrent else found)
                compressed.replace(node.name, narrow.weight, weight.astype(np.float32), bias)
    return result


def _refit(
    builder: Builder,
    graph: Graph,
    name: str,
    choice: LayerChoice,
    removed: Removed,
    narrow: Layer,
    reference: Stepwise,
    compressed: Stepwise,
) -> Repaired:
    """Return a layer fitted to what it reads now, then zeroed and rounded as the candidate chooses.

    Args:
        graph: the float graph that the candidate is made from.
        narrow: the layer with the channels that stay.
        reference: gives what it read before.
        compressed: gives what it reads now.
    """
    layer, static = graph.layers[name], builder.static_of(choice.form)
    inputs, outputs = kept_inputs(layer, removed), kept_outputs(layer, removed)
    whole, groups = old_outputs(layer, outputs)
    weight = graph.weight(layer)
    rows = to_matrix(whole, weight if outputs is None else take_outputs(layer, weight, outputs))
    prior = rows
    if inputs is not None:
        alone = take(layer, static.fitted(layer, kept=inputs), outputs)
        assert isinstance(alone, FloatLayer)
        prior = to_matrix(narrow, alone.weight)
    halves = _pairs(narrow, compressed.inputs_of(name), layer, reference.inputs_of(name), groups, rows)
    both, rows, prior = halves[0] + halves[1], rows.astype(np.float64), prior.astype(np.float64)
    fitted = _fit(narrow, both, rows, prior, _best_ridge(narrow, halves, rows, prior))
    moments = (both.gram / both.count, both.now / both.count)
    moved = (np.einsum("grd,gd->gr", rows, both.before) - np.einsum("grd,gd->gr", fitted, both.now)) / both.count
    found = FloatLayer(from_matrix(narrow, fitted.astype(np.float32)), bias_shift(narrow, moved))
    if not choice.rounded:
        return sparsified(narrow, found, moments, choice.sparsity, builder.sparsify) if choice.sparsity else found
    rounded = round_layer(
        narrow, found.weight, moments, static.rounding, (choice.weight_bits,), choice.sparsity, builder.sparsify
    )[choice.weight_bits]
    return replace(rounded, shift=rounded.shift + found.shift)


@dataclass(frozen=True)
class _Pairs:
    """Sums over ``count`` sampled positions of what a layer reads: x now (K inputs), y before anything was changed (D).

    Attributes:
        gram: x x^T [G, K, K].
        cross: x y^T [G, K, D].
        now: x [G, K].
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


def _pairs(
    narrow: Layer,
    now: list[np.ndarray],
    layer: Layer,
    before: list[np.ndarray],
    groups: np.ndarray | slice,
    rows: np.ndarray,
) -> list[_Pairs]:
    """Return the sums of two halves of the batches, at the same sampled positions now and before.

    A single batch is cut in two by position; where there is but one position both halves are that.

    Args:
        narrow: the layer as it is now.
        now: what it reads, a batch each.
        layer: the layer as it was.
        before: what it read.
        groups: those of its groups that stay.
        rows: the old weights of the outputs that stay [G, R, D].
    """
    limit = columns_of_feed(layer, len(now))
    halves: list[_Pairs | None] = [None, None]
    for number, (x, y) in enumerate(zip(now, before, strict=True)):
        a = columns(narrow, x, limit, np.random.default_rng(number))
        b = columns(layer, y, limit, np.random.default_rng(number))[groups]
        cuts = [(number % 2, slice(None))] if len(now) > 1 else [(0, slice(0, None, 2)), (1, slice(1, None, 2))]
        for half, cut in cuts:
            if a[:, cut].size:
                part, so_far = _Pairs.of(a[:, cut], b[:, cut], rows), halves[half]
                halves[half] = part if so_far is None else so_far + part
    found = [half for half in halves if half is not None]
    return found * 2 if len(found) == 1 else found


def _fit(layer: Layer, pairs: _Pairs, rows: np.ndarray, prior: np.ndarray, ridge: float) -> np.ndarray:
    """Return weights [G, R, K] that give the outputs of ``rows`` [G, R, D] on the inputs now, drawn to ``prior`` by a ridge."""
    allowed = mask(layer)
    fitted = np.empty_like(prior)
    with threads_for(rows.shape[2]):
        for group in range(len(rows)):
            gram, cross = pairs.means(group, has_own_biases(layer))
            noise = NOISE * np.trace(pairs.gram[group]) / pairs.count
            towards = ((ridge * max(np.trace(gram), 0.0) + noise) / len(gram) + 1e-12) * np.eye(len(gram))
            fitted[group] = np.linalg.solve(gram + towards, cross @ rows[group].T + towards @ prior[group].T).T
    return fitted if allowed is None else fitted * allowed


def _best_ridge(layer: Layer, halves: list[_Pairs], rows: np.ndarray, prior: np.ndarray) -> float:
    """Return the smallest ridge that is nearly the best when fitted on one half of the data and judged on the other.

    A small one is preferred because errors made good here do not reach the layers that follow.
    """
    errors = {
        ridge: sum(
            _error(layer, judge, rows, _fit(layer, learn, rows, prior, ridge))
            for learn, judge in (halves, halves[::-1])
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


def _fitting(graph: Graph) -> int:
    """Return how many batches of activations may be held at once (at least two)."""
    largest = 4 * max(int(np.prod(shape)) for shape in graph.shapes.values())
    return max(2, MEMORY_BYTES // (6 * largest))
