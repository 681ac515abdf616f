"""Predict: how fast candidates will be on this machine, from the latency predictor alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..objectives.calibration import calibrate
from ..objectives.rapid import RapidPredictor
from ..spaces.candidate import Candidate
from ..spaces.skeleton import structure
from ..spaces.statistics import Progress

if TYPE_CHECKING:
    from .study import Study

CALIBRATION_SECONDS = 60.0
LEARNING_SECONDS = 30.0
MOST_BY_KERNELS = 200  # candidates of new kernels, which take a minute


def predict(study: Study, candidates: Sequence[Candidate], progress: Progress | None = None) -> list[dict[str, Any]]:
    """Return what each candidate's speedup will be, in the order given; nothing is rounded, packed or built.

    The first time on a machine, and for a model that it has not met, the predictor is calibrated for up to a minute. What
    its predictions were off by is added to the study's warnings. More than `MOST_BY_KERNELS` that run new kernels are predicted
    as sums over nodes (`objectives.rapid`), thousands a second.

    Returns:
        For each candidate ``candidate``, ``predicted_speedup``, ``predicted_speedup_low`` and ``predicted_speedup_high`` (its
        90 % interval), and ``predicted_latency_ms``.

    Raises:
        InputError: the study is wrong, or a candidate names a layer or a channel group that the model has not.
        BuildError: a candidate cannot be built.
    """
    candidates = [study.builder.fitting(candidate) for candidate in candidates]
    study.check()
    predictor = study.predictor
    if not predictor.calibrated:
        calibrate(predictor, study.space, study.feed, CALIBRATION_SECONDS, progress)
    found = _speedups(study, candidates, progress)
    reference_ms = predictor.predict(Candidate()).reference_ms
    rows = [
        {
            "candidate": candidate.to_json(),
            "predicted_speedup": speedup,
            "predicted_speedup_low": low,
            "predicted_speedup_high": high,
            "predicted_latency_ms": reference_ms / speedup,
        }
        for candidate, (speedup, low, high) in zip(candidates, found, strict=True)
    ]
    if predictor.error is not None:
        study.warn(
            f"90 % of the predictions that were checked on this machine were off by at most {predictor.error:.1%}"
        )
    return rows


def _speedups(
    study: Study, candidates: Sequence[Candidate], progress: Progress | None
) -> list[tuple[float, float, float]]:
    """Return (speedup, low, high) of each candidate: from its kernels, unless too many are to be looked up."""
    predictor = study.predictor
    new = {structure(candidate).key for candidate in candidates if not predictor.knows(candidate)}
    rapid: dict[int, tuple[float, float, float]] = {}
    if len(new) > MOST_BY_KERNELS:
        sums = RapidPredictor(predictor)
        sums.learn(study.space, LEARNING_SECONDS, progress)
        rows = [row for row, candidate in enumerate(candidates) if not predictor.knows(candidate)]
        found = sums.predict([candidates[row] for row in rows])
        values = zip(found.speedup.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
        rapid = dict(zip(rows, values, strict=True))
        study.warn(
            f"{len(rows)} candidates were predicted as sums over nodes, which miss what kernels tell of a candidate by "
            f"{sums.error:.1%} (standard deviation)"
        )
    exact = {row: predictor.predict(candidate) for row, candidate in enumerate(candidates) if row not in rapid}
    every = rapid | {row: (each.speedup, each.low, each.high) for row, each in exact.items()}
    return [every[row] for row in range(len(candidates))]
