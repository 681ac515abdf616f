"""The latency predictor: how fast a candidate will be, before it is built, and how sure that is.

A candidate's kernels are those that the runtime makes of its skeleton; their times come from a table of this machine
(`kernel_times`). What sums of kernel times miss, a regression learns from whole models that were timed. The interval is
that which errors of earlier predictions ask for (split conformal prediction: Lei et al., 2018).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..spaces.attribution import working_for
from ..spaces.cache import Store, content_hash
from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError
from ..spaces.skeleton import structure
from .kernel_times import SHARES, Described, KernelTimes, total
from .protocol import Reading
from .ratio import SESSION, Z_PREDICTED, spread

if TYPE_CHECKING:
    from sklearn.linear_model import BayesianRidge

    from ..spaces.build import Builder, Built
    from .kernel_profile import KernelProfile
    from .target import Target

VERSION = 5  # part of the cache key: raise it when tables change
COVERAGE = 0.9  # of the intervals, as Z_PREDICTED
LEAST_SCALE = 0.8  # of stated standard deviations: profiles are alike in what they all get wrong
LINK_MS = 0.01  # from one kernel to the next: what a profile takes for it, more than a plain run does
LEAST_WHOLE = 20  # timings of whole models from which the quantile of their own errors is taken
NORMAL_BY_MEDIAN = 1.4826  # standard deviation over the median of the sizes, of a normal distribution
LEAST_LEARNED = 8  # timed models from which the regression is used
LEAST_JUDGED = 8  # predictions that were judged, from which their errors set the intervals
JUDGED = 40  # of them, the latest
LEARNED = 200  # outcomes that are kept, the latest
LEAST_SPREAD = 0.01  # of a timed speedup's logarithm
UNCORRECTED = 0.03  # what the regression is taken to remove, while there is none


@dataclass(frozen=True)
class Sample:
    """A candidate whose kernels are known.

    Attributes:
        candidate: with the ratios that its groups really come to.
        nodes: the captured node that each kernel works for, "" where none is known.
        keys: of the kernels.
    """

    candidate: Candidate
    nodes: tuple[str, ...]
    keys: tuple[str, ...]

    @cached_property
    def kernels(self) -> Counter[str]:
        """How many there are of each key."""
        return Counter(self.keys)


@dataclass(frozen=True)
class Prediction:
    """A predicted speedup.

    Attributes:
        speedup: time of the reference / time of the candidate.
        low, high: its 90 % interval.
        spread: standard deviation of its logarithm, as the parts of the prediction state it.
        reference_ms: predicted time of one batch of the reference.
    """

    speedup: float
    low: float
    high: float
    spread: float
    reference_ms: float

    def reading(self) -> Reading:
        """Return it as a reading."""
        return Reading(self.speedup, "x", self.low, self.high, how="latency predictor, 90 % interval")


@dataclass(frozen=True)
class Outcome:
    """A whole model that was predicted, then timed.

    Attributes:
        kernels: how many kernels of each key it runs.
        timed: log of the timed speedup.
        spread: standard deviation of that.
        missed: log of the timed speedup over the one that was predicted before; None where none was.
        stated: standard deviation that the prediction gave itself then.
        whole: whether it was timed without a profile, in enough rounds to learn a correction from.
    """

    kernels: Mapping[str, int]
    timed: float
    spread: float
    missed: float | None = None
    stated: float | None = None
    whole: bool = True

    @property
    def score(self) -> float | None:
        """How far the prediction was off, in standard deviations of its own and of the timing's."""
        if self.missed is None or self.stated is None:
            return None
        return abs(self.missed) / float(np.hypot(self.stated, self.spread))


@dataclass(frozen=True)
class Lesson:
    """What a timing teaches a predictor, wherever it was made.

    Attributes:
        outcome: the timing.
        kernels: what tells its kernels from others, by key.
    """

    outcome: Outcome
    kernels: Mapping[str, Described]


