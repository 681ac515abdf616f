"""What calibration data tells about the reference: value ranges of all tensors, Gram matrices of all layers' inputs.

Gathered once per (graph, calibration data) with ONNX Runtime, in memory bounded by the largest layers, and cached.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .cache import Store, content_hash
from .errors import BuildError
from .graph import Graph, Layer, save_model
from .matrix import columns, has_matrix
from .ranges import ValueSample, choose_range, seen_by_reader
from .session import batches, open_session

VERSION = 6  # part of the cache key: raise it when results change
BYTES_AT_ONCE = 1_000_000_000  # of activations held between two runs
VALUES_KEPT = 16384  # of a tensor, to choose its range by least squared error
COLUMNS = (40, 4096, 16384)  # of a layer's Gram matrix: per input, at least, at most

Progress = Callable[[str, float], None]


class Statistics:
    """Ranges and Gram matrices of one graph under one set of calibration inputs.

    Args:
        graph: the captured reference.
        calibration: inputs by name, [N, ...] with the model's own axes behind N.
    """

    def __init__(self, graph: Graph, calibration: Mapping[str, np.ndarray]) -> None:
        self.graph = graph
        self.calibration = calibration
        self.key = content_hash(
            VERSION, graph.digest, sorted(calibration), *(calibration[k] for k in sorted(calibration))
        )
        self.store = Store(self.key)
        self._ranges: dict[str, tuple[float, float]] | None = None

    def prepare(self, progress: Progress | None = None) -> None:
        """Gather everything unless the cache has it."""
        if self._load_ranges() is None:
            self._gather(progress)

    def range(self, tensor: str) -> tuple[float, float]:
        """Return the (low, high) that 8 bits should span for a tensor: least squared error over the calibration data."""
        ranges = self._load_ranges()
        if ranges is None:
            self._gather(None)
            ranges = self._load_ranges()
            assert ranges is not None
        return ranges[tensor]

    def moments(self, layer: Layer) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the mean of x x^T [G, D, D] and of x [G, D] over a layer's unfolded inputs; None where it has no matrix."""
        gram = self.store.array(f"gram-{self._number(layer)}")
        mean = self.store.array(f"mean-{self._number(layer)}")
        return None if gram is None or mean is None else (gram, mean)

    def _number(self, layer: Layer) -> int:
        return list(self.graph.layers).index(layer.name)

    def _load_ranges(self) -> dict[str, tuple[float, float]] | None:
        if self._ranges is None:
            arrays = self.store.arrays("ranges")
            if arrays is not None:
                bounds = arrays["bounds"]
                self._ranges = {
                    str(n): (float(b[0]), float(b[1])) for n, b in zip(arrays["names"], bounds, strict=True)
                }
        return self._ranges

    def _gather(self, progress: Progress | None) -> None:
        graph = self.graph
        values = {name: ValueSample() for name in _float_tensors(graph)}
        layers_of = _layers_reading(graph)
        sums = {name: _Moments(layer) for name, layer in graph.layers.items() if has_matrix(layer)}
        count = len(next(iter(self.calibration.values())))
        share = VALUES_KEPT // max(1, count // graph.batch) + 1
        random = np.random.default_rng(0)
        for fraction, name, array in activations(graph, self.calibration, list(values)):
            values[name].add(array, share, len(values[name].kept))
            for layer_name in layers_of.get(name, ()):
                if layer_name in sums:
                    sums[layer_name].add(array, count // graph.batch or 1, random)
            if progress is not None:
                progress("calibration statistics", fraction)
        for name, moments in sums.items():
            gram, mean = moments.result()
            self.store.put_array(f"gram-{self._number(graph.layers[name])}", gram)
            self.store.put_array(f"mean-{self._number(graph.layers[name])}", mean)
        seen = seen_by_reader(graph, values)
        bounds = np.array([choose_range(v.values, v.low, v.high, seen.get(name)) for name, v in values.items()])
        self.store.put_arrays("ranges", {"names": np.array(list(values)), "bounds": bounds})


def activations(
    graph: Graph, inputs: Mapping[str, np.ndarray], names: Sequence[str]
) -> Iterator[tuple[float, str, np.ndarray]]:
    """Yield (fraction done, tensor, values) of the reference for each batch of the inputs.

    Tensors are fetched in as many passes as `BYTES_AT_ONCE` demands, so memory stays bounded for large models.

    Raises:
        BuildError: the reference gives NaN or infinite values on these inputs.
    """
    groups = _groups(graph, names)
    feeds = list(batches(inputs, graph.batch))
    with tempfile.TemporaryDirectory() as folder:
        for number, group in enumerate(groups):
            fed = [name for name in group if name in feeds[0]]
            computed = [name for name in group if name not in feeds[0]]
            path = Path(folder) / f"{number}.onnx"
            session = None
            if computed:
                save_model(graph.with_outputs(computed), path)
                session = open_session(path, threads=os.cpu_count() or 1, spinning=False)
            for index, feed in enumerate(feeds):
                fraction = (number * len(feeds) + index + 1) / (len(groups) * len(feeds))
                for name in fed:
                    yield fraction, name, feed[name]
                outputs = session.run(computed, feed) if session is not None else []
                for name, array in zip(computed, outputs, strict=True):
                    if not np.isfinite(array).all():
                        raise BuildError(
                            f"the reference gives NaN or infinite values in {name!r} on the calibration data"
                        )
                    yield fraction, name, array


def _groups(graph: Graph, names: Sequence[str]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    held = 0
    for name in names:
        size = 4 * int(np.prod(graph.shapes[name]))
        if groups[-1] and held + size > BYTES_AT_ONCE:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _float_tensors(graph: Graph) -> list[str]:
    names = [port.name for port in graph.inputs if port.dtype == "float32"]
    for node in graph.model.graph:
        names += [v.name for v in node.outputs if v.name and v.dtype is not None and v.dtype.name == "FLOAT"]
    return [name for name in names if int(np.prod(graph.shapes[name]))]


def _layers_reading(graph: Graph) -> dict[str, list[str]]:
    readers: dict[str, list[str]] = {}
    for node in graph.model.graph:
        layer = graph.layer_of_node.get(node.name or "")
        if layer is not None and node.inputs[0] is not None:
            readers.setdefault(node.inputs[0].name or "", []).append(layer)
    return readers


class _Moments:
    """Sums of x x^T and x over sampled columns of a layer's unfolded input."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.gram: np.ndarray | None = None
        self.mean: np.ndarray | None = None
        self.count = 0

    def add(self, x: np.ndarray, feeds: int, random: np.random.Generator) -> None:
        inputs = int(np.prod(self.layer.shape)) // self.layer.channels
        per_input, least, most = COLUMNS
        limit = -(-min(max(per_input * inputs, least), most) // feeds)
        sampled = columns(self.layer, x, limit, random)
        gram = sampled.transpose(0, 2, 1) @ sampled
        total = sampled.sum(axis=1)
        self.gram = gram if self.gram is None else self.gram + gram
        self.mean = total if self.mean is None else self.mean + total
        self.count += sampled.shape[1]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.gram is not None and self.mean is not None
        return (self.gram / self.count).astype(np.float32), (self.mean / self.count).astype(np.float32)
