"""What a proposer is told of a study and its run: the task, the history, and the constraints as a point."""

from __future__ import annotations

from ..spaces.sensitivity import sensitivity
from ..spaces.space import Option
from ..spaces.statistics import Progress
from ..spaces.work import channel_shares, multiply_adds
from ..studies.front import FULL_FIDELITY_DB, full_drop_db
from ..studies.limits import Limits
from ..studies.records import FAILED
from ..studies.run import Run
from ..studies.study import Study
from ..studies.trial import Trial
from .proposers import Observation, Point, Task


def task_of(study: Study, run: Run, sampler: str, seed: int, progress: Progress | None = None) -> Task:
    """Return what a proposer works on; errors of options are worked out only for the sampler that asks for them.

    Args:
        study: with its builder prepared.
        run: with its reference measured.
        sampler: a proposer's name.
        seed: of the proposer.
        progress: told what is being done, and the part of it that is done.
    """
    return Task(
        study.space,
        {name: layer.parameters for name, layer in study.graph.layers.items()},
        multiply_adds(study.graph),
        channel_shares(study.graph),
        _errors(study, run, progress) if sampler == "frontier" else {},
        seed,
        full_drop_db(run.has_target),
        limits_of(run),
    )


def _errors(study: Study, run: Run, progress: Progress | None) -> dict[str, dict[Option, float]]:
    """Return the predicted error of each option, in parts of that of the reference (or of full fidelity)."""
    found = sensitivity(study.builder, study.space, progress)
    low, high = study.settings.data.range
    whole = (high - low) ** 2 * 10.0 ** (-_best_db(run) / 10.0)
    return {
        axis.label: {option: found.error(axis.name, option) / whole for option in axis.options}
        for axis in study.space.axes
        if len(axis.options) > 1
    }


def history_of(run: Run) -> list[Observation]:
    """Return what a proposer is told of a run's trials."""
    return [observation_of(run, trial) for trial in run.trials]


def observation_of(run: Run, trial: Trial) -> Observation:
    """Return what a proposer is told of a finished trial."""
    if trial.state == FAILED:
        return Observation(trial.candidate, None)
    return Observation(trial.candidate, run.point(trial), run.violation(trial), trial.predicted)


def limits_of(run: Run, limits: Limits | None = None) -> Point:
    """Return limits, by default the study's constraints, as the largest point that keeps them."""
    reference = run.reference
    return (run.limits if limits is None else limits).point(
        size_bytes=reference.value("size_bytes"),
        latency_ms=reference.latency_ms,
        best_db=_best_db(run),
        full_drop_db=full_drop_db(run.has_target),
    )


def _best_db(run: Run) -> float:
    return run.reference.value("psnr_db") if run.has_target else FULL_FIDELITY_DB