class Predictor:
    """Predicts candidates of one study on one target; what it learns is kept in the user's cache, by the fingerprint.

    Args:
        builder: of the study.
        target: where models run.
    """

    def __init__(self, builder: Builder, target: Target) -> None:
        self.builder = builder
        self.target = target
        self._machine = Store(content_hash("kernel-times", VERSION, target.fingerprint))
        self._own = Store(content_hash("kernel-outcomes", VERSION, target.fingerprint, builder.graph.digest))
        self.samples: dict[str, Sample] = {}

    @cached_property
    def times(self) -> KernelTimes:
        """The machine's table."""
        arrays = self._machine.arrays("table")
        return KernelTimes() if arrays is None else KernelTimes.from_arrays(arrays)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What whole models of this graph taught."""
        arrays = self._own.arrays("outcomes")
        known = [] if arrays is None else outcomes_of(arrays)
        return [outcome for outcome in known if all(key in self.times.kernels for key in outcome.kernels)]

    def kernels(self, candidate: Candidate) -> Counter[str]:
        """Return how many kernels of each key a candidate's model would run.

        Raises:
            InputError: the candidate names a layer or a channel group that the graph has not.
            BuildError: it cannot be built, or the runtime refuses it.
        """
        candidate = self.builder.fitting(candidate)
        key = structure(candidate).key
        if key not in self.samples:
            with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
                path = Path(folder) / "model.onnx"
                built = self.save_model(candidate, path)
                graph = self.builder.of(candidate.base).graph
                shapes = {port.name: port.shape for port in graph.inputs}
                found = self.target.kernels(path, shapes)
            nodes = tuple(working_for(found, built, graph))
            self.samples[key] = Sample(candidate, nodes, tuple(self.times.describe(kernel) for kernel in found))
        return self.samples[key].kernels

    def knows(self, candidate: Candidate) -> bool:
        """Whether the kernels of a candidate, with the ratios that its groups really come to, were looked up already."""
        return structure(candidate).key in self.samples

    def save_model(self, candidate: Candidate, path: Path) -> Built:
        """Write the graph of a model that runs the kernels of a candidate's (`Built.save_graph`), and return the model."""
        built = self.builder.skeleton(candidate) if candidate.repaired else self.builder.build(candidate)
        built.save_graph(path)
        return built

    def predict(self, candidate: Candidate) -> Prediction:
        """Return a candidate's predicted speedup: exactly 1 where it runs the kernels of the reference.

        Raises:
            InputError, BuildError: as `kernels`.
        """
        kernels, own = self.kernels(candidate), self.kernels(Candidate())
        reference_ms = float(self.shares(own)[:-1].sum())
        if kernels == own:
            return Prediction(1.0, 1.0, 1.0, 0.0, reference_ms)
        centres, doubts = self.speedups(self.shares(kernels)[None])
        centre, doubt = self._with_its_like(
            kernels, float(centres[0]), float(np.hypot(self.spread(kernels), doubts[0]))
        )
        half = self.reach * doubt
        low, value, high = np.exp([centre - half, centre, centre + half]).tolist()
        return Prediction(value, low, high, doubt, reference_ms)

    def predict_or_none(self, candidate: Candidate) -> Prediction | None:
        """Return a candidate's prediction; None for the reference, and where its build will tell why not."""
        if candidate == Candidate():
            return None
        try:
            return self.predict(candidate)
        except BuildError:
            return None

    def speedups(self, shares: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the logarithms of models' speedups, and the standard deviations of what sums of kernels miss, ``[M]``.

        Args:
            shares: milliseconds of each of `SHARES` and of the ways from kernel to kernel ``[M, shares]``.
        """
        summed, moved = self._moved(shares)
        if self._regression is None:
            return summed, np.full(len(shares), UNCORRECTED)
        missed, doubt = self._regression.predict(moved, return_std=True)
        return summed + missed, doubt

    def learn(
        self, candidate: Candidate, timed: Reading, prediction: Prediction | None = None, whole: bool = True
    ) -> None:
        """Take a timed speedup into account, and how far its prediction, where it was made before, was off.

        One that runs the kernels of the reference teaches nothing.

        Args:
            candidate: that was timed.
            timed: its speedup.
            prediction: that was made before.
            whole: whether it was timed without a profile.
        """
        lesson = self.lesson(candidate, timed, prediction, whole)
        if lesson is not None:
            self.take(lesson)

    def lesson(
        self, candidate: Candidate, timed: Reading, prediction: Prediction | None = None, whole: bool = True
    ) -> Lesson | None:
        """Return what a timed speedup teaches, for this predictor or another one of the same study; see `learn`."""
        kernels = self.kernels(candidate)
        if kernels == self.kernels(Candidate()):
            return None
        missed, stated = None, None
        if prediction is not None:
            missed, stated = float(np.log(timed.value / prediction.speedup)), prediction.spread
        outcome = Outcome(kernels, float(np.log(timed.value)), spread(timed), missed, stated, whole)
        return Lesson(outcome, {key: self.times.kernels[key] for key in kernels})

    def take(self, lesson: Lesson) -> None:
        """Learn what `lesson` found."""
        self.times.know(lesson.kernels)
        self.outcomes.append(lesson.outcome)
        self.outcomes[:] = self.outcomes[-LEARNED:]
        self._forget()

    def add(self, profile: KernelProfile, slowed: float) -> None:
        """Add a profile's kernels to the machine's table; their times are divided by ``slowed``."""
        self.times.add(profile.kernels, profile.kernel_ms / slowed)
        self._forget()

    def slowed(self, reference: KernelProfile) -> float:
        """Return how many times slower the machine was while it ran the reference than the table has it."""
        keys = [kernel.key for kernel in reference.kernels]
        if not all(self.times.knows(key) for key in keys):
            return 1.0
        return float(reference.kernel_ms.sum() / sum(self.times.time(key).ms for key in keys))

    def replace(self, times: KernelTimes, outcomes: list[Outcome]) -> None:
        """Know what another predictor of the same study knows, and nothing else."""
        times.know(self.times.kernels)  # of candidates that were looked at
        self.times, self.outcomes = times, outcomes
        self._forget()

    def save(self) -> None:
        """Keep what was learned in the user's cache.

        Raises:
            InputError: the cache cannot be written to.
        """
        self._machine.put_arrays("table", self.times.to_arrays())
        self._own.put_arrays("outcomes", outcome_arrays(self.outcomes))

    @property
    def calibrated(self) -> bool:
        """Whether enough models of this graph were timed to judge predictions by."""
        return self.error is not None

    @property
    def error(self) -> float | None:
        """What 90 % of the latest predictions were off by at most, in parts of the speedup; None where too few were judged."""
        missed = [abs(outcome.missed) for outcome in self.outcomes if outcome.missed is not None][-JUDGED:]
        return float(np.quantile(missed, COVERAGE)) if len(missed) >= LEAST_JUDGED else None

    def shares(self, kernels: Mapping[str, int]) -> NDArray[np.float64]:
        """Return the milliseconds of each of `SHARES` in a model's kernels, and those of the ways from one to the next."""
        found = dict.fromkeys(SHARES, 0.0)
        for key, count in kernels.items():
            found[self.times.kernels[key].share] += count * self.times.time(key).ms
        return np.array([*found.values(), LINK_MS * sum(kernels.values())])

    def spread(self, kernels: Mapping[str, int]) -> float:
        """Return the standard deviation of the logarithm of the sum of a model's kernels."""
        ms, spread = total([self.times.time(key) for key in kernels], list(kernels.values()))
        return spread / ms

    def _with_its_like(self, kernels: Mapping[str, int], centre: float, doubt: float) -> tuple[float, float]:
        """Return a prediction joined with timings of models that run the very same kernels, weighted by their variances."""
        like = [outcome for outcome in self.outcomes if outcome.whole and outcome.kernels == kernels]
        if not like or not doubt:
            return centre, doubt
        weights = np.array([doubt**-2, *((outcome.spread**2 + SESSION**2) ** -1 for outcome in like)])
        values = np.array([centre, *(outcome.timed for outcome in like)])
        return float((weights * values).sum() / weights.sum()), float(weights.sum() ** -0.5)

    def _moved(self, shares: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the logarithms of speedups by the sums alone ``[M]``, and what errors of them go with ``[M, shares]``."""
        reference = self.shares(self.kernels(Candidate()))
        ms = reference[:-1].sum()
        return np.log(ms / shares[:, :-1].sum(axis=1)), (shares - reference) / ms

    @cached_property
    def _regression(self) -> BayesianRidge | None:
        from sklearn.linear_model import BayesianRidge

        learned = [outcome for outcome in self.outcomes if outcome.whole]
        if len(learned) < LEAST_LEARNED:
            return None
        summed, moved = self._moved(np.array([self.shares(outcome.kernels) for outcome in learned]))
        errors = np.array([outcome.timed for outcome in learned]) - summed
        weights = 1.0 / (LEAST_SPREAD**2 + np.array([outcome.spread for outcome in learned]) ** 2)
        return BayesianRidge(fit_intercept=False).fit(moved, errors, sample_weight=weights / weights.mean())

    @cached_property
    def reach(self) -> float:
        """How many of its own standard deviations a prediction's interval reaches to each side.

        From timings of whole models the quantile of the scores; from the few profiled rounds of a calibration, whose noise
        has long tails, what their median says of a normal distribution.
        """
        judged = [outcome for outcome in self.outcomes if outcome.score is not None]
        whole = sorted([outcome.score or 0.0 for outcome in judged if outcome.whole][-JUDGED:])
        if len(whole) >= LEAST_WHOLE:
            return whole[min(int(np.ceil((len(whole) + 1) * COVERAGE)), len(whole)) - 1]
        if len(judged) < LEAST_JUDGED:
            return 1.5 * Z_PREDICTED
        found = NORMAL_BY_MEDIAN * float(np.median([outcome.score or 0.0 for outcome in judged[-JUDGED:]]))
        return Z_PREDICTED * max(found, LEAST_SCALE)

    def _forget(self) -> None:
        vars(self).pop("_regression", None)
        vars(self).pop("reach", None)


def outcome_arrays(outcomes: Sequence[Outcome]) -> dict[str, NDArray[Any]]:
    """Return outcomes as arrays by name; without pickle."""
    numbers = [(o.timed, o.spread, _or_nan(o.missed), _or_nan(o.stated), o.whole) for o in outcomes]
    return {
        "kernels": np.array([json.dumps(outcome.kernels) for outcome in outcomes], dtype=np.str_),
        "numbers": np.array(numbers, float).reshape(-1, 5),
    }


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def outcomes_of(arrays: Mapping[str, NDArray[Any]]) -> list[Outcome]:
    """Read what `outcome_arrays` gave."""
    rows = zip(arrays["kernels"].tolist(), arrays["numbers"].tolist(), strict=True)
    return [
        Outcome(json.loads(kernels), timed, spread, _or_none(missed), _or_none(stated), bool(whole))
        for kernels, (timed, spread, missed, stated, whole) in rows
    ]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
