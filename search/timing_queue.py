"""Which timings are due: those that cannot wait, those postponed that may be on the front by now, and those in doubt."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from ..studies.front import nondominated
from ..studies.records import PREDICTED
from ..studies.run import Run
from ..studies.trial import QUALITY, Trial
from .doubt import POSTPONED, doubtful, hopeless, sure_enough
from .evaluate import TIMING, StageResult
from .recorded import RecordedRun

UNKNOWN = -1e300  # of a further objective that was not measured: it may be the best


class TimingQueue:
    """Trials of a run that are this process's to time, judged and not timed yet.

    Args:
        recorded: the run.
        predicts: whether the latency predictor is calibrated, so that timings may wait.
    """

    def __init__(self, recorded: RecordedRun, predicts: bool) -> None:
        self.recorded = recorded
        self.predicts = predicts
        self.due: list[int] = []
        self._waiting: set[int] = set()
        self.reconsider()

    @property
    def run(self) -> Run:
        """The run as it is now."""
        return self.recorded.run

    def reconsider(self) -> None:
        """Look at all that was not timed anew: who has beaten them may have turned out slower since."""
        mine = self.recorded.mine
        waiting = {trial.number for trial in self.run.trials if trial.predicted and mine(trial)}
        self._waiting = waiting - set(self.due)

    def _untimed(self, trial: Trial) -> str | None:
        """Return why a candidate is not timed now: it is hopeless, or so well predicted that its timing can wait."""
        reason = hopeless(self.run, trial.readings)
        if reason is None and not trial.label and self.predicts and sure_enough(trial.readings):
            return POSTPONED
        return reason

    def judged(self, trial: Trial) -> StageResult | None:
        """Take a trial that is built and judged; return what is to be recorded where it is not timed now."""
        reason = trial.stages[QUALITY]["reason"] or self._untimed(trial)
        if reason is not None:
            self._waiting.add(trial.number)
            return StageResult(TIMING, PREDICTED, trial.sha256, reason=reason)
        self._waiting.discard(trial.number)
        self.due.append(trial.number)
        if trial.predicted:  # until then
            return StageResult(TIMING, PREDICTED, trial.sha256, reason=POSTPONED)
        return None

    def postponed(self, besides: Collection[int] = ()) -> list[Trial]:
        """Return the trials that were not timed and may be on the front, the most promising first.

        Args:
            besides: numbers of trials that are being worked on.
        """
        found = []
        for number in sorted(self._waiting):
            trial = self.run.any_trial(number)
            mine = self.recorded.mine(trial)
            if not (mine and trial.predicted) or hopeless(self.run, trial.readings) is not None:
                self._waiting.remove(number)
            elif number not in besides:
                found.append(trial)
        if not found:
            return []
        points = [*(self.run.coordinates(trial) for trial in found), *self.run.edge]
        promising = nondominated(np.nan_to_num(points, nan=UNKNOWN))[: len(found)]
        return [t for _, t in sorted(zip(~promising, found, strict=True), key=lambda pair: (pair[0], pair[1].number))]

    def take_due(self, most: int) -> list[Trial]:
        """Return trials that cannot wait any longer, at most so many, and forget them."""
        taken, self.due = self.due[:most], self.due[most:]
        return [self.run.any_trial(number) for number in taken]

    def in_doubt(self, besides: Iterable[int] = ()) -> list[Trial]:
        """Return the members of the front that are to be timed again, the most urgent first."""
        known = set(besides)
        return [trial for trial in doubtful(self.run) if trial.number not in known and self.recorded.mine(trial)]
