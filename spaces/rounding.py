"""Rounding of weights to few bits: plain, and second-order from the Gram matrix of the layer's inputs.

A rounding method is an extension point: it takes weight rows and a Gram matrix and returns integer codes and scales.
The second-order method is in the manner of GPTQ and Optimal Brain Compression (Frantar, Ashkboos, Hoefler and Alistarh,
arXiv:2210.17323; Frantar and Alistarh, arXiv:2208.11580). Ours differs: all widths of a layer are rounded in one pass, the
bias is solved exactly (its row of the Gram matrix is eliminated first), and coordinate descent with refitted scales follows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

VERSION = 7  # part of the cache key: raise it when results change
BLOCK = 128
SWEEPS = 2
VALUES_AT_ONCE = 1 << 23  # weights times widths: what memory is bounded by
CACHED_VALUES = 1 << 16  # of weights at a time in the search for scales: what stays in the processor's cache


@dataclass(frozen=True)
class Grid:
    """The integers that a code of ``bits`` may take: ``step * u - zero`` for u in 0 .. 2**bits - 1, times a scale.

    Few bits use a step of two, so that a channel can have levels on both sides of zero without wasting one
    (zero = 2**bits - 1 is the mid-rise grid, e.g. -3, -1, 1, 3).

    Attributes:
        bits: 2 to 8.
        sparse: None for a layer without sparsity. Else whether its zeros are left out of the file: where they are not, 0 has to
            be one of the codes; where they are, all channels share an offset, which costs less than it gains to store.
    """

    bits: int
    sparse: bool | None = None

    @property
    def step(self) -> int:
        """Distance between neighbouring codes."""
        return 2 if self.bits <= 4 else 1

    @property
    def zeros(self) -> tuple[int, ...]:
        """The offsets that a channel may choose from."""
        half = self.step << (self.bits - 1)
        if self.step == 1:
            return (half,)
        without, within = (half - 1,), (half, half - 2)  # 0 as a code
        return without + within if self.sparse is None else without if self.sparse else within

    @property
    def lowest(self) -> int:
        """The smallest u: 1 at 8 bits, so that codes are -127 .. 127."""
        return 1 if self.bits == 8 else 0

    @property
    def highest(self) -> int:
        """The largest u."""
        return (1 << self.bits) - 1

    def nearest(self, values: np.ndarray, zero: np.ndarray | int) -> np.ndarray:
        """Return the nearest codes, as float32, of values already divided by the scale."""
        return np.clip(np.rint((values + zero) / self.step), self.lowest, self.highest) * self.step - zero


@dataclass(frozen=True)
class Rows:
    """Rounded rows of one group: ``codes * scale`` approximates the weights.

    Attributes:
        codes: int8 [R, D].
        scale: float32 [R], positive.
        zero: int16 [R], the grid's offset of each row.
        shift: float32 [R], what to add to the bias so that the mean output stays.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    shift: np.ndarray


class Rounding(Protocol):
    """A rounding method. ``round`` is deterministic and keeps masked weights (False) at zero."""

    name: str

    def round(
        self,
        weights: np.ndarray,
        gram: np.ndarray | None,
        mean: np.ndarray | None,
        bits: Sequence[int],
        channels: np.ndarray,
        mask: np.ndarray | None = None,
        sparse: Collection[int] | None = None,
    ) -> dict[int, Rows]:
        """Round rows [R, D] to each of ``bits``.

        Args:
            weights: float32 [R, D].
            gram: mean of x x^T over the layer's inputs [D, D] (without the mean's part where the layer has a bias), or None.
            mean: mean input [D], None where the layer has no bias.
            bits: widths of 2 to 8.
            channels: output channel of each row [R]; rows of one channel share their scale.
            mask: False where a weight is zero, structurally or by sparsity, bool [R, D].
            sparse: None for a layer without sparsity, else those of the widths at which masked weights are left out of the file
                (`packing.sparse_widths`); at the others they are stored as codes, of which 0 has to be one.
        """
        ...


class PlainRounding:
    """Round to the nearest code; scales by least squared error of the weights."""

    name = "plain"

    def round(
        self,
        weights: np.ndarray,
        gram: np.ndarray | None,
        mean: np.ndarray | None,
        bits: Sequence[int],
        channels: np.ndarray,
        mask: np.ndarray | None = None,
        sparse: Collection[int] | None = None,
    ) -> dict[int, Rows]:
        """Round rows without regard to the inputs (the Gram matrix only shifts the bias)."""
        result = {}
        for width in bits:
            grid = _grid(width, sparse)
            even = np.ones((1, weights.shape[1]), np.float32)
            (scale,), (zero,) = search_scales(weights.T, even, grid, channels, None if mask is None else mask.T)
            codes = grid.nearest(weights / scale[:, None], zero[:, None])
            result[width] = _rows(weights, codes if mask is None else codes * mask, scale, zero, mean)
        return result


