"""Repaired weights of layers, cached: static repair, from the reference's own statistics."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace

import numpy as np

from .cache import Store, content_hash
from .errors import BuildError, InputError, nearest
from .graph import Layer
from .matrix import from_matrix, has_matrix, has_own_biases, mask, matrix_inputs, row_channels, to_matrix
from .narrow import matrix_columns, take_outputs, whole_axis, with_inputs
from .packing import sparse_widths
from .refit import refit
from .rounding import METHODS, VERSION, Rounding, Rows
from .sparsity import METHODS as SPARSIFIERS
from .sparsity import VERSION as SPARSITY_VERSION
from .sparsity import Sparsifier
from .statistics import Progress, Statistics
from .threads import threads_for

INTEGER_WIDTHS = (2, 3, 4, 5, 6, 7, 8)
REFIT_VERSION = 1  # part of the cache key: raise it when refitted or sparse weights change
RECENT_BYTES = 500_000_000  # of layers with fewer inputs or weights, held in memory


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


@dataclass(frozen=True)
class FloatLayer:
    """A layer's weights in float, repaired for what was removed or zeroed.

    Attributes:
        weight: float32, in the weight's stored layout.
        shift: float32 [O], to be added to the bias.
    """

    weight: np.ndarray
    shift: np.ndarray


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
            fitted, narrow, moments = self._fitted(layer, kept)
            found = round_layer(narrow, fitted.weight, moments, self.rounding, (bits,), sparsity, self.sparsify)[bits]
            return fields_of(replace(found, shift=found.shift + fitted.shift))

        return RoundedLayer(**self._kept_entry(layer, kept, (bits, sparsity), make))

    def fitted(self, layer: Layer, sparsity: float = 0.0, kept: np.ndarray | None = None) -> FloatLayer:
        """Return a layer in float, refitted to the inputs that stay and to the weights that the sparsity leaves."""

        def make() -> dict[str, np.ndarray]:
            fitted, narrow, moments = self._fitted(layer, kept)
            if sparsity:
                fitted = sparsified(narrow, fitted, moments, sparsity, self.sparsify)
            return fields_of(fitted)

        return FloatLayer(**self._kept_entry(layer, kept, ("float", sparsity), make))

    def _fitted(
        self, layer: Layer, kept: np.ndarray | None
    ) -> tuple[FloatLayer, Layer, tuple[np.ndarray, np.ndarray] | None]:
        """Return the refitted weights, the layer as it now is, and its moments."""
        weight, moments = self.statistics.graph.weight(layer), self.statistics.moments(layer)
        if kept is None:
            return FloatLayer(weight, np.zeros(layer.channels, np.float32)), layer, moments
        narrow = with_inputs(layer, kept)
        if moments is None:
            cut = np.take(weight, whole_axis(layer, kept), layer.input_axis)
            return FloatLayer(cut, np.zeros(layer.channels, np.float32)), narrow, None
        fitted = refit_layer(layer, weight, moments, kept)
        columns = matrix_columns(layer, kept)
        part = (moments[0][:, columns][:, :, columns], moments[1][:, columns])
        return fitted, narrow, part

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


def fields_of(layer: RoundedLayer | FloatLayer) -> dict[str, np.ndarray]:
    """Return a layer's arrays by name."""
    return {field.name: getattr(layer, field.name) for field in fields(layer)}


def take(layer: Layer, found: RoundedLayer | FloatLayer, kept: np.ndarray | None) -> RoundedLayer | FloatLayer:
    """Return a layer with these of its output channels only; all where ``kept`` is None."""
    if kept is None:
        return found
    if isinstance(found, FloatLayer):
        return FloatLayer(take_outputs(layer, found.weight, kept), found.shift[kept])
    return RoundedLayer(take_outputs(layer, found.codes, kept), found.scale[kept], found.zero[kept], found.shift[kept])


def refit_layer(
    layer: Layer, weight: np.ndarray, moments: tuple[np.ndarray, np.ndarray], kept: np.ndarray
) -> FloatLayer:
    """Return a layer's weights refitted to the input channels (of each group) that stay.

    Args:
        layer: as it was.
        weight: float32 in stored layout, all inputs there.
        moments: mean of x x^T [G, D, D] and of x [G, D] of all its inputs.
        kept: the input channels that stay.
    """
    rows, columns, structural = to_matrix(layer, weight), matrix_columns(layer, kept), mask(layer)
    fitted = []
    with threads_for(matrix_inputs(layer)):
        for group in range(len(rows)):
            allowed = None if structural is None else structural[group][:, columns]
            fitted.append(refit(rows[group], _centred(layer, moments, group), columns, mask=allowed))
    narrow = with_inputs(layer, kept)
    change = [rows[g] @ moments[1][g] - fitted[g] @ moments[1][g][columns] for g in range(len(fitted))]
    return FloatLayer(from_matrix(narrow, np.stack(fitted)), bias_shift(layer, np.stack(change)))


