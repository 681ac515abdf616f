"""A run that is being written to: what is evaluated is on disk, stage by stage, before anything else is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from ..objectives.protocol import Reading
from ..spaces.candidate import Candidate
from ..spaces.errors import InputError
from ..studies.records import DONE, FAILED, Record, RecordFile
from ..studies.run import Run
from ..studies.study import Study
from ..studies.trial import PROPOSAL, REFERENCE_LABEL, Trial
from .evaluate import Evaluator, StageResult

Untimed = Callable[[Mapping[str, Reading]], str | None]


class RecordedRun:
    """A run and the means to add to it, its records held.

    Args:
        study: of the run; its builder is prepared before the first candidate is evaluated.
        folder: the run folder, made and checked.
        records: of the folder, open.

    Attributes:
        run: as it is now.
        evaluator: builds and measures.
    """

    def __init__(self, study: Study, folder: Path, records: RecordFile) -> None:
        self.study = study
        self.folder = folder
        self.evaluator = Evaluator(study, folder / "models", predictor=study.predictor)
        self._records = records
        self._environment = study.environment.digest
        self.run = self._read()

    def known(self, candidate: Candidate) -> Trial | None:
        """Return the candidate's trial, finished or not; None where it has none."""
        return next((trial for trial in self.run.all_trials if trial.candidate == candidate), None)

    def evaluate(
        self,
        candidate: Candidate,
        label: str = "",
        untimed: Untimed | None = None,
        expected: Mapping[str, Reading] | None = None,
    ) -> tuple[Trial, float]:
        """Evaluate a candidate as far as it was not; return its trial and the seconds it took.

        Args:
            candidate: a new one, or one whose stages are not all done.
            label: "reference", "uniform 4/8" or empty.
            untimed: given the readings so far, says why it need not be timed now; None where it must be.
            expected: what a model expects of it.

        Raises:
            InputError: the reference itself fails, or the disk cannot be written to.
        """
        start = time.monotonic()
        known = self.known(candidate)
        number = known.number if known else 1 + max((trial.number for trial in self.run.all_trials), default=-1)
        first = known is None
        if first and expected is not None:
            self._append(StageResult(PROPOSAL, DONE, "", dict(expected)), candidate, number, label, first)
            first = False
        for result in self.evaluator.evaluate(candidate, known, untimed):
            if result.state == FAILED and label == REFERENCE_LABEL:
                raise InputError(f"the study's model itself fails: {result.reason}")
            self._append(result, candidate, number, label, first)
            first = False
        self.run = self._read()
        return self.run.trial(number), time.monotonic() - start

    def add(self, results: Iterable[tuple[Trial, StageResult]]) -> None:
        """Record stages of trials that are there already."""
        for trial, result in results:
            self._append(result, trial.candidate, trial.number)
        self.run = self._read()

    def keep_files(self, trials: Iterable[Trial]) -> None:
        """Delete the model files of all but the reference, the front and these trials; they can be built again."""
        kept = {Candidate().key} | {trial.candidate.key for trial in (*self.run.front_trials(), *trials)}
        for path in (self.folder / "models").glob("*.onnx*"):
            if path.name.split(".")[0] not in kept:
                path.unlink()

    def _append(
        self, result: StageResult, candidate: Candidate, number: int, label: str = "", first: bool = False
    ) -> None:
        record = Record(
            study=self.study.digest,
            key=candidate.key,
            stage=result.stage,
            environment=self._environment,
            state=result.state,
            trial=number,
            sha256=result.sha256,
            readings={name: reading.to_json() for name, reading in result.readings.items()},
            reason=result.reason,
            candidate=candidate.to_json() if first else None,
            label=label,
            seconds=round(result.seconds, 4),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._records.append(record)

    def _read(self) -> Run:
        return Run(self.folder, self._environment)
