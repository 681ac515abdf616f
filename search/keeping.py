"""Whether candidates will keep the limits that lie on none of the axes of a point: of further objectives, and of memory.

No model of costs tells of them, but they go with size, time and drop: the worst group falls where the mean falls. How far each
limit is broken is a Gaussian process over the three (Rasmussen and Williams: Gaussian Processes for Machine Learning, 2006),
and gains count as much as all limits are likely to be kept (Schonlau, Welch and Jones: Global versus local search in
constrained optimization of computer models, 1998).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..spaces.threads import threads_for

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

Floats = NDArray[np.float64]

LIKELY = 0.5  # a chance from which limits count as kept
FITTED = 100  # candidates that a process is fitted to, at most
DRAWS = 16  # of what a candidate may really measure
LEAST = 1e-9  # a standard deviation in place of 0


class Keeping:
    """How likely candidates keep limits, by those that were measured.

    Args:
        points: what was measured ``[N, 3]``.
        excesses: by how much each limit was broken, below 0 where it was kept, NaN where that is not known ``[N, K]``.
    """

    def __init__(self, points: ArrayLike, excesses: Sequence[Sequence[float]]) -> None:
        self._points = np.asarray(points, float).reshape(-1, 3)
        limits = len(excesses[0]) if excesses else 0
        found = np.array(excesses, float).reshape(len(self._points), limits)
        self._excesses = np.arctan(found)  # far from the limit differences say little about where it begins to break

    def chance(self, points: Floats, spread: Floats | None = None) -> Floats:
        """Return the probability that candidates keep all limits ``[M]``; see `log_chance`."""
        return np.asarray(np.exp(self.log_chance(points, spread)))

    def log_chance(self, points: Floats, spread: Floats | None = None) -> Floats:
        """Return the logarithm of the probability that candidates keep all limits ``[M]``: it tells small ones apart.

        Args:
            points: what is expected of them ``[M, 3]``.
            spread: standard deviations of that ``[M, 3]``; None where it is sure.
        """
        from scipy.special import logsumexp

        if not self._processes or not len(points):
            return np.zeros(len(points))
        if spread is None or not spread.any():
            return self._log_chance(points)
        noise = np.random.default_rng(0).standard_normal((DRAWS, 1, 3))
        drawn = self._log_chance((points + spread * noise).reshape(-1, 3)).reshape(DRAWS, -1)
        return np.asarray(logsumexp(drawn, axis=0) - np.log(DRAWS))

    def _log_chance(self, points: Floats) -> Floats:
        from scipy.special import log_ndtr

        found = np.zeros(len(points))
        with threads_for(FITTED):
            for process in self._processes:
                excess, doubt = process.predict(self._scaled(points), return_std=True)
                found += log_ndtr(-excess / np.maximum(doubt, LEAST))
        return found

    @cached_property
    def _processes(self) -> list[GaussianProcessRegressor]:
        """One for each limit that was ever broken: of others nothing says that they matter."""
        broken = (self._excesses > 0.0).any(axis=0)
        return [self._fitted(excess) for excess in self._excesses.T[broken]]

    def _fitted(self, excess: Floats) -> GaussianProcessRegressor:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        covariance = ConstantKernel(1.0, (1e-2, 1e2)) * RBF([1.0] * 3, (0.1, 100.0)) + WhiteKernel(1e-2, (1e-6, 1.0))
        process = GaussianProcessRegressor(covariance, normalize_y=True, random_state=0)
        chosen = _evenly(excess)
        with warnings.catch_warnings(), threads_for(FITTED):
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(self._scaled(self._points[chosen]), excess[chosen])
        return process

    def _scaled(self, points: Floats) -> Floats:
        spread = self._points.std(axis=0)
        return np.asarray((points - self._points.mean(axis=0)) / np.where(spread > LEAST, spread, 1.0))


NOTHING_ASKED = Keeping([], [])


def _evenly(excess: Floats) -> NDArray[np.int64]:
    """Return which candidates to fit to, of those that it is known of: of too many, evenly over what they broke or kept."""
    order = np.argsort(excess, kind="stable")[: np.isfinite(excess).sum()]  # NaN comes last
    return order[np.unique(np.linspace(0, len(order) - 1, min(FITTED, len(order))).astype(np.int64))]
