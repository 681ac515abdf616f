"""What a worker is given and what it tells: the trials of a search, built and judged one by one, or timed in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..studies.trial import Trial
from .evaluate import Evaluator, StageResult
from .glance import Look

Results = tuple[tuple[int, StageResult], ...]


class Kind(StrEnum):
    """What is to be done with trials."""

    JUDGE = "judge"  # predict, build, look at the pictures
    TIME = "time"
    TIME_AGAIN = "time again"


@dataclass(frozen=True, eq=False)
class Work:
    """Something to be done in one go.

    Attributes:
        kind: what.
        trials: one to judge; one or several to time in turn with one another.
        look: tells whether one that is judged is hopeless by its first images; None where it is judged on all.
        apart: whether it may end the process that does it, and has to be done in one of its own.
    """

    kind: Kind
    trials: tuple[Trial, ...]
    look: Look | None = None
    apart: bool = False

    @property
    def numbers(self) -> tuple[int, ...]:
        """The trials' numbers."""
        return tuple(trial.number for trial in self.trials)


@dataclass(frozen=True, eq=False)
class Told:
    """What is known of a piece of work: stages as they finish, and its end.

    Attributes:
        work: what it is about.
        results: trials' numbers and their stages that were finished since it was last told of.
        over: whether the work is ended.
        lost: why its worker ended before it did.
        blameless: whether the worker's end was no fault of the candidate's.
        node: where it was done; empty in the search's own process.
        environment: digest of the node's environment; empty in the search's own process.
    """

    work: Work
    results: Results = ()
    over: bool = False
    lost: str | None = None
    blameless: bool = False
    node: str = ""
    environment: str = ""


def perform(evaluator: Evaluator, work: Work) -> Iterator[Results]:
    """Do a piece of work; yield trials' numbers and their stages as they finish."""
    if work.kind is Kind.JUDGE:
        for trial in work.trials:
            for result in evaluator.judge(trial.candidate, trial, work.look):
                yield ((trial.number, result),)
    else:
        timed = evaluator.time_together if work.kind is Kind.TIME else evaluator.time_again
        yield tuple((trial.number, result) for trial, result in timed(work.trials))
