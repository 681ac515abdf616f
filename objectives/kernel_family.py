"""Times of kernels that have op, types and window in common: a Gaussian process over the logarithms of their sizes.

Kriging with a nugget (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006): near a measured kernel, its
own measurement counts; between and beyond them, the trend over work and shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..spaces.threads import threads_for

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

Floats = NDArray[np.float64]

FITTED = 250  # kernels that a process is fitted to
LEAST_FITTED = 5  # with fewer, times go with the work of the nearest
GROWN = 1.5  # by so much a family has grown when its process is tuned again
NEAREST_SPREAD = 0.1  # standard deviation of the logarithm of a time told by the nearest of a few,
WORK_SPREAD = 0.3  # more of it for each factor of e that the work differs
NOISE = 0.1  # standard deviation of the logarithm of a time around the trend,
SLOPES = 0.06  # of the trend's slopes around those of the work,
LEVEL = 0.5  # and of its level
UNKNOWN_SPREAD = 0.7  # where none of the family was measured
MS_PER_ELEMENT = 2e-7  # first guesses then
MS_PER_MULTIPLY_ADD = 1e-8


@dataclass(frozen=True)
class KernelTime:
    """What a kernel takes: milliseconds, and the standard deviation of their logarithm."""

    ms: float
    spread: float


@dataclass(frozen=True)
class Tuned:
    """A process's parameters, and the size of the family that they were found for."""

    covariance: Any
    size: int


class Family:
    """The kernels of one family.

    Args:
        rows: features of the measured ones ``[N, F]``; the first are the logarithms of multiply-adds and elements.
        log_ms: their times ``[N]``.
        spreads: standard deviations of those ``[N]``.
        tuned: parameters from before the family grew.
    """

    def __init__(self, rows: Floats, log_ms: Floats, spreads: Floats, tuned: Tuned | None = None) -> None:
        self.rows, self.log_ms, self.spreads = rows, log_ms, spreads
        self._before = tuned

    @property
    def tuned(self) -> Tuned | None:
        """The process's parameters, to tune fewer times; None where there is no process."""
        if len(self.rows) < LEAST_FITTED:
            return None
        size = self._before.size if self._before and not self._grown else len(self.rows)
        return Tuned(self._process.kernel_, size)

    def times(self, rows: Floats, own: Floats, spreads: Floats) -> list[KernelTime]:
        """Return the times of kernels.

        Args:
            rows: features ``[M, F]``.
            own: logarithms of their own measurements ``[M]``, NaN where there is none.
            spreads: standard deviations of those ``[M]``.
        """
        if len(self.rows) < LEAST_FITTED:
            return [
                self._nearest(row) if np.isnan(log_ms) else KernelTime(float(np.exp(log_ms)), float(spread))
                for row, log_ms, spread in zip(rows, own, spreads, strict=True)
            ]
        with threads_for(FITTED):
            mean, spread = self._process.predict(self._scaled(rows), return_std=True)
        mean = mean + self._trend(rows)
        nugget = float(self._process.kernel_.k2.noise_level)
        variance = spread**2  # of a new kernel: with the nugget
        known = ~np.isnan(own)
        trust = np.where(known, nugget / (nugget + np.where(known, spreads, 1.0) ** 2), 0.0)
        log_ms = mean + trust * np.where(known, own - mean, 0.0)
        doubt = np.where(known, (1.0 - trust) * nugget + trust * 1e-6, variance)
        return [KernelTime(ms, s) for ms, s in zip(np.exp(log_ms).tolist(), np.sqrt(doubt).tolist(), strict=True)]

    def _nearest(self, row: Floats) -> KernelTime:
        if not len(self.rows):
            multiply_adds, elements = np.expm1(row[:2])
            ms = MS_PER_ELEMENT * elements + MS_PER_MULTIPLY_ADD * multiply_adds
            return KernelTime(max(float(ms), 1e-3), UNKNOWN_SPREAD)
        nearest = int(np.abs(self.rows - row).sum(axis=1).argmin())
        work = 0 if row[0] and self.rows[nearest, 0] else 1
        grown = float(row[work] - self.rows[nearest, work])
        spread = float(np.hypot(NEAREST_SPREAD, WORK_SPREAD * grown))
        return KernelTime(float(np.exp(self.log_ms[nearest] + grown)), spread)

    @property
    def _grown(self) -> bool:
        before = self._before
        return before is None or not before.size <= len(self.rows) < GROWN * before.size  # fewer: they were its kin's

    @cached_property
    def _slopes(self) -> Floats:
        """A ridge regression of what is left of the logarithm when time goes with the work, over sizes around their means."""
        rows = self._centred(self.rows)
        prior = np.diag([SLOPES**-2] * self.rows.shape[1] + [LEVEL**-2]) * NOISE**2
        return np.asarray(np.linalg.solve(rows.T @ rows + prior, rows.T @ (self.log_ms - self._by_work(self.rows))))

    def _trend(self, rows: Floats) -> Floats:
        """What the process stands on."""
        return np.asarray(self._by_work(rows) + self._centred(rows) @ self._slopes)

    def _by_work(self, rows: Floats) -> Floats:
        """The logarithm of the time if it went with the work: multiply-adds where there are any, else elements."""
        work = 0 if self.rows[:, 0].any() else 1
        return np.asarray(rows[:, work] + np.mean(self.log_ms - self.rows[:, work]))

    def _centred(self, rows: Floats) -> Floats:
        return np.column_stack([rows - self.rows.mean(axis=0), np.ones(len(rows))])

    def _scaled(self, rows: Floats) -> Floats:
        spread = self.rows.std(axis=0)
        return np.asarray((rows - self.rows.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))

    @cached_property
    def _process(self) -> GaussianProcessRegressor:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        covariance = ConstantKernel(0.05, (1e-4, 1.0)) * RBF(1.0, (0.1, 20.0)) + WhiteKernel(1e-3, (1e-5, 0.1))
        if self._before is not None:
            covariance = self._before.covariance
        chosen = self._chosen
        process = GaussianProcessRegressor(
            covariance,
            alpha=self.spreads[chosen] ** 2,
            optimizer="fmin_l_bfgs_b" if self._grown else None,
            random_state=0,
        )
        with warnings.catch_warnings(), threads_for(FITTED):
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(self._scaled(self.rows[chosen]), (self.log_ms - self._trend(self.rows))[chosen])
        return process

    @cached_property
    def _chosen(self) -> NDArray[np.int64]:
        """The kernels that the process is fitted to: of too many, evenly over their times."""
        order = np.argsort(self.log_ms, kind="stable")
        return order[np.unique(np.linspace(0, len(order) - 1, min(FITTED, len(order))).astype(np.int64))]


def as_family(kernels: Sequence[tuple[tuple[float, ...], float, float]], features: int, tuned: Tuned | None) -> Family:
    """Return the family of measured kernels, each with its features, the logarithm of its time, and the spread of that."""
    rows = np.array([row for row, _, _ in kernels], float).reshape(-1, features)
    return Family(rows, np.array([value for _, value, _ in kernels]), np.array([s for _, _, s in kernels]), tuned)
