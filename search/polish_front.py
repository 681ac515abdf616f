"""The last part of a search: those members of the front are trained on that promise most by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..spaces.cache import content_hash
from ..spaces.errors import BuildError
from ..studies.front import WORST
from ..studies.run import Run
from ..studies.run_folder import write_derived
from ..studies.trial import Trial
from .addition import Addition, BusyError
from .distilled_study import loss_of
from .gain import hypervolume_with_less_drop
from .pace import Pace, TimeIsOverError
from .polish import added, polished, training_of
from .progress import Progress
from .race import ETA, Entry, Race
from .task import limits_of
from .training import Lesson, Schedule

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
    how = content_hash(steps, seed, repr(loss_of(addition.study)))
    in_vain = _read(recorded.folder, how)
    side_by_side = race is not None and race.able
    recorded.refresh()
    while recorded.run.count < pace.total:
        found = _chosen(recorded.run, in_vain, ETA * race.at_once if race is not None and side_by_side else 1)
        if not found:
            return
        try:
            pace.check()
            if race is not None and side_by_side:
                gone = _polish_together(addition, found, schedule, pace, progress, race)
            else:
                gone = [found[0]] if not _polish_one(addition, found[0], schedule, pace, progress) else []
        except TimeIsOverError:
            progress.note("the time is over: the same command goes on with the training of the front's members")
            return
        in_vain |= {trial.candidate.key for trial in found}
        if gone:
            progress.note(f"{_named(gone)} did not become better enough by training, or others train them")
            write_derived(recorded.folder / IN_VAIN_FILE, {"how": how, "candidates": sorted(in_vain)})
        recorded.refresh()


def _polish_one(addition: Addition, trial: Trial, schedule: Schedule, pace: Pace, progress: Progress) -> bool:
    """Train one trial's candidate on; return whether it became better."""
    try:
        after = polished(addition, trial, schedule, pace.limited(_of_trials(progress, [trial])), pace.total)
    except BuildError as error:
        progress.note(f"trial {trial.number}: {error}")
        return False
    except BusyError:
        return False
    if after is not None:
        _tell(addition, after, pace, progress)
    return after is not None


def _polish_together(
    addition: Addition, trials: Sequence[Trial], schedule: Schedule, pace: Pace, progress: Progress, race: Race
) -> list[Trial]:
    """Train several trials' candidates on side by side; return those that did not become better, or stopped."""
    run, limited = addition.recorded.run, pace.limited(_of_trials(progress, trials))
    entries: dict[int, Entry] = {}
    before: dict[int, float] = {}
    front = np.array([run.point(trial) for trial in run.front_trials()])
    for trial in trials:
        try:
            training = training_of(addition, trial, schedule, limited)
        except BuildError as error:
            progress.note(f"trial {trial.number}: {error}")
            continue
        before[trial.number] = training.lesson.standing()
        entries[trial.number] = Entry(training, Promise(run.point(trial), before[trial.number], front, _worst(run)))
    try:
        whole = race.run(list(entries.values()), min(race.at_once, len(entries)), limited) if entries else []
    except BuildError as error:
        progress.note(str(error))
        whole = []
    better = []
    for trial in trials:
        entry = entries.get(trial.number)
        if entry is not None and entry in whole and entry.training.lesson.standing() < before[trial.number]:
            with suppress(BusyError):
                _tell(addition, added(addition, trial, entry.training, limited, pace.total), pace, progress)
                better.append(trial)
    for entry in entries.values():
        entry.training.checkpoint.unlink(missing_ok=True)
    return [trial for trial in trials if trial not in better]


@dataclass(frozen=True)
class Promise:
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
        trial = most_promising(run, without | {each.candidate.key for each in found})
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


def most_promising(run: Run, without: set[str]) -> Trial | None:
    """Return the member of the front whose training promises most hypervolume; None where none promises any.

    Args:
        run: with its reference measured.
        without: keys of candidates that were trained already.
    """
    trained = {replace(trial.candidate, weights="") for trial in run.trials if trial.candidate.weights}
    front = run.front_trials()
    taken = np.array([run.point(trial) for trial in front])
    worst = _worst(run)
    able = [
        trial
        for trial in front
        if trial.candidate.repaired
        and not trial.candidate.weights
        and trial.candidate.key not in without
        and run.point(trial)[2] > LEAST_DROP
        and trial.candidate not in trained
    ]
    return max(able, key=lambda t: hypervolume_with_less_drop(run.point(t), LEFT, taken, worst), default=None)
