"""The last part of a search: those members of the front are trained on that promise most by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..spaces.errors import BuildError
from ..studies.front import hypervolume
from ..studies.run import Run
from ..studies.trial import Trial
from .addition import Addition
from .pace import Pace
from .polish import polished
from .progress import Progress
from .task import limits_of
from .training import Schedule

POLISHED = "polished"  # how the labels of what was trained on begin
LEFT = 0.6  # first guess: the part of the drop that training leaves
LEAST_DROP = 0.01  # of a candidate that is worth it, in parts of a whole drop


class TimeIsOverError(Exception):
    """Training is broken off; its checkpoint stays."""


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
    in_vain: set[str] = set()

    def telling(number: int) -> Callable[[str, float], None]:
        def told(text: str, part: float) -> None:
            if pace.deadline is not None and time.monotonic() > pace.deadline:
                raise TimeIsOverError
            progress.prepare(f"{text} trial {number}", part)

        return told

    run = addition.recorded.run
    while run.count < pace.total and (trial := most_promising(run, in_vain)) is not None:
        try:
            after = polished(addition, trial, Schedule(steps, seed=seed), telling(trial.number))
        except TimeIsOverError:
            progress.note("the time is over: the training that was under way goes on from its checkpoint")
            return
        except BuildError as error:
            progress.note(f"trial {trial.number}: {error}")
            after = None
        in_vain.add(trial.candidate.key)
        run = addition.recorded.run
        if after is None:
            progress.note(f"trial {trial.number} did not become better by training")
        else:
            progress.step(run.finished, pace.total, run.hypervolume(), None, after)


def most_promising(run: Run, without: set[str]) -> Trial | None:
    """Return the member of the front whose training promises most hypervolume; None where none promises any.

    Args:
        run: with its reference measured.
        without: keys of candidates that were trained already.
    """
    trained = {replace(trial.candidate, weights="") for trial in run.trials if trial.candidate.weights}
    front = run.front_trials()
    taken = np.array([run.point(trial) for trial in front])
    worst = np.minimum((1.0, 1.0, 1.0), limits_of(run))

    def gain(trial: Trial) -> float:
        size, elapsed, drop = run.point(trial)
        return hypervolume(np.vstack([taken, (size, elapsed, drop * LEFT)]), worst)

    able = [
        trial
        for trial in front
        if trial.candidate.repaired
        and not trial.candidate.weights
        and trial.candidate.key not in without
        and run.point(trial)[2] > LEAST_DROP
        and trial.candidate not in trained
    ]
    return max(able, key=gain, default=None)
