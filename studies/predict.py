"""Predict: how fast candidates will be on this machine, from the latency predictor alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..objectives.calibration import calibrate
from ..objectives.rapid import RapidPredictor
from ..spaces.candidate import Candidate
from ..spaces.groups import fitting
from ..spaces.statistics import Progress

if TYPE_CHECKING:
    from .study import Study

CALIBRATION_SECONDS = 60.0
LEARNING_SECONDS = 30.0
RAPIDLY_FROM = 200  # candidates: their kernels would take a minute


def predict(study: Study, candidates: Sequence[Candidate], progress: Progress | None = None) -> list[dict[str, Any]]:
    """Return what each candidate's speedup will be, in the order given; nothing is rounded, packed or built.

    The first time on a machine, and for a model that it has not met, the predictor is calibrated for up to a minute. What
    its predictions were off by is added to the study's warnings. More than `RAPIDLY_FROM` candidates are predicted as sums
    over nodes (`objectives.rapid`), thousands a second.

    Returns:
        For each candidate ``candidate``, ``predicted_speedup``, ``predicted_speedup_low`` and ``predicted_speedup_high`` (its
        90 % interval), and ``predicted_latency_ms``.

    Raises:
        InputError: the study is wrong, or a candidate names a layer or a channel group that the model has not.
        BuildError: a candidate cannot be built.
    """
    candidates = [fitting(study.graph, candidate) for candidate in candidates]
    study.check()
    predictor = study.predictor
    if not predictor.calibrated:
        calibrate(predictor, study.space, study.feed, CALIBRATION_SECONDS, progress)
    found = _rapidly(study, candidates, progress) if len(candidates) > RAPIDLY_FROM else _by_kernels(study, candidates)
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


def _by_kernels(study: Study, candidates: Sequence[Candidate]) -> list[tuple[float, float, float]]:
    """Return (speedup, low, high) of each candidate from the kernels that it would run."""
    found = [study.predictor.predict(candidate) for candidate in candidates]
    return [(each.speedup, each.low, each.high) for each in found]


def _rapidly(
    study: Study, candidates: Sequence[Candidate], progress: Progress | None
) -> list[tuple[float, float, float]]:
    """Return (speedup, low, high) of each candidate from sums over nodes."""
    rapid = RapidPredictor(study.predictor)
    rapid.learn(study.space, LEARNING_SECONDS, progress)
    found = rapid.predict(candidates)
    study.warn(
        f"{len(candidates)} candidates were predicted as sums over nodes, which miss what kernels tell of a candidate by "
        f"{rapid.error:.1%} (standard deviation)"
    )
    return list(zip(found.speedup.tolist(), found.low.tolist(), found.high.tolist(), strict=True))
