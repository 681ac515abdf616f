"""What a proposer is told of a study and its run: the task, the history, and the constraints as a point."""

from __future__ import annotations

from ..spaces.candidate import REFERENCE
from ..spaces.sensitivity import sensitivity
from ..spaces.space import Option, Space
from ..spaces.statistics import Progress
from ..spaces.work import channel_shares, multiply_adds
from ..studies.front import FULL_FIDELITY_DB, full_drop_db
from ..studies.layer_costs import keep_sensitivity
from ..studies.limits import Limits
from ..studies.records import FAILED
from ..studies.run import Run
from ..studies.study import Study
from ..studies.trial import Trial
from .proposers import Observation, Point, Task


def tasks_of(study: Study, run: Run, sampler: str, seed: int, progress: Progress | None = None) -> list[Task]:
    """Return what a proposer works on: the reference, then the students; see `task_of`."""
    return [task_of(study, run, sampler, seed, progress, space.base) for space in study.spaces]


def task_of(
    study: Study, run: Run, sampler: str, seed: int, progress: Progress | None = None, base: str = REFERENCE
) -> Task:
    """Return the task of a base; errors of options are worked out only for the sampler that asks for them.

    Args:
        study: with its builder prepared.
        run: with its reference measured.
        sampler: a proposer's name.
        seed: of the proposer.
        progress: told what is being done, and the part of it that is done.
        base: "reference", or a student's.
    """
    graph = study.builder.of(base).graph
    return Task(
        study.space_of(base),
        {name: layer.parameters for name, layer in graph.layers.items()},
        multiply_adds(graph),
        channel_shares(graph),
        _errors(study, run, base, progress) if sampler == "frontier" else {},
        seed,
        full_drop_db(run.has_target),
        limits_of(run),
    )


def _errors(study: Study, run: Run, base: str, progress: Progress | None) -> dict[str, dict[Option, float]]:
    """Return the predicted error of each option, in parts of that of the uncompressed base (or of full fidelity)."""
    space = study.space_of(base)
    found = sensitivity(study.builder.of(base), space, progress)
    keep_sensitivity(run.folder, base, found)
    low, high = study.settings.data.range
    whole = (high - low) ** 2 * 10.0 ** (-_own_db(run, space) / 10.0)
    return {
        axis.label: {option: found.error(axis.name, option) / whole for option in axis.options}
        for axis in space.axes
        if len(axis.options) > 1
    }


def history_of(run: Run) -> list[Observation]:
    """Return what a proposer is told of a run's trials."""
    return [observation_of(run, trial) for trial in run.trials]


def observation_of(run: Run, trial: Trial) -> Observation:
    """Return what a proposer is told of a finished trial."""
    if trial.state == FAILED:
        return Observation(trial.candidate, None)
    point, violation = run.point(trial), run.violation(trial)
    signed = run.signed_drop_db(trial) / full_drop_db(run.has_target)
    return Observation(
        trial.candidate, point, violation, trial.predicted, signed_drop=signed, excesses=run.excesses(trial)
    )


def limits_of(run: Run, limits: Limits | None = None) -> Point:
    """Return limits, by default the study's constraints, as the largest point that keeps them."""
    reference = run.reference
    return (run.limits if limits is None else limits).point(
        size_bytes=reference.value("size_bytes"),
        latency_ms=reference.latency_ms,
        best_db=_best_db(run),
        full_drop_db=full_drop_db(run.has_target),
    )


def _own_db(run: Run, space: Space) -> float:
    """Return the quality of a base as it is, at most that of full fidelity; the reference's where it is not judged yet."""
    trial = run.known(space.candidate())
    if space.base == REFERENCE or trial is None or not trial.judged:
        return _best_db(run)
    return trial.value("psnr_db") if run.has_target else min(trial.value("fidelity_db"), FULL_FIDELITY_DB)


def _best_db(run: Run) -> float:
    return run.reference.value("psnr_db") if run.has_target else FULL_FIDELITY_DB
