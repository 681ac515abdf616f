"""Rounded weights of layers, cached: static repair, from the reference's own statistics."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from .cache import Store, content_hash
from .errors import InputError, nearest
from .graph import Layer
from .matrix import from_matrix, has_matrix, has_own_biases, mask, row_channels, to_matrix
from .rounding import METHODS, VERSION, Rounding, Rows
from .statistics import Progress, Statistics

INTEGER_WIDTHS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class RoundedLayer:
    """A layer's weights as integers.

    Attributes:
        codes: int8, in the weight's stored layout.
        scale: float32 [O], positive; weight = codes * scale.
        zero: int16 [O], the grid's offset: codes = step * u - zero.
        shift: float32 [O], to be added to the bias.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    shift: np.ndarray


class StaticRepair:
    """Layers rounded to all widths from the reference's statistics, each on its own.

    Args:
        statistics: the reference's; their cache entry also holds the rounded weights.
        method: the name of a rounding method.
    """

    def __init__(self, statistics: Statistics, method: str = "second-order") -> None:
        self.statistics = statistics
        self.rounding = rounding_method(method)
        self.store = Store(content_hash(statistics.key, method, VERSION))
        self._loaded: dict[str, dict[int, RoundedLayer]] = {}

    def prepare(self, layers: Collection[str], progress: Progress | None = None) -> None:
        """Round these layers to every width unless the cache has it."""
        for number, name in enumerate(layers):
            self._widths(self.statistics.graph.layers[name])
            if progress is not None:
                progress("rounded weights", (number + 1) / len(layers))

    def rounded(self, layer: Layer, bits: int) -> RoundedLayer:
        """Return a layer rounded to ``bits`` (2-8)."""
        return self._widths(layer)[bits]

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


def round_layer(
    layer: Layer,
    weight: np.ndarray,
    moments: tuple[np.ndarray, np.ndarray] | None,
    rounding: Rounding,
    bits: tuple[int, ...],
) -> dict[int, RoundedLayer]:
    """Round one layer's weight to each of ``bits``, group by group.

    Args:
        weight: float32 in stored layout.
        moments: mean of x x^T [G, D, D] and of x [G, D] of the layer's inputs, or None for plain rounding.
    """
    if not has_matrix(layer):
        return {width: _round_unfolded(layer, weight, rounding, width) for width in bits}
    rows = to_matrix(layer, weight)
    channels = row_channels(layer)
    allowed = mask(layer)
    with_bias = layer.op != "MatMul"
    results: list[dict[int, Rows]] = []
    for group in range(len(rows)):
        gram = mean = None
        if moments is not None:
            gram, mean = np.asarray(moments[0][group]), np.asarray(moments[1][group])
            if has_own_biases(layer):  # they will make good for the mean error
                gram = gram - np.outer(mean, mean)
        first = channels[group].min()
        results.append(
            rounding.round(
                np.ascontiguousarray(rows[group], np.float32),
                gram,
                mean if with_bias else None,
                bits,
                channels[group] - first,
                None if allowed is None else allowed[group],
            )
        )
    return {width: _assemble(layer, channels, [result[width] for result in results]) for width in bits}


def rounding_method(name: str) -> Rounding:
    """Return the rounding method of this name.

    Raises:
        InputError: there is none.
    """
    if name not in METHODS:
        raise InputError(f"unknown rounding method {name!r}{nearest(name, METHODS)}; known: {', '.join(METHODS)}")
    return METHODS[name]()


def _assemble(layer: Layer, channels: np.ndarray, groups: list[Rows]) -> RoundedLayer:
    flat = channels.reshape(-1)
    count = layer.channels

    def by_channel(values: list[np.ndarray]) -> np.ndarray:
        result = np.zeros(count, values[0].dtype)
        result[flat] = np.concatenate(values)
        return result

    shift = np.bincount(flat, np.concatenate([g.shift for g in groups]), minlength=count) / np.bincount(flat)
    codes = from_matrix(layer, np.stack([g.codes for g in groups]))
    return RoundedLayer(
        codes=np.ascontiguousarray(codes),
        scale=by_channel([g.scale for g in groups]),
        zero=by_channel([g.zero for g in groups]),
        shift=shift.astype(np.float32),
    )


def _round_unfolded(layer: Layer, weight: np.ndarray, rounding: Rounding, width: int) -> RoundedLayer:
    """Round a layer that has no matrix form here (a dilated ConvTranspose): plainly, output channel by channel."""
    per_group = layer.shape[1]
    split = weight.reshape(layer.group, -1, per_group, *weight.shape[2:])
    rows = np.moveaxis(split, 2, 1).reshape(layer.channels, -1)
    result = rounding.round(rows, None, None, (width,), np.arange(layer.channels))[width]
    codes = result.codes.reshape(layer.group, per_group, split.shape[1], *weight.shape[2:])
    codes = np.ascontiguousarray(np.moveaxis(codes, 2, 1).reshape(weight.shape))
    return RoundedLayer(codes, result.scale, result.zero, result.shift)


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
