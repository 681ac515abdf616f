"""Refitted weights are those of `numpy.linalg.lstsq` on the data that the Gram matrix was made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.refit import refit


def example(inputs: int, outputs: int, samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights [R, D], correlated data [M, D] and its Gram matrix [D, D]."""
    random = np.random.default_rng((seed, inputs, outputs, samples))
    data = random.standard_normal((samples, inputs)) @ random.standard_normal((inputs, inputs)) + 0.5
    return random.standard_normal((outputs, inputs)).astype(np.float32), data, data.T @ data / samples


def least_squares(data: np.ndarray, target: np.ndarray, towards: np.ndarray, weight: float) -> np.ndarray:
    """Return the weights [R, K] of least mean squared error, drawn to ``towards`` by a ridge of this weight."""
    pull = np.sqrt(weight * len(data))
    rows = np.vstack([data, pull * np.eye(data.shape[1])])
    return np.linalg.lstsq(rows, np.vstack([target, pull * towards.T]), rcond=None)[0].T


@settings(max_examples=30, deadline=None)
@given(
    inputs=st.integers(2, 12),
    outputs=st.integers(1, 5),
    seed=st.integers(0, 99),
    ridge=st.sampled_from([0.0, 1e-3, 1.0]),
)
def test_it_solves_the_ridge_regression(inputs, outputs, seed, ridge):
    rows, data, gram = example(inputs, outputs, 60, seed)
    kept = np.sort(np.random.default_rng(seed).permutation(inputs)[: 1 + seed % inputs])
    expected = least_squares(data[:, kept], data @ rows.T, rows[:, kept], ridge * np.diag(gram)[kept].mean())
    assert np.allclose(refit(rows, gram, kept, ridge=ridge), expected, atol=1e-4 * np.abs(expected).max())


def test_weights_that_are_structurally_zero_stay_so():
    rows, data, gram = example(8, 4, 100)
    kept = np.array([0, 2, 3, 5, 7])
    mask = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 1]], bool)
    rows[:, kept] *= mask
    found = refit(rows, gram, kept, ridge=1e-3, mask=mask)
    weight = 1e-3 * np.diag(gram)[kept].mean()
    for row, allowed, result in zip(rows, mask, found, strict=True):
        own = kept[allowed]
        assert np.allclose(
            result[allowed], least_squares(data[:, own], data @ row[None].T, row[None, own], weight)[0], atol=1e-4
        )
        assert not result[~allowed].any()


def test_a_row_without_any_weight_stays_zero():
    rows, _, gram = example(4, 2, 50)
    mask = np.array([[False, False], [True, True]])
    assert not refit(rows, gram, np.array([1, 3]), mask=mask)[0].any()


def test_all_inputs_keep_their_weights():
    rows, _, gram = example(6, 3, 50)
    assert np.allclose(refit(rows, gram, np.arange(6)), rows, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_a_singular_matrix_gives_an_error_as_small_as_any(kind, ridge):
    rows, data, _ = example(12, 4, 8)  # fewer samples than inputs
    data[:, 5] = data[:, 4]
    gram = (data.T @ data / len(data)).astype(kind)
    kept = np.array([0, 1, 4, 5, 6, 7, 8, 9, 10, 11])
    found = refit(rows, gram, kept, ridge=ridge)
    best = np.linalg.lstsq(data[:, kept], data @ rows.T, rcond=None)[0].T
    assert np.isfinite(found).all()
    power = np.square(data @ rows.T).sum()
    error, least = (np.square(data[:, kept] @ one.T - data @ rows.T).sum() for one in (found, best))
    assert error <= least + 1e-2 * power


def test_inputs_that_are_never_seen_keep_their_weights():
    rows, data, _ = example(6, 3, 50)
    data[:, 2] = 0
    found = refit(rows, data.T @ data / 50, np.array([0, 2, 4]))
    assert np.allclose(found[:, 1], rows[:, 2], atol=1e-5)
    assert np.allclose(refit(rows, np.zeros((6, 6), np.float32), np.array([1, 2])), rows[:, [1, 2]], atol=1e-5)
