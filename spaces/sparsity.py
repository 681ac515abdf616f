"""Single-weight sparsity: which weights of a layer become zero, and what the others become to make good for it.

A sparsity method is an extension point: it takes weight rows and a Gram matrix and returns a mask and weights. The second-order
method minimises the layer's output error as Optimal Brain Compression and SparseGPT do (Frantar and Alistarh,
arXiv:2208.11580 and arXiv:2301.00774). Ours differs in how the mask is found: by alternating directions (Boža,
arXiv:2401.02938), over the whole layer at once, which leaves less error than columns one after another and needs only
products of matrices; the kept weights are then solved by conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from .rounding import VALUES_AT_ONCE, damped, output_error

VERSION = 1  # part of the cache key: raise it when results change
PENALTY = 0.5  # of a weight that is not yet zero, against a Gram matrix of unit diagonal
ALTERNATIONS = 10
STEPS = 10  # of conjugate gradients
CLEARLY = 0.5  # times magnitude's error: below it its mask need not be looked at again


class Sparsifier(Protocol):
    """A sparsity method. ``sparsify`` is deterministic."""

    name: str

    def sparsify(
        self, rows: np.ndarray, gram: np.ndarray | None, sparsity: float, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Zero a fraction of the weights in rows [R, D].

        Args:
            rows: float32 [R, D].
            gram: mean of x x^T over the layer's inputs [D, D] (without the mean's part where the layer has a bias), or None.
            sparsity: the fraction of the weights that is zeroed, from 0 to below 1: exactly ``round(sparsity * count)``.
            mask: False where a weight is structurally zero, bool [R, D]; these do not count.

        Returns:
            Which weights are kept, bool [R, D], and the weights, float32 [R, D], zero where they are not kept.
        """
        ...


class MagnitudeSparsifier:
    """Zero the smallest weights and leave the others as they are."""

    name = "magnitude"

    def sparsify(
        self, rows: np.ndarray, gram: np.ndarray | None, sparsity: float, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Zero the weights of least magnitude, whatever the inputs are."""
        present = np.ones(rows.shape, bool) if mask is None else mask
        kept = _largest(rows, kept_count(present, sparsity), present)
        return kept, (rows * kept).astype(np.float32)


class SecondOrderSparsifier:
    """Zero the weights that the others can best make good for, and let them do it."""

    name = "second-order"

    def sparsify(
        self, rows: np.ndarray, gram: np.ndarray | None, sparsity: float, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Zero weights so that the layer's output error is small: by the damped Gram matrix never above magnitude's."""
        present = np.ones(rows.shape, bool) if mask is None else mask
        plain = MagnitudeSparsifier().sparsify(rows, gram, sparsity, mask)
        if gram is None or np.array_equal(plain[0], present):
            return plain
        hessian = damped(gram)
        norms = np.sqrt(np.diag(hessian)).astype(np.float32)
        even = (hessian / np.outer(norms, norms)).astype(np.float32)
        columns = rows * norms  # weights of inputs that all have the same power
        plain_error = _error(rows, plain[1], hessian)
        kept, start = _alternated(columns, even, kept_count(present, sparsity), present)
        found = kept, _solved(columns, start, kept, even) / norms
        error = _error(rows, found[1], hessian)
        if error > CLEARLY * plain_error:  # of few inputs: the mask by magnitude may be the better one
            repaired = plain[0], _solved(columns, plain[1] * norms, plain[0], even) / norms
            choices = [(error, found), (_error(rows, repaired[1], hessian), repaired), (plain_error, plain)]
            return min(choices, key=lambda choice: choice[0])[1]
        return found


METHODS: Mapping[str, Callable[[], Sparsifier]] = {
    "magnitude": MagnitudeSparsifier,
    "second-order": SecondOrderSparsifier,
}


def kept_count(present: np.ndarray, sparsity: float) -> int:
    """Return how many weights stay of those that are structurally there (True)."""
    count = int(np.count_nonzero(present))
    return count - round(sparsity * count)


def _largest(values: np.ndarray, count: int, present: np.ndarray) -> np.ndarray:
    """Return where the ``count`` largest magnitudes among the present are; of equal ones the first."""
    sizes = np.where(present, np.abs(values), -1).reshape(-1)
    if count == 0:
        return np.zeros(values.shape, bool)
    least = np.partition(sizes, -count)[-count]
    kept = sizes > least
    kept[np.flatnonzero(sizes == least)[: count - np.count_nonzero(kept)]] = True
    return kept.reshape(values.shape)


def _alternated(
    rows: np.ndarray, hessian: np.ndarray, count: int, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which ``count`` weights to keep, and their values: weights of least output error and sparse ones draw near.

    In the paper's terms ``values`` is the sum of the dense weights and of the scaled dual variable: the sparse weights are what
    is kept of it, the next dual variable is the rest.
    """
    pull = _pull(hessian)
    values = rows.copy()
    for _ in range(ALTERNATIONS):
        kept = _largest(values, count, present)
        for part in _parts(rows):
            rest = np.where(kept[part], 0, values[part])
            values[part] += -2 * rest - rows[part]
            values[part] = rows[part] + values[part] @ pull + rest
    kept = _largest(values, count, present)
    return kept, values * kept


def _pull(hessian: np.ndarray) -> np.ndarray:
    """Return how much of a wish the weights follow, [D, D]: the penalty times the inverse of hessian + penalty."""
    from scipy.linalg import lapack

    penalised = hessian.copy()
    penalised[np.diag_indices_from(penalised)] += PENALTY
    factor, failed = lapack.spotrf(penalised.T, lower=1, overwrite_a=1)
    inverse, also = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or also:
        raise np.linalg.LinAlgError("the Gram matrix is not finite")
    lower = np.tril(inverse)
    return np.float32(PENALTY) * (lower + np.tril(inverse, -1).T)


def _solved(rows: np.ndarray, start: np.ndarray, kept: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return weights [R, D], zero where not kept, of nearly least output error: all rows at once by conjugate gradients.

    Args:
        rows: the weights to come near to in their outputs.
        start: weights to begin with, zero where not kept.
        kept: where a weight may be other than zero.
        hessian: of unit diagonal.
    """
    result = start.copy()
    for part in _parts(rows):
        weights, allowed = result[part], kept[part]
        residual = ((rows[part] - weights) @ hessian) * allowed
        direction = residual.copy()
        power = _power(residual, residual)
        for _ in range(STEPS):
            product = (direction @ hessian) * allowed
            step = _ratio(power, _power(direction, product))
            weights += step * direction
            residual -= step * product
            before, power = power, _power(residual, residual)
            direction *= _ratio(power, before)
            direction += residual
    return result


def _error(rows: np.ndarray, weights: np.ndarray, hessian: np.ndarray) -> float:
    """Return the output error of all rows together."""
    return float(sum(output_error(rows[part], weights[part], hessian).sum() for part in _parts(rows)))


def _power(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the product of each row with its like, [R, 1]."""
    return np.einsum("rd,rd->r", first, second)[:, None]


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top / bottom, and 0 where a row is solved."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _parts(rows: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows, few enough at a time that memory stays bounded."""
    at_once = max(1, VALUES_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), at_once):
        yield slice(start, start + at_once)
