"""Sequential repair: layers rounded in the order of the data, each refitted to the inputs it will really get.

Before a layer is rounded its weights are solved by least squares so that on the inputs from layers already rounded it gives
the reference's outputs, with a ridge towards the old weights; then they are rounded with the Gram matrix of those inputs.
The idea of matching the uncompressed outputs layer by layer is that of Optimal Brain Compression (arXiv:2208.11580).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .cache import Store, content_hash
from .candidate import Candidate
from .graph import Graph, Layer
from .matrix import columns, from_matrix, has_matrix, mask, row_channels, to_matrix
from .repair import RoundedLayer, round_layer
from .rounding import VERSION as ROUNDING_VERSION
from .session import batches
from .statistics import columns_of_feed
from .stepwise import Stepwise
from .weights import per_channel, shifted_bias

if TYPE_CHECKING:
    from .build import Builder

VERSION = 3  # part of the cache key: raise it when results change
RIDGE = 0.01  # of the mean diagonal of the Gram matrix
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
        return builder.static.rounded(
            layer, bits
        )  # weights that serve several places keep the statistics of all of them
    gram, mean, cross, mean_before = _moments(layer, compressed.inputs_of(name), reference.inputs_of(name))
    rows = to_matrix(layer, builder.equalised.weight(layer))
    allowed = mask(layer)
    fitted = np.empty_like(rows)
    for group in range(len(rows)):
        centred, crossed = gram[group], cross[group]
        if layer.op != "MatMul":
            centred = centred - np.outer(mean[group], mean[group])
            crossed = crossed - np.outer(mean[group], mean_before[group])
        ridge = RIDGE * np.trace(centred) / len(centred) + 1e-12
        identity = ridge * np.eye(len(centred))
        regular = centred + identity
        target = (crossed + identity) @ rows[group].T
        fitted[group] = np.linalg.solve(regular, target).T
        if allowed is not None:
            fitted[group] *= allowed[group]
    rounded = round_layer(layer, from_matrix(layer, fitted), (gram, mean), builder.static.rounding, (bits,))[bits]
    if layer.op == "MatMul":
        return rounded
    moved = np.einsum("grd,gd->gr", rows, mean_before) - np.einsum("grd,gd->gr", fitted, mean)
    return RoundedLayer(rounded.codes, rounded.scale, rounded.zero, rounded.shift + _by_channel(layer, moved))


def _moments(
    layer: Layer, now: list[np.ndarray], before: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return E[x x^T], E[x], E[x y^T], E[y] for the inputs x now and y before, at the same sampled positions."""
    limit = columns_of_feed(layer, len(now))
    sums = None
    count = 0
    for number, (x, y) in enumerate(zip(now, before, strict=True)):
        a = columns(layer, x, limit, np.random.default_rng(number))
        b = columns(layer, y, limit, np.random.default_rng(number))
        both = a.transpose(0, 2, 1) @ np.concatenate([a, b], axis=2)
        part = [both, a.sum(axis=1), b.sum(axis=1)]
        sums = part if sums is None else [s + p for s, p in zip(sums, part, strict=True)]
        count += a.shape[1]
    assert sums is not None
    both, mean, mean_before = ((s / count).astype(np.float64) for s in sums)
    gram, cross = np.split(both, 2, axis=2)
    return gram, mean, cross, mean_before


def _by_channel(layer: Layer, rows: np.ndarray) -> np.ndarray:
    channels = row_channels(layer).reshape(-1)
    return (np.bincount(channels, rows.reshape(-1)) / np.bincount(channels)).astype(np.float32)


def _fitting(graph: Graph) -> int:
    """Return how many batches of activations may be held at once (at least two)."""
    largest = 4 * max(int(np.prod(shape)) for shape in graph.shapes.values())
    return max(2, MEMORY_BYTES // (6 * largest))
