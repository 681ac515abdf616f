"""The last part of a search: those members of the front are trained on that promise most by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

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
from .polish import polished
from .progress import Progress
from .task import limits_of
from .training import Schedule

IN_VAIN_FILE = "unpolished.json"
LEFT = 0.6  # first guess: the part of the drop that training leaves
LEAST_DROP = 0.01  # of a candidate that is worth it, in parts of a whole drop


def polish_front(addition: Addition, pace: Pace, steps: int, seed: int, progress: Progress) -> None:
    """Train members of the front on, the most promising first, until the run has its trials or the time is over.

    Args:
        addition: the run.
        pace: how many trials it is to have, and until when.
        steps: of each training.
        seed: of the order and the variation of the samples.
        progress: is told what happens.

    Raises:
        InputError: the disk cannot be written to.
    """
    recorded, schedule = addition.recorded, Schedule(steps, seed=seed)
    how = content_hash(steps, seed, repr(loss_of(addition.study)))
    in_vain = _read(recorded.folder, how)
    recorded.refresh()
    while recorded.run.count < pace.total and (trial := most_promising(recorded.run, in_vain)) is not None:
        try:
            pace.check()
            after = polished(addition, trial, schedule, pace.limited(_of_trial(progress, trial.number)), pace.total)
        except TimeIsOverError:
            progress.note("the time is over: the same command goes on with the training of the front's members")
            return
        except BuildError as error:
            progress.note(f"trial {trial.number}: {error}")
            after = None
        except BusyError:
            after = None
        in_vain.add(trial.candidate.key)
        if after is None:
            progress.note(f"trial {trial.number} did not become better by training, or others train it")
            write_derived(recorded.folder / IN_VAIN_FILE, {"how": how, "candidates": sorted(in_vain)})
        else:
            progress.step(recorded.run.finished, pace.total, recorded.run.hypervolume(), None, after)
        recorded.refresh()


def _of_trial(progress: Progress, number: int) -> Callable[[str, float], None]:
    return lambda text, part: progress.prepare(f"{text} trial {number}", part)


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
    worst = np.minimum(WORST, limits_of(run))
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
