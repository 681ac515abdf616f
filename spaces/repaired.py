"""One layer changed and made good: refitted to fewer inputs, with weights at zero, rounded; from its inputs' Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from .errors import BuildError, InputError, nearest
from .graph import Layer
from .matrix import from_matrix, has_matrix, has_own_biases, mask, matrix_inputs, row_channels, to_matrix
from .narrow import matrix_columns, take_outputs, with_inputs
from .packing import sparse_widths
from .refit import refit
from .rounding import METHODS, Rounding, Rows
from .sparsity import METHODS as SPARSIFIERS
from .sparsity import Sparsifier
from .threads import threads_for


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