def bias_shift(layer: Layer, change: np.ndarray) -> np.ndarray:
    """Return what to add to the bias [O] so that the rows' mean outputs [G, R] stay; rows of a channel share it."""
    if layer.op == "MatMul":
        return np.zeros(layer.channels, np.float32)
    channels = row_channels(layer).reshape(-1)
    return (np.bincount(channels, change.reshape(-1)) / np.bincount(channels)).astype(np.float32)


def sparsified(
    layer: Layer, found: FloatLayer, moments: tuple[np.ndarray, np.ndarray] | None, sparsity: float, method: str
) -> FloatLayer:
    """Return a layer with this fraction of its weights at zero and the others repaired."""
    if not has_matrix(layer):
        raise BuildError(f"layer {layer.name!r} is a dilated ConvTranspose: its sparsity must be 0")
    rows = to_matrix(layer, found.weight)
    sparse = np.stack([weights for _, weights in _sparse_rows(layer, rows, moments, sparsity, method)])
    change = np.zeros(rows.shape[:2])
    if moments is not None:
        change = np.einsum("grd,gd->gr", rows - sparse, moments[1])
    return FloatLayer(from_matrix(layer, sparse), found.shift + bias_shift(layer, change))


def _sparse_rows(
    layer: Layer, rows: np.ndarray, moments: tuple[np.ndarray, np.ndarray] | None, sparsity: float, method: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each group which weights stay, bool [R, D], and the repaired weights."""
    structural = mask(layer)
    chosen = sparsity_method(method)
    with threads_for(matrix_inputs(layer)):
        return [
            chosen.sparsify(
                np.ascontiguousarray(rows[group], np.float32),
                _gram(layer, moments, group),
                sparsity,
                None if structural is None else structural[group],
            )
            for group in range(len(rows))
        ]


def _gram(layer: Layer, moments: tuple[np.ndarray, np.ndarray] | None, group: int) -> np.ndarray | None:
    """Return `_centred`, or None where there are no moments."""
    return None if moments is None else _centred(layer, moments, group)


def _centred(layer: Layer, moments: tuple[np.ndarray, np.ndarray], group: int) -> np.ndarray:
    """Return the Gram matrix of a group's inputs, without the mean's part where a bias takes that up."""
    gram, mean = np.asarray(moments[0][group]), np.asarray(moments[1][group])
    return np.asarray(gram - np.outer(mean, mean)) if has_own_biases(layer) else gram


def round_layer(
    layer: Layer,
    weight: np.ndarray,
    moments: tuple[np.ndarray, np.ndarray] | None,
    rounding: Rounding,
    bits: tuple[int, ...],
    sparsity: float = 0.0,
    sparsify: str = "second-order",
) -> dict[int, RoundedLayer]:
    """Round one layer's weight to each of ``bits``, group by group.

    Args:
        weight: float32 in stored layout.
        moments: mean of x x^T [G, D, D] and of x [G, D] of the layer's inputs, or None for plain rounding.
        sparsity: the fraction of the weights that is zeroed before.
        sparsify: the method that chooses them.
    """
    if not has_matrix(layer):
        return {width: _round_unfolded(layer, weight, rounding, width) for width in bits}
    rows = np.ascontiguousarray(to_matrix(layer, weight), np.float32)
    channels = row_channels(layer)
    allowed = mask(layer)
    shift = np.zeros(rows.shape[:2])
    sparse = None
    if sparsity:
        found = _sparse_rows(layer, rows, moments, sparsity, sparsify)
        allowed, zeroed = (np.stack(parts) for parts in zip(*found, strict=True))
        if moments is not None and layer.op != "MatMul":
            shift = np.einsum("grd,gd->gr", rows - zeroed, moments[1])
        rows = zeroed
        sparse = sparse_widths(weight.size, int(allowed.sum()), bits)
    results: list[dict[int, Rows]] = []
    with threads_for(matrix_inputs(layer)):
        for group in range(len(rows)):
            result = rounding.round(
                rows[group],
                _gram(layer, moments, group),
                np.asarray(moments[1][group]) if moments is not None and layer.op != "MatMul" else None,
                bits,
                channels[group] - channels[group].min(),
                None if allowed is None else allowed[group],
                sparse,
            )
            results.append(
                {w: replace(r, shift=(r.shift + shift[group]).astype(np.float32)) for w, r in result.items()}
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


def sparsity_method(name: str) -> Sparsifier:
    """Return the sparsity method of this name.

    Raises:
        InputError: there is none.
    """
    if name not in SPARSIFIERS:
        raise InputError(
            f"unknown sparsity method {name!r}{nearest(name, SPARSIFIERS)}; known: {', '.join(SPARSIFIERS)}"
        )
    return SPARSIFIERS[name]()


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
