"""A minute in which the latency predictor learns a machine: skeletons of random candidates, their kernels profiled."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError
from ..spaces.space import Space
from ..spaces.statistics import Progress
from .kernel_profile import FIRST_RUNS, KernelProfile, Rounds
from .predictor import Prediction, Predictor
from .protocol import Reading
from .ratio import Z

AT_ONCE = 3  # candidates that are run in turn with the reference
DRAWN = 5  # from which those are taken that the predictor is least sure of
DRAWN_IN_VAIN = 5  # times, after which a space is taken to have no candidate with other kernels than the reference's
ROUNDS = 4  # the first is discarded
LEAST_SPREAD = 0.01  # standard deviation of the logarithm of a speedup from so few rounds
SURE = 0.025  # calibration ends when 90 % of the latest predictions were off by less,
LEAST_JUDGED = 18  # of at least so many


def calibrate(
    predictor: Predictor,
    space: Space,
    feed: Mapping[str, np.ndarray],
    seconds: float = 60.0,
    progress: Progress | None = None,
    seed: int = 0,
) -> int:
    """Profile random candidates of a space until the predictor is sure, or the time is over; return how many.

    Where it knows the machine already, from other studies or earlier runs, a few are enough.

    Args:
        predictor: learns and is saved.
        space: where candidates are drawn from, and all-integer and all-float ones.
        feed: one batch of inputs, arrays by name.
        seconds: the longest time.
        progress: told what is being done, and the part of the time that is over.
        seed: of the draws.

    Raises:
        InputError: the cache cannot be written to.
        BuildError: the reference does not run.
    """
    begun = time.monotonic()
    random = np.random.default_rng([seed, len(predictor.outcomes)])
    judged: list[float] = []
    in_vain = 0
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        while time.monotonic() - begun < seconds and not _sure(judged) and in_vain < DRAWN_IN_VAIN:
            chosen = _least_sure(predictor, [draw(space, random) for _ in range(DRAWN)])
            in_vain = 0 if chosen else in_vain + 1
            if chosen:
                judged += _profile(predictor, chosen, feed, Path(folder))
            if progress is not None:
                progress("latency predictor", min((time.monotonic() - begun) / seconds, 1.0))
    predictor.save()
    return len(judged)


def draw(space: Space, random: np.random.Generator) -> Candidate:
    """Return a random candidate: with a chance of its own to run layers in integers, and to be pruned."""
    options = []
    integer, pruned = random.random(), random.random()
    for axis in space.axes:
        compressed = random.random() < (pruned if axis.is_group else integer)
        wanted = [o for o in axis.options if (bool(o) if axis.is_group else o.integer) == compressed]  # type: ignore[union-attr]
        choices = wanted or list(axis.options)
        options.append((axis, choices[int(random.integers(len(choices)))]))
    return space.make(options)


def _sure(judged: Sequence[float]) -> bool:
    return len(judged) >= LEAST_JUDGED and float(np.quantile(judged[-LEAST_JUDGED:], 0.9)) < SURE


def _least_sure(predictor: Predictor, drawn: Sequence[Candidate]) -> list[tuple[Candidate, Prediction]]:
    """Return those candidates whose timing teaches most: their kernels are known least.

    Candidates that cannot be built or run the reference's kernels teach nothing.
    """
    predicted: dict[frozenset[tuple[str, int]], tuple[Candidate, Prediction]] = {}
    reference = frozenset(predictor.kernels(Candidate()).items())
    for candidate in dict.fromkeys(drawn):
        try:
            kernels = frozenset(predictor.kernels(candidate).items())
            if kernels != reference:
                predicted.setdefault(kernels, (candidate, predictor.predict(candidate)))
        except BuildError:
            continue
    return sorted(predicted.values(), key=lambda pair: -pair[1].spread)[:AT_ONCE]


def _profile(
    predictor: Predictor, chosen: Sequence[tuple[Candidate, Prediction]], feed: Mapping[str, np.ndarray], folder: Path
) -> list[float]:
    """Run candidates in turn with the reference and teach the predictor; return what it was off by before."""
    candidates = [Candidate(), *(candidate for candidate, _ in chosen)]
    paths = [folder / f"{number}.onnx" for number in range(len(candidates))]
    for candidate, path in zip(candidates, paths, strict=True):
        predictor.save_model(candidate, path)
    counted = ROUNDS - FIRST_RUNS
    reference, *profiles = predictor.target.profiles(paths, feed, Rounds(counted, counted))
    first = not all(predictor.times.knows(kernel.key) for kernel in reference.kernels)  # predicted from nothing
    slowed = predictor.slowed(reference)
    predictor.add(reference, slowed)
    timed = [_speedup(reference, profile) for profile in profiles]
    missed = []
    for (candidate, prediction), reading, profile in zip(chosen, timed, profiles, strict=True):
        predictor.add(profile, slowed)
        predictor.learn(candidate, reading, None if first else prediction, whole=False)
        missed += [] if first else [abs(float(np.log(reading.value / prediction.speedup)))]
    return missed


def _speedup(reference: KernelProfile, profile: KernelProfile) -> Reading:
    """Return how many times faster a model ran than the reference in turn with it."""
    ratios = np.log(reference.whole_ms / profile.whole_ms)
    centre = float(np.median(ratios))
    spread = max(float(ratios.std()) / np.sqrt(len(ratios)), LEAST_SPREAD)
    ends = (float(np.exp(centre + side * Z * spread)) for side in (0, -1, 1))
    return Reading(next(ends), "x", next(ends), next(ends), how=f"{len(ratios)} profiled rounds")
