"""A candidate of a run is trained on: what it becomes is evaluated and added to the run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..spaces.cache import content_hash
from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError, InputError
from ..spaces.statistics import Progress
from ..studies.records import FAILED
from ..studies.run import Run
from ..studies.study import Study
from ..studies.trial import Trial
from .addition import Addition, adding_to
from .distillation import Distillation, Examples
from .distilled_study import examples_of, loss_of
from .evaluate import StageResult
from .recorded import Proposal
from .training import TRAINING_FOLDER, Schedule, Training

if TYPE_CHECKING:
    from ..spaces.trainee import Trainee

STEPS = 2000
POLISHED = "polished"  # how the labels of what was trained on begin


def polish(
    run: Run, trial: int | Trial, steps: int = STEPS, seed: int = 0, progress: Progress | None = None
) -> tuple[Trial, list[str]]:
    """Train a candidate on and add what it becomes to the run.

    It learns to give what the reference gives (and what the targets are, where the calibration data has some), on the
    calibration data, turned and mirrored, and on what is made of it, for half of the steps each; evaluation data is not seen.
    What is made has no targets. Bits, channels and zeros stay as they are, so size and speed do; weights, and the steps of their
    grids and of activations, are learned behind the rounding (`spaces.trainee`). Interrupted, the same call goes on from its
    checkpoint.

    Args:
        run: with the trial; the study that it was made of has to be there.
        trial: which candidate, or its number.
        steps: of training, one batch of the model's own size each.
        seed: of the order of the samples.
        progress: told what is being done, and the part of it that is done.

    Returns:
        The new trial, and notes: what became better. Where it has not come nearer to the reference on the calibration data,
        the trial as it was, and a note that says so.

    Raises:
        InputError: there is no such trial, nothing of it was changed, it failed, or steps is no number above 0; as for
            `propose.propose`.
        BuildError: an op has no form in PyTorch here, or the training fails; it is named.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps must be a whole number, at least 1, but got {steps!r}")
    before = trial if isinstance(trial, Trial) else run.trial(trial)
    _check(before)
    schedule = Schedule(steps, seed=seed)
    with adding_to(run) as addition:
        after = polished(addition, before, schedule, progress)
        if after is None:
            return before, [
                *addition.notes,
                f"trial {before.number} did not become better in {steps} steps: nothing is added",
            ]
    return after, [*addition.notes, _told(before, after)]


def polished(
    addition: Addition,
    before: Trial,
    schedule: Schedule,
    progress: Progress | None = None,
    total: int | None = None,
    examples: Examples | None = None,
) -> Trial | None:
    """Train a candidate of an open run on and evaluate what it becomes; None where it has come no nearer to its aim.

    Args:
        addition: the run.
        before: which of its trials.
        schedule: how it is trained.
        progress: told what is being done, and the part of it that is done.
        total: how many trials the run may have; by default any number.
        examples: of the study, where there are some already.

    Raises:
        BusyError: another process is evaluating it, or the run has its trials.
        InputError: the disk cannot be written to.
        BuildError: an op has no form in PyTorch here, or the training fails, which is recorded as a failed trial; it is named.
    """
    training = training_of(addition, before, schedule, progress, examples)
    try:
        earlier, later = training.run(progress)
    except BuildError as error:
        record_failure(addition, before, training, str(error), total)
        raise BuildError(f"the candidate cannot be trained: {error}") from error
    after = added(addition, before, training, progress, total) if later < earlier else None
    training.checkpoint.unlink(missing_ok=True)
    return after


def training_of(
    addition: Addition,
    before: Trial,
    schedule: Schedule,
    progress: Progress | None = None,
    examples: Examples | None = None,
) -> Training:
    """Return the training of a trial's candidate, from its beginning, with a checkpoint in the run's folder.

    Args:
        addition: the run.
        before: the trial.
        schedule: how it is trained.
        progress: told what is being done, and the part of it that is done.
        examples: of the study, where there are some already.

    Raises:
        BuildError: an op has no form in PyTorch here; it is named.
    """
    addition.study.prepare([before.candidate], progress)
    checkpoint = f"{before.candidate.key}-{manner(addition.study, schedule)}.pt"
    try:
        lesson = lesson_of(addition.study, before.candidate, examples)
    except BuildError as error:
        raise BuildError(f"the candidate cannot be trained: {error}") from error
    schedule = schedule.for_layers(len(lesson.graph.layers))
    return Training(lesson, schedule, addition.recorded.folder / TRAINING_FOLDER / checkpoint)


def manner(study: Study, schedule: Schedule) -> str:
    """Return a hash of how a study's candidates are trained: who is trained in another manner becomes another."""
    return content_hash(repr(schedule), repr(loss_of(study)), study.settings.training.features)


def added(
    addition: Addition, before: Trial, training: Training, progress: Progress | None = None, total: int | None = None
) -> Trial:
    """Keep what a trial's candidate has become by its training, and evaluate it; raises `BusyError` as `polished`."""
    proposal = _become(addition, before, training)
    if progress is not None:
        progress("measuring what it has become,", 1.0)
    return addition.evaluated(proposal, total)


def record_failure(
    addition: Addition, before: Trial, training: Training, reason: str, total: int | None = None
) -> None:
    """Record a failed trial, with the weights that this process has of it; nothing where the run is full."""
    if total is not None and addition.recorded.run.count >= total:
        return
    proposal = _become(addition, before, training)
    if addition.recorded.run.known(proposal.candidate) is None:
        result = StageResult("build", FAILED, "", reason=f"the training fails: {reason}")
        addition.recorded.add([(trial.number, result) for trial in addition.recorded.claim([proposal], total)])


def _become(addition: Addition, before: Trial, training: Training) -> Proposal:
    """Keep the weights that a trial's candidate has by now; return the candidate with them."""
    trainee: Trainee = training.lesson.module  # type: ignore[assignment]
    weights = addition.recorded.holdings.keep_trained(trainee.trained())
    return Proposal(replace(before.candidate, weights=weights), f"{POLISHED} {before.number}")


def _check(trial: Trial) -> None:
    """Raise `InputError` where there is nothing to train."""
    if not trial.candidate.repaired:
        raise InputError(
            f"trial {trial.number} has all its weights as they came: there is nothing that training could make good"
        )
    if not trial.judged:
        raise InputError(
            f"trial {trial.number} was not judged on all images ({trial.reason or trial.state}); choose a trial that was: "
            "`slimfront front RUN --all` lists them"
        )


def lesson_of(study: Study, candidate: Candidate, examples: Examples | None = None) -> Distillation[Trainee]:
    """Return how a candidate, for which the study was prepared, is trained.

    Raises:
        BuildError: an op has no form in PyTorch here; it is named.
    """
    builder, weight = study.builder, study.settings.training.features
    student = builder.to_torch(candidate)
    examples, loss = examples or examples_of(study), loss_of(study)
    if not weight:
        return Distillation(student, student.graph, examples, loss)
    from .features import FeatureDistillation, Features

    candidate = builder.fitting(candidate)
    features = Features(builder.graph_of(candidate), builder.removed(candidate))
    return FeatureDistillation(student, student.graph, examples, loss, features, weight)


def _told(before: Trial, after: Trial) -> str:
    if not after.judged:
        return f"trial {after.number}, trained from trial {before.number}: {after.reason or after.state}"
    gained = after.value("psnr_db") - before.value("psnr_db")
    return (
        f"trial {after.number}, trained from trial {before.number}: {before.value('psnr_db'):.2f} → "
        f"{after.value('psnr_db'):.2f} dB ({gained:+.2f})"
    )
