"""What a search does next: candidates judged, timings that cannot wait, those that were postponed, and those in doubt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from ..studies.trial import Trial
from .glance import Glances
from .pace import Pace
from .plan import Plan
from .pool import Pool
from .progress import Progress
from .recorded import RecordedRun
from .timing_queue import TimingQueue
from .work import Kind, Work

CHECKPOINTS = 4  # times that what was postponed is timed in a search
LEAST_RHYTHM = 15  # trials from one of them to the next
TIMED_AGAIN = 0.125  # timings of members of the front in doubt, in parts of the trials
TRIES = 2  # of a candidate that ends its worker


class UnderWay(Protocol):
    """What an agenda has to know of who does the work."""

    pool: Pool

    @property
    def under_way(self) -> Collection[Work]:
        """What was handed out and is not over."""
        ...


class Agenda:
    """Decides what comes next in one call of a search.

    Args:
        recorded: the run, its reference measured when anything but that is asked for.
        pace: how many candidates there are to be, and until when.
        progress: is told what is being done.
        plan: claims candidates.
        predicts: whether the latency predictor is calibrated.
        workers: who does the work.

    Attributes:
        queue: timings.
        glances: what the first images tell.
        begun_before: trials that a process began which ended before it had finished them.
        again: work whose workers ended.
    """

    def __init__(
        self, recorded: RecordedRun, pace: Pace, progress: Progress, plan: Plan, predicts: bool, workers: UnderWay
    ) -> None:
        self.recorded = recorded
        self.pace = pace
        self.progress = progress
        self.plan = plan
        self.workers = workers
        self.queue = TimingQueue(recorded, predicts)
        self.glances = Glances(recorded.run)
        self.begun_before: list[Trial] = []
        self.again: list[Work] = []
        self._checkpoint = recorded.run.finished // self._rhythm
        self._checking = False
        self._in_doubt: list[int] = []  # members of the front that are to be timed again, the most urgent first
        self._doubts: set[tuple[int, int]] = set()  # who they were when it was last looked, and how often timed
        self._left = self._most_timed_again - sum(max(trial.timings - 1, 0) for trial in recorded.run.trials)

    @property
    def _most_timed_again(self) -> int:
        return max(round(TIMED_AGAIN * self.pace.total), 1)

    @property
    def _rhythm(self) -> int:
        """After so many trials what was postponed is timed, so that the front is known meanwhile."""
        return max(self.pace.total // CHECKPOINTS, LEAST_RHYTHM)

    def finished(self) -> None:
        """Take that trials were finished: after so many of them the postponed ones are timed."""
        passed = self.recorded.run.finished // self._rhythm
        if passed > self._checkpoint:
            self._checkpoint = passed
            self._checking = True
            self.queue.reconsider()

    def take_over(self, adopted: Collection[int]) -> None:
        """Take trials of processes that have ended."""
        known = self.at_work_on | {trial.number for trial in self.begun_before} | set(self.queue.due)
        begun = self.recorded.begun(self.pace.total)
        self.begun_before += [trial for trial in begun if trial.number in adopted and trial.number not in known]
        self.queue.reconsider()

    def lost(self) -> Work | None:
        """Return work whose worker ended, to be done again."""
        return self.again.pop(0) if self.again else None

    def next_of_search(self) -> Work | None:
        """Return what to do next while candidates are proposed."""
        pool = self.workers.pool
        if len(self.queue.due) >= pool.gathered:
            return self.next_due()
        if self._checking and (work := self.next_postponed()) is not None:
            return work
        self._checking = self._checking and self._timers_are_busy
        trial = self._next_begun() or self.plan.next(pool.room, self.time_is_over)
        return self.next_due() if trial is None else self._judge(trial)

    def _next_begun(self) -> Trial | None:
        """Return a trial that another process had begun; its evaluation is begun once more."""
        while self.begun_before and not self.time_is_over():
            trial = self.recorded.run.any_trial(self.begun_before.pop(0).number)
            if trial.state == "started" and self.recorded.mine(trial):  # else others were faster
                return self.recorded.begin_again([trial])[0]
        return None

    def _judge(self, trial: Trial) -> Work:
        """Return the work of judging a trial, in a process of its own where processes have ended on it."""
        return Work(Kind.JUDGE, (trial,), None if trial.label else self.glances.look, _may_end_processes(trial))

    def next_due(self) -> Work | None:
        """Return the timings that cannot wait."""
        trials = self.queue.take_due(self.pace.at_once)
        suspicious = [trial for trial in trials if _may_end_processes(trial)]
        self.again += [Work(Kind.TIME, (trial,), apart=True) for trial in suspicious]
        others = tuple(trial for trial in trials if trial not in suspicious)
        return Work(Kind.TIME, others) if others else self.lost()

    def next_postponed(self) -> Work | None:
        """Return timings of what may be on the front, several at once: they share the reference's time."""
        if self._timers_are_busy or self.pace.is_over(0):
            return None
        if self.queue.due:  # judged on all images just now
            return self.next_due()
        trials = self.queue.postponed(self.at_work_on)
        if not trials:
            return None
        self.progress.prepare("timing what may be on the front", 1.0 / (1 + len(trials)))
        unjudged = [trial for trial in trials if trial.estimated]
        if unjudged:
            return self._once_more(Kind.JUDGE, unjudged[:1])
        return self._once_more(Kind.TIME, trials[: self.pace.at_once])

    def _once_more(self, kind: Kind, trials: Sequence[Trial]) -> Work:
        """Return work on finished trials, begun in the records, so that it shows if processes end on it."""
        begun = self.recorded.begin_again(trials)
        suspicious = [trial for trial in begun if _may_end_processes(trial)]
        return Work(kind, tuple(suspicious[:1]), apart=True) if suspicious else Work(kind, tuple(begun))

    def next_in_doubt(self) -> Work | None:
        """Return timings of members of the front in doubt, once more: all who are, before it is looked again who is."""
        if self._left <= 0 or self._timers_are_busy or self.pace.is_over(0):
            return None
        waiting = [trial for trial in map(self.recorded.run.any_trial, self._in_doubt) if self.recorded.mine(trial)]
        if not waiting:
            waiting = self.queue.in_doubt(self.at_work_on)[: self._left]
            doubts = {(trial.number, trial.timings) for trial in waiting}
            if not waiting or (not self.workers.under_way and doubts == self._doubts):
                return None  # there are none, or they were not timed: their files cannot be had any more
            self._doubts = doubts
        trials, rest = waiting[: self.pace.at_once], waiting[self.pace.at_once :]
        self._in_doubt = [trial.number for trial in rest]
        self.progress.prepare("timing again who is in doubt", 1.0 - self._left / self._most_timed_again)
        self._left -= len(trials)
        return self._once_more(Kind.TIME_AGAIN, trials)

    @property
    def at_work_on(self) -> set[int]:
        """Numbers of the trials that something is being done with."""
        return {number for work in self.workers.under_way for number in work.numbers}

    @property
    def waiting(self) -> int:
        """How many trials wait to be timed, or are timed, and cannot do without it."""
        return len(self.queue.due) + sum(
            len(work.trials) for work in self.workers.under_way if work.kind is not Kind.JUDGE
        )

    @property
    def _timers_are_busy(self) -> bool:
        """Whether a timing would only wait: what is under way may show that it is not worth it."""
        return sum(work.kind is not Kind.JUDGE for work in self.workers.under_way) >= self.workers.pool.timers

    def time_is_over(self) -> bool:
        """Whether another candidate would end too late."""
        return self.pace.deadline is not None and self.pace.is_over(len(self.queue.postponed()) + len(self.queue.due))

    def needed(self) -> list[Trial]:
        """Return the trials whose model files are needed yet."""
        numbers = [*self.queue.due, *self.at_work_on]
        return [*self.queue.postponed(), *(self.recorded.run.any_trial(number) for number in numbers)]


def _may_end_processes(trial: Trial) -> bool:
    return trial.claims >= TRIES
