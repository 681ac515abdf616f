"""The last part of a search: those members of the front are trained on that promise most by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import BuildError
from ..studies.front import WORST
from ..studies.records import FAILED
from ..studies.run import Run
from ..studies.run_folder import write_derived
from ..studies.trial import Trial
from .addition import Addition, BusyError
from .distillation import Examples
from .distilled_study import examples_of
from .gain import hypervolume_with_less_drop
from .pace import Pace, TimeIsOverError
from .polish import added, manner, polished, record_failure, training_of
from .progress import Progress
from .race import Entry, Race, able
from .task import limits_of
from .training import ETA, TRAINING_FOLDER, Lesson, Schedule

IN_VAIN_FILE = "unpolished.json"
LEFT = 0.6  # first guess: the part of the drop that training leaves
LEAST_DROP = 0.01  # of a candidate that is worth it, in parts of a whole drop


def polish_front(
    addition: Addition, pace: Pace, steps: int, seed: int, progress: Progress, race: Race | None = None
) -> None:
    """Train members of the front on, the most promising first, until the run has its trials or the time is over.

    Args:
        addition: the run.
        pace: how many trials it is to have, and until when.
        steps: of each training.
        seed: of the order and the variation of the samples.
        progress: is told what happens.
        race: trains several side by side, of which those go on that promise most; by default one after another.

    Raises:
        InputError: the disk cannot be written to.
    """
    recorded, schedule = addition.recorded, Schedule(steps, seed=seed)
    how, examples = manner(addition.study, schedule), cache(partial(examples_of, addition.study))
    in_vain = _read(recorded.folder, how)
    done = set(in_vain)  # in this call
    together = able(race)
    recorded.refresh()
    try:
        while (left := pace.total - recorded.run.count) > 0:
            count = 1 if together is None else min(together.at_once, left)
            found = _chosen(recorded.run, done, count if together is None else ETA * count)
            if not found:
                break
            pace.check()
            if together is None:
                trained = {found[0].number: _polish_one(addition, found[0], schedule, pace, progress, examples)}
            else:
                trained = _polish_together(addition, found, schedule, pace, progress, examples, together, count)
            ended = [trial for trial in found if trial.number in trained]
            gone = [trial for trial in ended if not trained[trial.number]]
            done |= {trial.candidate.key for trial in ended or found}  # where none came to its end none would again
            in_vain |= {trial.candidate.key for trial in gone}
            if gone:
                progress.note(f"{_named(gone)} did not become better by training, or others train it")
                write_derived(recorded.folder / IN_VAIN_FILE, {"how": how, "candidates": sorted(in_vain)})
            recorded.refresh()
    except TimeIsOverError:
        progress.note("the time is over: the same command goes on with the training of the front's members")
        return
    for checkpoint in (recorded.folder / TRAINING_FOLDER).glob("*.pt"):  # of those that stopped early
        checkpoint.unlink(missing_ok=True)


def _polish_one(
    addition: Addition,
    trial: Trial,
    schedule: Schedule,
    pace: Pace,
    progress: Progress,
    examples: Callable[[], Examples],
) -> bool:
    """Train one trial's candidate on; return whether it became better."""
    try:
        limited = pace.limited(_of_trials(progress, [trial]))
        after = polished(addition, trial, schedule, limited, pace.total, examples())
    except BuildError as error:
        progress.note(f"trial {trial.number}: {error}")
        return False
    except BusyError:
        return False
    if after is not None:
        _tell(addition, after, pace, progress)
    return after is not None


