"""Rounding of weights to few bits: plain, and second-order from the Gram matrix of the layer's inputs.

A rounding method is an extension point: it takes weight rows and a Gram matrix and returns integer codes and scales.
The second-order method is in the manner of GPTQ and Optimal Brain Compression (Frantar, Ashkboos, Hoefler and Alistarh,
arXiv:2210.17323; Frantar and Alistarh, arXiv:2208.11580). Ours differs: all widths of a layer are rounded in one pass, the
bias is solved exactly (its row of the Gram matrix is eliminated first), and coordinate descent with refitted scales follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

VERSION = 4  # part of the cache key: raise it when results change
BLOCK = 128
SWEEPS = 2


@dataclass(frozen=True)
class Grid:
    """The integers that a code of ``bits`` may take: ``step * u - zero`` for u in 0 .. 2**bits - 1, times a scale.

    Few bits use a step of two, so that a channel can have levels on both sides of zero without wasting one
    (zero = 2**bits - 1 is the mid-rise grid, e.g. -3, -1, 1, 3).
    """

    bits: int

    @property
    def step(self) -> int:
        """Distance between neighbouring codes."""
        return 2 if self.bits <= 4 else 1

    @property
    def zeros(self) -> tuple[int, ...]:
        """The offsets that a channel may choose from."""
        half = self.step << (self.bits - 1)
        return (half - 1, half, half - 2) if self.step == 2 else (half,)

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
    ) -> dict[int, Rows]:
        """Round rows [R, D] to each of ``bits``.

        Args:
            weights: float32 [R, D].
            gram: mean of x x^T over the layer's inputs [D, D] (without the mean's part where the layer has a bias), or None.
            mean: mean input [D], None where the layer has no bias.
            bits: widths of 2 to 8.
            channels: output channel of each row [R]; rows of one channel share their scale.
            mask: False where a weight is structurally zero, bool [R, D].
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
    ) -> dict[int, Rows]:
        """Round rows without regard to the inputs (the Gram matrix only shifts the bias)."""
        result = {}
        for width in bits:
            grid = Grid(width)
            scale, zero = search_scales(weights, np.ones(weights.shape[1], np.float32), grid, channels, mask)
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
    ) -> dict[int, Rows]:
        """Round rows so that the squared error of the layer's output is small; never worse than plain on it."""
        if gram is None:
            return PlainRounding().round(weights, gram, mean, bits, channels, mask)
        hessian = damped(gram)
        order = np.argsort(-np.diag(hessian), kind="stable")
        hessian = hessian[np.ix_(order, order)]
        upper = _inverse_factor(hessian)
        hessian = hessian.astype(np.float32)
        rows = np.ascontiguousarray(weights[:, order], np.float32)
        allowed = None if mask is None else mask[:, order]
        stack = _Stack.of(rows, np.diag(hessian), bits, channels, allowed)
        plain = stack.nearest(stack.weights)
        codes = _second_order(stack, upper)
        for _ in range(SWEEPS):
            stack = stack.refitted(codes, hessian)
            codes = _descend(stack, codes, hessian)
        codes, scale = _better(stack.refitted(codes, hessian), codes, stack.refitted(plain, hessian), plain, hessian)
        original = np.empty_like(codes)
        original[:, order] = codes
        count = len(weights)
        found = {
            width: _rows(weights, original[cut], scale[cut], stack.zero[cut], mean)
            for width, cut in ((w, slice(i * count, (i + 1) * count)) for i, w in enumerate(bits))
        }
        plain_rows = PlainRounding().round(weights, gram, mean, bits, channels, mask)
        return {width: _not_worse(found[width], plain_rows[width], weights, damped(gram), channels) for width in bits}


METHODS: Mapping[str, Callable[[], Rounding]] = {"plain": PlainRounding, "second-order": SecondOrderRounding}


