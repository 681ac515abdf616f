"""Regression around a guess, against the textbook's formulas."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from slimfront.search.regression import STRONG, regress


def planted(count, noise, coefficients=(1.3, 0.7, 1.0)):
    random = np.random.default_rng(0)
    rows = random.random((count, len(coefficients)))
    unit = random.uniform(0.5, 2.0, count)
    return rows, rows @ coefficients + noise * unit * random.standard_normal(count), unit


def test_coefficients_and_doubts_are_those_of_the_conditional_distribution():
    rows, target, unit = planted(6, 0.1)
    guess, prior = np.ones(3), np.array([0.5, 1.0, 0.2])
    found = regress(rows, target, unit, guess, [prior], [0.1])
    covariance = rows @ np.diag(prior**2) @ rows.T + np.diag((0.1 * unit) ** 2)
    gain = np.diag(prior**2) @ rows.T @ np.linalg.inv(covariance)
    assert found.coefficients == pytest.approx(guess + gain @ (target - rows @ guess))
    expected = np.diag(prior**2) - gain @ rows @ np.diag(prior**2)
    assert found.root @ found.root.T == pytest.approx(expected)
    assert found.spread(rows) == pytest.approx(np.sqrt(np.diag(rows @ expected @ rows.T)))


def test_the_most_probable_prior_and_noise_are_taken():
    rows, target, unit = planted(12, 0.05)
    priors = [np.full(3, size) for size in (0.01, 0.3, 5.0)]
    scales = (0.01, 0.05, 0.5)
    found = regress(rows, target, unit, np.ones(3), priors, scales)

    def evidence(prior, scale):
        covariance = rows @ np.diag(prior**2) @ rows.T + np.diag((scale * unit) ** 2)
        return multivariate_normal(rows.sum(axis=1), covariance).logpdf(target)

    pairs = [(number, prior, scale) for number, prior in enumerate(priors) for scale in scales]
    _, prior, scale = max(pairs, key=lambda pair: evidence(*pair[1:]) - STRONG * (pair[0] > 0))
    assert found.noise == scale == 0.05
    alone = regress(rows, target, unit, np.ones(3), [prior], [scale])
    assert found.coefficients == pytest.approx(alone.coefficients)


def test_a_prior_without_spread_holds_its_coefficient():
    rows, target, unit = planted(20, 0.01)
    found = regress(rows, target, unit, np.array([1.0, 1.0, 2.0]), [np.array([1.0, 1.0, 0.0])], [0.01, 0.1])
    assert found.coefficients[2] == 2.0
    assert found.root[2] == pytest.approx(0.0)


def test_without_data_the_guess_stays():
    found = regress(np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.array([1.0, 3.0]), [np.ones(2)], [0.1])
    assert found.coefficients.tolist() == [1.0, 3.0]
    assert found.spread(np.eye(2)) == pytest.approx(1.0)
