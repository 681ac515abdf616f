"""What calibration data tells about a graph: value ranges of all tensors, Gram matrices of all layers' inputs.

Gathered once per (graph, calibration data) with ONNX Runtime, in memory bounded by the largest layers, and cached.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .cache import Store, content_hash
from .errors import BuildError
from .graph import Graph, Layer, save_model
from .matrix import columns, has_matrix, matrix_inputs
from .ranges import ValueSample, choose_range, seen_by_reader
from .recurrent import inputs_name, with_inputs
from .session import batches, open_session

VERSION = 7  # part of the cache key: raise it when results change
BYTES_AT_ONCE = 1_000_000_000  # of activations held between two runs
VALUES_KEPT = 131072  # of a tensor, to choose its range by least squared error: enough for its rare extremes to count
COLUMNS = (40, 4096, 16384)  # of a layer's Gram matrix: per input, at least, at most

Progress = Callable[[str, float], None]


class Statistics:
    """Ranges and Gram matrices of one graph under one set of calibration inputs.

    Args:
        graph: the captured reference.
        calibration: inputs by name, [N, ...] with the model's own axes behind N.
        only: names of the layers whose Gram matrices are wanted, without any ranges; None for everything.
    """

    def __init__(
        self, graph: Graph, calibration: Mapping[str, np.ndarray], only: Collection[str] | None = None
    ) -> None:
        self.graph = graph
        self.calibration = calibration
        self.only = only
        self.key = content_hash(
            VERSION,
            graph.digest,
            sorted(calibration),
            *(calibration[k] for k in sorted(calibration)),
            *([] if only is None else [sorted(only)]),
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
        if not has_matrix(layer):
            return None
        found = self._moments(layer)
        if found is None:  # never gathered, or lost from the cache
            self._gather(None)
            found = self._moments(layer)
        return found

    def _moments(self, layer: Layer) -> tuple[np.ndarray, np.ndarray] | None:
        gram = self.store.array(f"gram-{self._number(layer)}")
        mean = self.store.array(f"mean-{self._number(layer)}")
        return None if gram is None or mean is None else (gram, mean)

    def _put_moments(self, moments: _Moments) -> None:
        gram, mean = moments.result()
        self.store.put_array(f"gram-{self._number(moments.layer)}", gram)
        self.store.put_array(f"mean-{self._number(moments.layer)}", mean)

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
        graph, read = self.graph, with_inputs(self.graph)
        layers_of = _layers_reading(graph, graph.layers if self.only is None else self.only)
        values = {name: ValueSample() for name in _float_tensors(graph)} if self.only is None else {}
        feeds = -(-len(next(iter(self.calibration.values()))) // graph.batch)
        readings = Counter(name for names in layers_of.values() for name in names)
        sums = {name: _Moments(graph.layers[name], feeds * count) for name, count in readings.items()}
        held = {name: sum(sums[layer].size_bytes for layer in layers) for name, layers in layers_of.items()}
        share = VALUES_KEPT // feeds + 1
        random = np.random.default_rng(0)
        for fraction, name, array in activations(
            read, self.calibration, list(dict.fromkeys((*values, *layers_of))), held
        ):
            if name in values:
                values[name].add(array, share, len(values[name].kept))
            for layer in layers_of.get(name, ()):
                sums[layer].add(array, random)
                if sums[layer].complete:
                    self._put_moments(sums.pop(layer))
            if progress is not None:
                progress("calibration statistics", fraction)
        seen = seen_by_reader(graph, values)
        bounds = np.array([choose_range(v.values, v.low, v.high, seen.get(name)) for name, v in values.items()])
        self.store.put_arrays("ranges", {"names": np.array(list(values)), "bounds": bounds})


def activations(
    graph: Graph, inputs: Mapping[str, np.ndarray], names: Sequence[str], held: Mapping[str, int] | None = None
) -> Iterator[tuple[float, str, np.ndarray]]:
    """Yield (fraction done, tensor, values) of the reference for each batch of the inputs.

    Tensors are fetched in as many passes as `BYTES_AT_ONCE` demands, so memory stays bounded for large models.

    Args:
        graph: the captured reference.
        inputs: by name, [N, ...].
        names: the tensors to fetch.
        held: bytes that the caller keeps for a tensor until its last batch.

    Raises:
        BuildError: the reference gives NaN or infinite values on these inputs.
    """
    groups = _groups(graph, names, held or {})
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


def _groups(graph: Graph, names: Sequence[str], held: Mapping[str, int]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    total = 0
    for name in names:
        size = 4 * int(np.prod(graph.shapes[name])) + held.get(name, 0)
        if groups[-1] and total + size > BYTES_AT_ONCE:
            groups.append([])
            total = 0
        groups[-1].append(name)
        total += size
    return groups


def _float_tensors(graph: Graph) -> list[str]:
    names = [port.name for port in graph.inputs if port.dtype == "float32"]
    for node in graph.model.graph:
        names += [v.name for v in node.outputs if v.name and v.dtype is not None and v.dtype.name == "FLOAT"]
    return [name for name in names if int(np.prod(graph.shapes[name]))]


def _layers_reading(graph: Graph, wanted: Collection[str]) -> dict[str, list[str]]:
    """Return the wanted layers with a matrix that read each tensor."""
    readers: dict[str, list[str]] = {}
    for node in graph.model.graph:
        layer = graph.layer_of_node.get(node.name or "")
        if layer is not None and layer in wanted and has_matrix(graph.layers[layer]) and node.inputs[0] is not None:
            own = inputs_name(node.name or "") if graph.layers[layer].recurrent else node.inputs[0].name or ""
            readers.setdefault(own, []).append(layer)
    return readers


def columns_of_feed(layer: Layer, feeds: int) -> int:
    """Return how many columns of a layer's unfolded input to take from each of ``feeds`` batches."""
    per_input, least, most = COLUMNS
    return -(-min(max(per_input * matrix_inputs(layer), least), most) // feeds)


class _Moments:
    """Sums of x x^T and x over sampled columns of a layer's unfolded input, given in ``feeds`` parts."""

    def __init__(self, layer: Layer, feeds: int) -> None:
        self.layer = layer
        self.remaining = feeds
        self.inputs = matrix_inputs(layer)
        self.limit = columns_of_feed(layer, feeds)
        self.gram: np.ndarray | None = None
        self.mean: np.ndarray | None = None
        self.count = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the Gram matrices."""
        return 4 * self.inputs**2 * max(self.layer.group, self.layer.blocks)

    @property
    def complete(self) -> bool:
        """Whether all parts were added."""
        return self.remaining == 0

    def add(self, x: np.ndarray, random: np.random.Generator) -> None:
        """Add one part: the layer's input of a batch."""
        sampled = columns(self.layer, x, self.limit, random)
        gram = sampled.transpose(0, 2, 1) @ sampled
        total = sampled.sum(axis=1)
        self.gram = gram if self.gram is None else np.add(self.gram, gram, out=self.gram)
        self.mean = total if self.mean is None else self.mean + total
        self.count += sampled.shape[1]
        self.remaining -= 1

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.gram is not None and self.mean is not None
        return (self.gram / self.count).astype(np.float32), (self.mean / self.count).astype(np.float32)