def search_scales(
    weights: np.ndarray,
    importance: np.ndarray,
    grid: Grid,
    channels: np.ndarray,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale [R] and offset [R] of least squared error, weighted by ``importance`` [D], one per channel.

    Masked weights (False in ``mask`` [R, D]) do not count: they are zero whatever the grid.
    """
    count = int(channels.max()) + 1
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, channels, np.abs(weights).max(axis=1))
    largest = np.maximum(largest, max(1e-6 * float(largest.max()), 1e-12)).astype(np.float32)
    top = (grid.step << (grid.bits - 1)) - 1
    best = np.full(count, np.inf)
    best_scale, best_zero = largest / top, np.full(count, grid.zeros[0], np.int16)
    shrinks = np.linspace(1.0, 0.25 if grid.bits < 5 else 0.6, 32 if grid.bits < 7 else 16)
    for zero in grid.zeros:
        for shrink in shrinks:
            scale = (largest * np.float32(shrink) / top)[channels][:, None]
            scaled = weights / scale
            error = (grid.nearest(scaled, zero) - scaled) * scale
            if mask is not None:
                error = error * mask
            total = np.bincount(channels, (error * error) @ importance, minlength=count)
            better = total < best
            best = np.where(better, total, best)
            best_scale = np.where(better, largest * np.float32(shrink) / top, best_scale)
            best_zero = np.where(better, zero, best_zero)
    return best_scale[channels].astype(np.float32), best_zero[channels].astype(np.int16)


def output_error(weights: np.ndarray, approximation: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Return the mean squared output error of each row, [R]: the diagonal of (W - Q) gram (W - Q)^T."""
    difference = weights - approximation
    return np.einsum("rd,rd->r", difference @ gram, difference)


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """Return the upper Cholesky factor of the inverse, float32 [D, D]; a singular matrix is damped until it has one."""
    size = np.trace(hessian) / len(hessian)
    for attempt in range(8):
        try:
            inverse = np.linalg.inv(hessian + np.eye(len(hessian)) * (size * attempt))
            return np.ascontiguousarray(np.linalg.cholesky((inverse + inverse.T) / 2).T, np.float32)
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError("the Gram matrix is not finite")


@dataclass(frozen=True)
class _Stack:
    """The rows of a layer once for each width, [B * R, D], with the grid of each row: all widths go in one pass."""

    weights: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    step: np.ndarray
    low: np.ndarray
    high: np.ndarray
    channels: np.ndarray  # distinct for each width
    mask: np.ndarray | None

    @classmethod
    def of(
        cls,
        rows: np.ndarray,
        importance: np.ndarray,
        bits: Sequence[int],
        channels: np.ndarray,
        mask: np.ndarray | None,
    ) -> _Stack:
        grids = [Grid(width) for width in bits]
        scales, zeros = zip(*(search_scales(rows, importance, grid, channels, mask) for grid in grids), strict=True)
        count, per_width = len(rows), int(channels.max()) + 1
        return cls(
            weights=np.tile(rows, (len(bits), 1)),
            scale=np.concatenate(scales),
            zero=np.concatenate(zeros).astype(np.float32),
            step=np.repeat(np.array([grid.step for grid in grids], np.float32), count),
            low=np.repeat(np.array([grid.lowest for grid in grids], np.float32), count),
            high=np.repeat(np.array([grid.highest for grid in grids], np.float32), count),
            channels=np.concatenate([channels + i * per_width for i in range(len(bits))]),
            mask=None if mask is None else np.tile(mask, (len(bits), 1)),
        )

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest codes of values [B * R, D]."""
        codes = self.nearest_column(values.T).T
        return codes if self.mask is None else codes * self.mask

    def nearest_column(self, values: np.ndarray, column: int | None = None) -> np.ndarray:
        """Return the nearest codes of values [..., B * R]."""
        steps = np.rint((values / self.scale + self.zero) / self.step)
        codes = np.minimum(np.maximum(steps, self.low), self.high) * self.step - self.zero
        return codes if self.mask is None or column is None else codes * self.mask[:, column]

    def refitted(self, codes: np.ndarray, hessian: np.ndarray) -> _Stack:
        """Return the stack with the scales of least output error for given codes, one per channel."""
        product = codes @ hessian
        count = int(self.channels.max()) + 1
        top = np.bincount(self.channels, np.einsum("rd,rd->r", product, self.weights), minlength=count)
        bottom = np.bincount(self.channels, np.einsum("rd,rd->r", product, codes), minlength=count)
        fitted = np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 0)[self.channels]
        return replace(self, scale=np.where(fitted > 0, fitted, self.scale).astype(np.float32))

    def errors(self, codes: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """Return each row's channel's output error, [B * R]."""
        rows = output_error(self.weights, codes * self.scale[:, None], hessian)
        return np.bincount(self.channels, rows, minlength=int(self.channels.max()) + 1)[self.channels]


def damped(gram: np.ndarray) -> np.ndarray:
    """Return the Gram matrix, float64, with 1 % of its mean diagonal added: well conditioned for any calibration data."""
    result = gram.astype(np.float64)
    result[np.diag_indices_from(result)] += 0.01 * np.trace(result) / len(result) + 1e-12
    return result


def _second_order(stack: _Stack, upper: np.ndarray) -> np.ndarray:
    w = stack.weights.copy()
    codes = np.empty_like(w)
    size = w.shape[1]
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.empty((w.shape[0], stop - start), np.float32)
        for j in range(start, stop):
            codes[:, j] = stack.nearest_column(w[:, j], j)
            error = (w[:, j] - codes[:, j] * stack.scale) / upper[j, j]
            errors[:, j - start] = error
            w[:, j + 1 : stop] -= np.outer(error, upper[j, j + 1 : stop])
        w[:, stop:] -= errors @ upper[start:stop, stop:]
    return codes


def _descend(stack: _Stack, codes: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """One sweep of coordinate descent on the output error over the columns."""
    codes = codes.copy()
    gradient = (codes * stack.scale[:, None] - stack.weights) @ hessian
    for start in range(0, codes.shape[1], BLOCK):
        stop = min(start + BLOCK, codes.shape[1])
        local = gradient[:, start:stop].copy()
        before = codes[:, start:stop].copy()
        for j in range(start, stop):
            value = codes[:, j] * stack.scale - local[:, j - start] / hessian[j, j]
            new = stack.nearest_column(value, j)
            local += np.outer((new - codes[:, j]) * stack.scale, hessian[j, start:stop])
            codes[:, j] = new
        gradient += ((codes[:, start:stop] - before) * stack.scale[:, None]) @ hessian[start:stop]
    return codes


def _better(
    first: _Stack, first_codes: np.ndarray, second: _Stack, second_codes: np.ndarray, hessian: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep, channel by channel, the rounding with the smaller output error; return codes and scales."""
    take = second.errors(second_codes, hessian) < first.errors(first_codes, hessian)
    return np.where(take[:, None], second_codes, first_codes), np.where(take, second.scale, first.scale)


def _not_worse(found: Rows, plain: Rows, weights: np.ndarray, hessian: np.ndarray, channels: np.ndarray) -> Rows:
    """Return ``found``, with the channels of ``plain`` whose output error is smaller (rare: a nearly singular Gram matrix)."""
    errors = [
        np.bincount(channels, output_error(weights, rows.codes * rows.scale[:, None].astype(np.float64), hessian))
        for rows in (found, plain)
    ]
    take = (errors[1] < errors[0])[channels]
    return Rows(
        np.where(take[:, None], plain.codes, found.codes),
        np.where(take, plain.scale, found.scale),
        np.where(take, plain.zero, found.zero),
        np.where(take, plain.shift, found.shift),
    )


def _rows(weights: np.ndarray, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray, mean: np.ndarray | None) -> Rows:
    approximation = codes * scale[:, None]
    shift = np.zeros(len(weights)) if mean is None else (weights - approximation) @ mean
    return Rows(codes.astype(np.int8), scale.astype(np.float32), zero.astype(np.int16), shift.astype(np.float32))