def _polish_together(
    addition: Addition,
    trials: Sequence[Trial],
    schedule: Schedule,
    pace: Pace,
    progress: Progress,
    examples: Callable[[], Examples],
    race: Race,
    count: int,
) -> dict[int, bool]:
    """Train several trials' candidates on side by side, so many of them to the end; return whether those became better.

    Those that stopped early, and those for which the run has no place any more, are not among what is returned.
    """
    run, limited = addition.recorded.run, pace.limited(_of_trials(progress, trials))
    front = np.array([run.point(trial) for trial in run.front_trials()])
    entries: dict[int, Entry] = {}
    ended: dict[int, bool] = {}
    for trial in trials:
        try:
            training = training_of(addition, trial, schedule, limited, examples())
        except BuildError as error:
            progress.note(f"trial {trial.number}: {error}")
            ended[trial.number] = False
            continue
        promise = MemberPromise(run.point(trial), training.lesson.standing(), front, _worst(run))
        entries[trial.number] = Entry(training, promise)
        limited("preparing the training of", len(entries) / len(trials))

    failures: list[tuple[Trial, str]] = []

    def failed(entry: Entry, error: Exception) -> None:
        trial = next(trial for trial in trials if entries.get(trial.number) is entry)
        progress.note(f"trial {trial.number}: the candidate cannot be trained: {error}")
        ended[trial.number] = False
        if isinstance(error, BuildError):  # and no worker was lost
            failures.append((trial, str(error)))

    whole: list[Entry] = []
    if entries:
        with suppress(BuildError):  # of which `failed` was told
            whole = race.run(list(entries.values()), min(count, len(entries)), limited, failed)
    by_number = {trial.number: trial for trial in trials}
    finished = [number for number, entry in entries.items() if entry in whole]
    for number in sorted(finished, key=lambda number: -_promised(entries[number])):
        training, trial = entries[number].training, by_number[number]
        if addition.recorded.run.count >= pace.total:
            break
        better = training.lesson.standing() < entries[number].promise.before  # type: ignore[attr-defined]
        if better:
            try:
                _tell(addition, added(addition, trial, training, limited, pace.total), pace, progress)
            except BusyError:
                better = False
        ended[number] = better
        training.checkpoint.unlink(missing_ok=True)
    for trial, reason in failures:  # where there is room left for them
        record_failure(addition, trial, entries[trial.number].training, reason, pace.total)
    return ended


def _promised(entry: Entry) -> float:
    """Return what a training promises by now."""
    lesson: Any = entry.training.lesson
    return entry.promise(lesson)


@dataclass(frozen=True)
class MemberPromise:
    """What a member of the front that is trained promises: the hypervolume, its drop shrunk as its error has.

    Attributes:
        point: of the member.
        before: its error before the training.
        front: points of the front ``[N, 3]``.
        worst: the reference point of the hypervolume.
    """

    point: tuple[float, float, float]
    before: float
    front: NDArray[np.float64]
    worst: NDArray[np.float64]

    def __call__(self, lesson: Lesson) -> float:
        """Return the hypervolume with the member as it is by now."""
        left = min(lesson.standing() / self.before, 1.0) if self.before > 0.0 else 1.0
        return hypervolume_with_less_drop(self.point, left, self.front, self.worst)


def _tell(addition: Addition, after: Trial, pace: Pace, progress: Progress) -> None:
    run = addition.recorded.run
    progress.step(run.finished, pace.total, run.hypervolume(), None, after)


def _named(trials: Sequence[Trial]) -> str:
    return f"trial{'s' * (len(trials) > 1)} {', '.join(str(trial.number) for trial in trials)}"


def _of_trials(progress: Progress, trials: Sequence[Trial]) -> Callable[[str, float], None]:
    return lambda text, part: progress.prepare(f"{text} {_named(trials)}", part)


def _worst(run: Run) -> NDArray[np.float64]:
    return np.minimum(WORST, limits_of(run))


def _chosen(run: Run, without: set[str], count: int) -> list[Trial]:
    """Return so many members of the front whose training promises most, at most."""
    found: list[Trial] = []
    while len(found) < count:
        trial = worth_most(run, without | {each.candidate.key for each in found})
        if trial is None:
            break
        found.append(trial)
    return found


def _read(folder: Path, how: str) -> set[str]:
    """Return the keys of candidates that were trained in vain, in the same way."""
    try:
        found = json.loads((folder / IN_VAIN_FILE).read_text(encoding="utf-8"))
        return set(found["candidates"]) if found["how"] == how else set()
    except (OSError, ValueError, KeyError, TypeError):  # it saves time, no more
        return set()


def worth_most(run: Run, without: set[str]) -> Trial | None:
    """Return the member of the front whose training promises most hypervolume; None where none promises any.

    Args:
        run: with its reference measured.
        without: keys of candidates that were trained already.
    """
    known = [trial for trial in run.trials if trial.candidate.weights and trial.state != FAILED]
    trained = {replace(trial.candidate, weights="") for trial in known}
    front = run.front_trials()
    taken = np.array([run.point(trial) for trial in front])
    worst = _worst(run)
    found = [
        trial
        for trial in front
        if trial.candidate.repaired
        and not trial.candidate.weights
        and trial.candidate.key not in without
        and run.point(trial)[2] > LEAST_DROP
        and trial.candidate not in trained
    ]
    return max(found, key=lambda t: hypervolume_with_less_drop(run.point(t), LEFT, taken, worst), default=None)