class SecondOrderRounding:
    """Round column by column, each error made good by the columns that follow, then by coordinate descent."""

    name = "second-order"

    def round(
        self,
        weights: np.ndarray,
        gram: np.ndarray | None,
        mean: np.ndarray | None,
        bits: Sequence[int],
        channels: np.ndarray,
        mask: np.ndarray | None = None,
        sparse: Collection[int] | None = None,
    ) -> dict[int, Rows]:
        """Round rows so that the squared error of the layer's output is small: by the damped Gram matrix never above plain's."""
        if gram is None:
            return PlainRounding().round(weights, gram, mean, bits, channels, mask, sparse)
        hessian = damped(gram)
        order = np.argsort(-np.diag(hessian), kind="stable")
        hessian = hessian[np.ix_(order, order)]
        upper = inverse_factor(hessian)
        hessian = hessian.astype(np.float32)
        grids = [_grid(width, sparse) for width in bits]
        codes = np.empty((len(bits), *weights.shape), np.int8)
        scale, zero = np.empty((2, len(bits), len(weights)), np.float32)
        for part in _parts(channels, max(1, VALUES_AT_ONCE // (len(order) * len(bits)))):
            columns = np.ascontiguousarray(weights[part].T[order], np.float32)
            allowed = None if mask is None else np.ascontiguousarray(mask[part].T[order])
            _, own = np.unique(channels[part], return_inverse=True)
            found = _rounded(columns, hessian, upper, grids, own, allowed)
            codes[:, part[:, None], order] = found[0].reshape(len(order), len(bits), -1).transpose(1, 2, 0)
            scale[:, part], zero[:, part] = (values.reshape(len(bits), -1) for values in found[1:])
        return {width: _rows(weights, codes[i], scale[i], zero[i], mean) for i, width in enumerate(bits)}


def _grid(width: int, sparse: Collection[int] | None) -> Grid:
    return Grid(width, None if sparse is None else width in sparse)


def _parts(channels: np.ndarray, rows: int) -> list[np.ndarray]:
    """Return the indices of rows in parts of about ``rows``; all rows of a channel are in one."""
    order = np.argsort(channels, kind="stable")
    starts = np.flatnonzero(np.diff(channels[order], prepend=-1))
    first = np.unique(starts // rows, return_index=True)[1]
    return np.split(order, starts[first][1:])


def _rounded(
    columns: np.ndarray,
    hessian: np.ndarray,
    upper: np.ndarray,
    grids: Sequence[Grid],
    channels: np.ndarray,
    mask: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes [D, B * R], scales and offsets [B * R] of the weights [D, R] on each of ``grids``."""
    even, weighted = _stacks(columns, np.diag(hessian), grids, channels, mask)
    seen = np.tile(hessian @ columns, (1, len(grids)))  # what the weights make of the inputs
    plain = _Codes.of(even, even.nearest(), hessian, seen)
    found = _Codes.of(weighted, _second_order(weighted, upper), hessian, seen).refitted()
    for _ in range(SWEEPS):
        found = _descended(found, hessian).refitted()
    return found.or_better(plain)


METHODS: Mapping[str, Callable[[], Rounding]] = {"plain": PlainRounding, "second-order": SecondOrderRounding}


def search_scales(
    columns: np.ndarray,
    importance: np.ndarray,
    grid: Grid,
    channels: np.ndarray,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return scales and offsets of least squared error for each of several weightings of that error, both [I, R].

    Args:
        columns: the weights, [D, R].
        importance: weightings of the inputs, [I, D].
        grid: the codes that a weight may take.
        channels: output channel of each row [R]; rows of one channel share their scale.
        mask: masked weights (False, [D, R]) do not count: they are zero whatever the grid.
    """
    count = int(channels.max()) + 1
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, channels, np.abs(columns).max(axis=0))
    largest = np.maximum(largest, max(1e-6 * float(largest.max()), 1e-12)).astype(np.float32)
    shrinks = np.linspace(1.0, 0.25 if grid.bits < 5 else 0.6, 32 if grid.bits < 7 else 16).astype(np.float32)
    tried = [(zero, shrink) for zero in grid.zeros for shrink in shrinks]
    steps = [largest * (shrink * grid.step / ((grid.step << (grid.bits - 1)) - 1)) for _, shrink in tried]
    totals = np.zeros((len(tried), len(importance), count))
    for start in range(0, len(columns), rows_at_once := max(1, CACHED_VALUES // columns.shape[1])):
        part = slice(start, start + rows_at_once)
        for number, ((zero, _), step) in enumerate(zip(tried, steps, strict=True)):
            u = columns[part] * (1 / step)[channels] + np.float32(zero / grid.step)
            error = np.clip(np.rint(u), grid.lowest, grid.highest)
            error -= u
            error *= error
            if mask is not None:
                error *= mask[part]
            for total, weighting in zip(totals[number], importance, strict=True):
                total += np.bincount(channels, weighting[part] @ error, minlength=count) * np.square(step)
    best = totals.argmin(axis=0)  # [I, channels]
    scales = np.stack(steps)[best, np.arange(count)] / grid.step
    zeros = np.array([zero for zero, _ in tried], np.int16)[best]
    return scales[:, channels].astype(np.float32), zeros[:, channels]


def output_error(weights: np.ndarray, approximation: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Return the mean squared output error of each row, [R]: the diagonal of (W - Q) gram (W - Q)^T."""
    difference = weights - approximation
    return np.einsum("rd,rd->r", difference @ gram, difference)


def inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """Return the upper triangular U with U^T U = hessian^-1, float32 [D, D]; a singular matrix is damped until it has one.

    The Cholesky factor of the matrix in reverse order is, reversed again, an upper triangular M with M M^T = hessian: U is
    its inverse, and the matrix itself need not be inverted.
    """
    from scipy.linalg import lapack

    diagonal = np.diag_indices_from(hessian)
    enough = np.abs(hessian).sum(axis=1).max()  # added to the diagonal, it makes any finite matrix positive definite
    for part in (0.0, 1e-6, 1e-4, 1e-2, 1.0):
        raised = hessian if part == 0 else hessian.copy()
        raised[diagonal] += enough * part
        try:
            reversed_factor = np.linalg.cholesky(raised[::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
        # LAPACK reads column by column: to it the lower factor is the transposed, upper one
        inverse, _ = lapack.dtrtri(reversed_factor.T, lower=0, overwrite_c=1)
        return np.ascontiguousarray(inverse.T[::-1, ::-1], np.float32)
    raise np.linalg.LinAlgError("the Gram matrix is not finite")


@dataclass(frozen=True)
class _Stack:
    """The weights of a layer once for each width, [D, B * R], with the grid of each row: all widths go in one pass."""

    weights: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    step: np.ndarray
    low: np.ndarray
    high: np.ndarray
    channels: np.ndarray  # distinct for each width
    mask: np.ndarray | None

    def nearest(self) -> np.ndarray:
        """Return the nearest codes of all weights."""
        return np.stack([self.nearest_to(row, number) for number, row in enumerate(self.weights)])

    def nearest_to(self, values: np.ndarray, column: int) -> np.ndarray:
        """Return the nearest codes of one input's values [B * R]."""
        codes = np.rint((values / self.scale + self.zero) / self.step)
        codes = np.minimum(np.maximum(codes, self.low), self.high) * self.step - self.zero
        return codes if self.mask is None else codes * self.mask[column]

    def by_channel(self, values: np.ndarray) -> np.ndarray:
        """Return for each row [B * R] the sum over its channel's rows."""
        return np.bincount(self.channels, values, minlength=int(self.channels.max()) + 1)[self.channels]


def _stacks(
    columns: np.ndarray, importance: np.ndarray, grids: Sequence[Grid], channels: np.ndarray, mask: np.ndarray | None
) -> list[_Stack]:
    """Return the stack with scales of least squared weight error, and the one of errors weighted by ``importance`` [D]."""
    weightings = np.stack([np.ones_like(importance), importance])
    found = [search_scales(columns, weightings, grid, channels, mask) for grid in grids]
    count, per_width = columns.shape[1], int(channels.max()) + 1

    def each(values: Sequence[int]) -> np.ndarray:
        return np.repeat(np.array(values, np.float32), count)

    shared = _Stack(
        weights=np.tile(columns, (1, len(grids))),
        scale=np.empty(0),
        zero=np.empty(0),
        step=each([grid.step for grid in grids]),
        low=each([grid.lowest for grid in grids]),
        high=each([grid.highest for grid in grids]),
        channels=np.concatenate([channels + i * per_width for i in range(len(grids))]),
        mask=None if mask is None else np.tile(mask, (1, len(grids))),
    )
    return [
        replace(
            shared,
            scale=np.concatenate([scales[i] for scales, _ in found]),
            zero=np.concatenate([zeros[i] for _, zeros in found]).astype(np.float32),
        )
        for i in range(len(weightings))
    ]


@dataclass(frozen=True)
class _Codes:
    """Codes of a stack [D, B * R], with what they (``product``) and the weights (``seen``) make of the inputs: hessian @ each."""

    stack: _Stack
    codes: np.ndarray
    product: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, stack: _Stack, codes: np.ndarray, hessian: np.ndarray, seen: np.ndarray) -> _Codes:
        return cls(stack, codes, hessian @ codes, seen)

    def refitted(self) -> _Codes:
        """Return the same codes with the scales of least output error, one per channel."""
        stack = self.stack
        top = stack.by_channel(np.einsum("dr,dr->r", self.product, stack.weights))
        bottom = stack.by_channel(np.einsum("dr,dr->r", self.product, self.codes))
        fitted = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 0)
        return replace(self, stack=replace(stack, scale=np.where(fitted > 0, fitted, stack.scale).astype(np.float32)))

    def errors(self) -> np.ndarray:
        """Return each row's channel's output error, [B * R]."""
        scale, stack = self.stack.scale, self.stack
        rows = np.einsum("dr,dr->r", self.codes * scale - stack.weights, self.product * scale - self.seen)
        return stack.by_channel(rows)

    def or_better(self, other: _Codes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return codes, scales and offsets: those of ``other`` for the channels where its output error is smaller."""
        take = other.errors() < self.errors()
        return tuple(  # type: ignore[return-value]
            np.where(take, second, first)
            for first, second in (
                (self.codes, other.codes),
                (self.stack.scale, other.stack.scale),
                (self.stack.zero, other.stack.zero),
            )
        )


def damped(gram: np.ndarray) -> np.ndarray:
    """Return the Gram matrix, float64, with 1 % of its mean diagonal added: well conditioned for any calibration data."""
    result = gram.astype(np.float64)
    diagonal = np.maximum(np.diag(result), 0)  # float32 may leave less than no variance of an input that never changes
    result[np.diag_indices_from(result)] = diagonal + 0.01 * diagonal.mean() + 1e-12
    return result


def _second_order(stack: _Stack, upper: np.ndarray) -> np.ndarray:
    """Return codes, input by input in order, each error made good by the inputs that follow."""
    weights = stack.weights.copy()
    codes = np.empty_like(weights)
    for start in range(0, len(weights), BLOCK):
        stop = min(start + BLOCK, len(weights))
        errors = np.empty((stop - start, weights.shape[1]), np.float32)
        for i, j in enumerate(range(start, stop)):
            value = weights[j] - upper[start:j, j] @ errors[:i]
            codes[j] = stack.nearest_to(value, j)
            errors[i] = (value - codes[j] * stack.scale) / upper[j, j]
        weights[stop:] -= upper[start:stop, stop:].T @ errors
    return codes


def _descended(found: _Codes, hessian: np.ndarray) -> _Codes:
    """Return the codes after one sweep of coordinate descent on the output error over the inputs."""
    stack, codes, product = found.stack, found.codes.copy(), found.product.copy()
    for start in range(0, len(codes), BLOCK):
        stop = min(start + BLOCK, len(codes))
        change = np.empty((stop - start, codes.shape[1]), np.float32)
        for i, j in enumerate(range(start, stop)):
            gradient = (product[j] + hessian[start:j, j] @ change[:i]) * stack.scale - found.seen[j]
            value = codes[j] * stack.scale - gradient / hessian[j, j]
            new = stack.nearest_to(value, j)
            change[i] = new - codes[j]
            codes[j] = new
        product += hessian[:, start:stop] @ change
    return replace(found, codes=codes, product=product)


def _rows(weights: np.ndarray, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray, mean: np.ndarray | None) -> Rows:
    approximation = codes * scale[:, None]
    shift = np.zeros(len(weights)) if mean is None else (weights - approximation) @ mean
    return Rows(codes.astype(np.int8), scale.astype(np.float32), zero.astype(np.int16), shift.astype(np.float32))
