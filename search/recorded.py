"""A run that is being written to: candidates are claimed, and what is found is on disk, before anything else is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..objectives.protocol import Reading
from ..spaces.candidate import REFERENCE, Candidate
from ..studies.artifacts import key_of
from ..studies.holdings import OpenHoldings
from ..studies.records import DONE, Record, Records
from ..studies.run import Run
from ..studies.study import Study
from ..studies.trial import CLAIM, PROPOSAL, Trial
from .copies import Copies
from .doubt import hopeless
from .evaluate import StageResult
from .proposers import Observation
from .task import observation_of


@dataclass(frozen=True)
class Proposal:
    """A candidate that is to be evaluated.

    Attributes:
        candidate: the point of the space.
        label: "reference", "uniform 4/8" or empty.
        expected: what a model expects of it.
    """

    candidate: Candidate
    label: str = ""
    expected: Mapping[str, Reading] | None = None


class RecordedRun:
    """A run and the means to add to it.

    Args:
        study: of the run.
        folder: the run folder, made and checked.
        records: of the run, open.
        copies: of the models that it keeps, at another place.

    Attributes:
        run: as it is now.
        holdings: what it holds besides.
    """

    def __init__(self, study: Study, folder: Path, records: Records, copies: Copies | None = None) -> None:
        self.study = study
        self.folder = folder
        self._records = records
        self._copies = copies
        self._environment = study.environment.digest
        self.holdings = OpenHoldings(folder, records)
        study.use_students(self.holdings.students or {}, self.holdings)
        self.run = Run(folder, self._environment, records.news())
        self._observed: dict[int, Observation] = {}
        self._observe(self.run.trials)

    @property
    def history(self) -> list[Observation]:
        """What a proposer is told of the finished trials, by number."""
        return [self._observed[number] for number in sorted(self._observed)]

    def mine(self, trial: Trial) -> bool:
        """Whether a trial is this process's to work on: it has taken it, and has what it is built from."""
        return self._records.mine(trial.number) and self._at_hand(trial.candidate)

    def _at_hand(self, candidate: Candidate) -> bool:
        """Whether a candidate's base and weights lie here; what another process has made with a folder of its own is fetched."""
        known = candidate.base == REFERENCE or candidate.base in self.study.students
        return known and (not candidate.weights or self.holdings.has_trained(candidate.weights))

    def begun(self, total: int) -> list[Trial]:
        """Return the trials with numbers below a total whose stages are not all done and are this process's to finish."""
        return [trial for trial in self.run.started if trial.number < total and self.mine(trial)]

    def postponed(self) -> list[Trial]:
        """Return the trials, whosever they are, that were not timed and may be on the front."""
        return [t for t in self.run.trials if t.predicted and hopeless(self.run, t.readings) is None]

    def left(self, total: int) -> list[Trial]:
        """Return what is left for this process to finish of trials that were begun, of those with numbers below a total."""
        return [*self.begun(total), *(trial for trial in self.postponed() if self.mine(trial))]

    def left_to_others(self) -> list[Trial]:
        """Return what is left for other processes to finish."""
        return [trial for trial in (*self.run.started, *self.postponed()) if not self.mine(trial)]

    @property
    def others(self) -> bool:
        """Whether another process may be at work on the run."""
        return self._records.others

    def silent(self, seconds: float) -> bool:
        """Whether another process, which may be at work, has shown no sign of life for so many seconds."""
        return self._records.silent(seconds)

    def refresh(self) -> None:
        """Take what others have found."""
        self._observe(self.run.add(self._records.news()))

    def adopt(self) -> set[int]:
        """Take over the trials of processes that have ended; return their numbers."""
        return self._records.adopt()

    def claim(self, proposals: Sequence[Proposal], total: int | None = None) -> list[Trial]:
        """Record that candidates, none of which has a trial, will be evaluated; return the trials.

        Those that another process has claimed meanwhile are left out, and those beyond ``total`` trials of the run.
        """
        wanted = []
        for proposal in proposals:
            own = [self._record(0, proposal.candidate, StageResult(CLAIM, DONE, ""), proposal.label, True)]
            if proposal.expected is not None:
                own.append(
                    self._record(0, proposal.candidate, StageResult(PROPOSAL, DONE, "", dict(proposal.expected)))
                )
            wanted.append(own)
        won = self._records.claim(wanted, self.run.next_number, total)
        self._observe(self.run.add(record for own in won for record in own))
        return [self.run.any_trial(own[0].trial) for own in won]

    def begin_again(self, trials: Sequence[Trial]) -> list[Trial]:
        """Record that something is done with trials once more; return them as they are now."""
        return self.add([(trial.number, StageResult(CLAIM, DONE, "")) for trial in trials])

    def add(self, results: Iterable[tuple[int, StageResult]], node: str = "", environment: str = "") -> list[Trial]:
        """Record stages of trials; return the trials as they are now.

        Nothing is recorded of trials that another process has taken over: `refresh` tells what it finds.

        Args:
            results: trials' numbers and what was found of them.
            node: where; empty in this process.
            environment: the node's, where it is another one than this process's.

        Raises:
            InputError: the disk cannot be written to.
        """
        found = [(self.run.any_trial(number), result) for number, result in results]
        self._append(
            [
                self._record(trial.number, trial.candidate, result, node=node, environment=environment)
                for trial, result in found
            ]
        )
        return [self.run.any_trial(number) for number in dict.fromkeys(trial.number for trial, _ in found)]

    def keep_files(self, trials: Iterable[Trial]) -> None:
        """Delete the model files of all but the reference, the front and these trials; they can be built again.

        Those of trials that are another process's are left to it.
        """
        kept = {Candidate().key} | {trial.candidate.key for trial in (*self.run.front_trials(), *trials)}
        for path in (self.folder / "models").glob(f"*{self.study.rules.format.suffix}*"):
            key = key_of(path.name)
            if key not in kept and self._is_mine(key):
                path.unlink(missing_ok=True)
        if self._copies is not None:
            self._copies.follow(self._copied(), self._is_mine)

    def settle_copies(self) -> None:
        """Bring what is kept at another place in line with the front, at the end of a search."""
        if self._copies is not None:
            self._copies.settle(self._copied(), self._is_mine)

    def _copied(self) -> list[Trial]:
        """Return the trials whose models this process keeps at another place: the reference and the front."""
        kept = {trial.number: trial for trial in self.run.front_trials()}
        reference = self.run.known(Candidate())
        if reference is not None and reference.measured:
            kept[reference.number] = reference
        return [trial for _, trial in sorted(kept.items()) if self.mine(trial)]

    def _is_mine(self, key: str) -> bool:
        trial = self.run.of_key(key)
        return trial is not None and self.mine(trial)

    def _append(self, records: Sequence[Record]) -> None:
        self._observe(self.run.add(self._records.append(*records)))

    def _observe(self, changed: Iterable[Trial]) -> None:
        """Keep what proposers are told of trials; a trial that is judged again is no more part of the history."""
        for trial in changed:
            if trial.state == "started":
                self._observed.pop(trial.number, None)
            else:
                self._observed[trial.number] = observation_of(self.run, trial)

    def _record(
        self,
        number: int,
        candidate: Candidate,
        result: StageResult,
        label: str = "",
        first: bool = False,
        node: str = "",
        environment: str = "",
    ) -> Record:
        if result.stage == "prediction":  # of this machine's speed, wherever it was worked out
            environment = self._environment
        return Record(
            study=self.study.digest,
            key=candidate.key,
            stage=result.stage,
            environment=environment or self._environment,
            state=result.state,
            trial=number,
            sha256=result.sha256,
            readings={name: reading.to_json() for name, reading in result.readings.items()},
            reason=result.reason,
            candidate=candidate.to_json() if first else None,
            label=label,
            seconds=round(result.seconds, 4),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            node=node,
        )
