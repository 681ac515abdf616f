"""Repaired weights of layers, cached: static repair, from the reference's own statistics."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from .cache import Store, content_hash
from .graph import Layer
from .narrow import matrix_columns, whole_axis, with_inputs
from .repaired import FloatLayer, RoundedLayer, fields_of, refit_layer, round_layer, rounding_method, sparsified
from .rounding import VERSION
from .sparsity import VERSION as SPARSITY_VERSION
from .statistics import Progress, Statistics

INTEGER_WIDTHS = (2, 3, 4, 5, 6, 7, 8)
REFIT_VERSION = 1  # part of the cache key: raise it when refitted or sparse weights change
RECENT_BYTES = 500_000_000  # of layers with fewer inputs or weights, held in memory


class StaticRepair:
    """Layers rounded, and refitted to the inputs that stay, from the reference's statistics, each on its own.

    Whole layers are rounded to all widths at once; what a layer becomes with fewer inputs or zeroed weights is made when it
    is first asked for. All outputs are there always: which of them stay does not matter to the others.

    Args:
        statistics: the reference's; their cache entry also holds the rounded weights.
        method: the name of a rounding method.
        sparsify: the name of a method that chooses which weights are zeroed.
    """

    def __init__(self, statistics: Statistics, method: str = "second-order", sparsify: str = "second-order") -> None:
        self.statistics = statistics
        self.rounding = rounding_method(method)
        self.sparsify = sparsify
        self.store = Store(content_hash(statistics.key, method, VERSION))
        self._loaded: dict[str, dict[int, RoundedLayer]] = {}
        self._recent = Recent()

    def prepare(self, layers: Collection[str], progress: Progress | None = None) -> None:
        """Round these layers to every width unless the cache has it."""
        for number, name in enumerate(layers):
            self._widths(self.statistics.graph.layers[name])
            if progress is not None:
                progress("rounded weights", (number + 1) / len(layers))

    def rounded(self, layer: Layer, bits: int, sparsity: float = 0.0, kept: np.ndarray | None = None) -> RoundedLayer:
        """Return a layer rounded to ``bits`` (2-8).

        Args:
            layer: of the reference.
            bits: of its weights.
            sparsity: the fraction of them that is zeroed before.
            kept: the input channels (of each group) that stay; None for all.
        """
        if kept is None and not sparsity:
            return self._widths(layer)[bits]

        def make() -> dict[str, np.ndarray]:
            fitted, narrow, moments = self._base(layer, kept)
            found = round_layer(narrow, fitted.weight, moments, self.rounding, (bits,), sparsity, self.sparsify)[bits]
            return fields_of(replace(found, shift=found.shift + fitted.shift))

        return RoundedLayer(**self._kept_entry(layer, kept, (bits, sparsity), make))

    def fitted(self, layer: Layer, sparsity: float = 0.0, kept: np.ndarray | None = None) -> FloatLayer:
        """Return a layer in float, refitted to the inputs that stay and to the weights that the sparsity leaves."""

        def make() -> dict[str, np.ndarray]:
            if kept is not None and not sparsity:
                return fields_of(self._refitted(layer, kept))
            fitted, narrow, moments = self._base(layer, kept)
            return fields_of(sparsified(narrow, fitted, moments, sparsity, self.sparsify) if sparsity else fitted)

        return FloatLayer(**self._kept_entry(layer, kept, ("float", sparsity), make))

    def _base(
        self, layer: Layer, kept: np.ndarray | None
    ) -> tuple[FloatLayer, Layer, tuple[np.ndarray, np.ndarray] | None]:
        """Return the refitted weights, solved once for all widths, the layer as it now is, and its moments."""
        moments = self.statistics.moments(layer)
        if kept is None:
            weight = self.statistics.graph.weight(layer)
            return FloatLayer(weight, np.zeros(layer.channels, np.float32)), layer, moments
        if moments is not None:
            columns = matrix_columns(layer, kept)
            moments = (moments[0][:, columns][:, :, columns], moments[1][:, columns])
        return self.fitted(layer, kept=kept), with_inputs(layer, kept), moments

    def _refitted(self, layer: Layer, kept: np.ndarray) -> FloatLayer:
        weight, moments = self.statistics.graph.weight(layer), self.statistics.moments(layer)
        if moments is not None:
            return refit_layer(layer, weight, moments, kept)
        cut = np.take(weight, whole_axis(layer, kept), layer.input_axis)
        return FloatLayer(cut, np.zeros(layer.channels, np.float32))

    def _kept_entry(
        self, layer: Layer, kept: np.ndarray | None, what: tuple[object, ...], make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return arrays from memory or the cache, made where neither has them."""
        number = list(self.statistics.graph.layers).index(layer.name)
        key = content_hash(
            REFIT_VERSION, SPARSITY_VERSION, self.sparsify, list(what), [] if kept is None else kept.tolist()
        )
        name = f"layer-{number}-{key}"

        def load() -> dict[str, np.ndarray]:
            arrays = self.store.arrays(name)
            if arrays is None:
                arrays = make()
                self.store.put_arrays(name, arrays)
            return arrays

        return self._recent.get(name, load)

    def _widths(self, layer: Layer) -> dict[int, RoundedLayer]:
        if layer.name in self._loaded:
            return self._loaded[layer.name]
        name = f"rounded-{list(self.statistics.graph.layers).index(layer.name)}"
        arrays = self.store.arrays(name)
        if arrays is None:
            self.statistics.prepare()
            moments = self.statistics.moments(layer)
            found = round_layer(layer, self.statistics.graph.weight(layer), moments, self.rounding, INTEGER_WIDTHS)
            self.store.put_arrays(name, _packed(found))
            arrays = _packed(found)
        self._loaded[layer.name] = _unpacked(arrays)
        return self._loaded[layer.name]


class Recent:
    """The arrays that were used last, up to `RECENT_BYTES`."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()
        self._bytes = 0

    def get(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the arrays of this name, made where they are not held."""
        if name not in self._entries:
            self._entries[name] = make()
            self._bytes += _size(self._entries[name])
        self._entries.move_to_end(name)
        while self._bytes > RECENT_BYTES and len(self._entries) > 1:
            self._bytes -= _size(self._entries.popitem(last=False)[1])
        return self._entries[name]


def _size(arrays: dict[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _packed(widths: dict[int, RoundedLayer]) -> dict[str, np.ndarray]:
    return {
        f"{field}-{width}": getattr(rounded, field)
        for width, rounded in widths.items()
        for field in ("codes", "scale", "zero", "shift")
    }


def _unpacked(arrays: dict[str, np.ndarray]) -> dict[int, RoundedLayer]:
    widths = sorted({int(name.split("-")[1]) for name in arrays})
    return {
        w: RoundedLayer(arrays[f"codes-{w}"], arrays[f"scale-{w}"], arrays[f"zero-{w}"], arrays[f"shift-{w}"])
        for w in widths
    }
