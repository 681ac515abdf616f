"""Predict: how fast candidates will be on this machine, from the latency predictor alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..objectives.calibration import calibrate
from ..spaces.candidate import Candidate
from ..spaces.groups import fitting
from ..spaces.statistics import Progress

if TYPE_CHECKING:
    from .study import Study

CALIBRATION_SECONDS = 60.0


def predict(study: Study, candidates: Sequence[Candidate], progress: Progress | None = None) -> list[dict[str, Any]]:
    """Return what each candidate's speedup will be, in the order given; nothing is rounded, packed or built.

    The first time on a machine, and for a model that it has not met, the predictor is calibrated for up to a minute. What
    its predictions were off by is added to the study's warnings.

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
    rows = []
    for candidate in candidates:
        found = predictor.predict(candidate)
        rows.append(
            {
                "candidate": candidate.to_json(),
                "predicted_speedup": found.speedup,
                "predicted_speedup_low": found.low,
                "predicted_speedup_high": found.high,
                "predicted_latency_ms": found.reference_ms / found.speedup,
            }
        )
    if predictor.error is not None:
        study.warn(
            f"90 % of the predictions that were checked on this machine were off by at most {predictor.error:.1%}"
        )
    return rows
