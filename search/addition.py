"""A candidate more for a run that was searched: the run is opened to be added to, outside any search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..objectives.predictor_file import take_predictor, write_predictor
from ..spaces.errors import InputError
from ..studies.artifacts import given_place
from ..studies.run import Run
from ..studies.run_folder import PREDICTOR_FILE, writing_to
from ..studies.storage import database_of, open_records
from ..studies.study import Study
from ..studies.trial import Trial
from .copies import copies_of
from .evaluate import Evaluator
from .recorded import Proposal, RecordedRun


class BusyError(InputError):
    """A candidate is another process's to evaluate."""


@dataclass(frozen=True)
class Addition:
    """A run that is open to be added to.

    Attributes:
        recorded: the run and its records.
        evaluator: measures what is added.
        notes: what people should know.
    """

    recorded: RecordedRun
    evaluator: Evaluator
    notes: list[str] = field(default_factory=list)

    @property
    def study(self) -> Study:
        """The study that the run was made of."""
        return self.recorded.study

    def evaluated(self, proposal: Proposal, total: int | None = None) -> Trial:
        """Evaluate a candidate, or what of it is missing; return its trial.

        Args:
            proposal: the candidate.
            total: how many trials the run may have; by default any number.

        Raises:
            BusyError: another process is evaluating it, or the run has its trials.
        """
        known = self.recorded.run.known(proposal.candidate)
        claimed = [known] if known is not None else self.recorded.claim([proposal], total)
        if not claimed or not self.recorded.mine(claimed[0]):
            raise BusyError("another search is evaluating just this candidate; ask again when it is done")
        trial = claimed[0]
        for result in self.evaluator.whole(trial):
            trial = self.recorded.add([(trial.number, result)])[0]
            if result.lesson is not None:
                self.study.predictor.take(result.lesson)
        return trial


@contextmanager
def adding_to(run: Run) -> Iterator[Addition]:
    """Open a run to add to it; what was learned of times is kept with it when it is closed.

    Raises:
        InputError: the run's study is not there any more, the run was timed in another environment, another process writes to
            it, or the disk cannot be written to.
    """
    study = run.load()
    study.check()
    with open_records(run.folder, study, database_of(run.folder, None)) as records:
        _check_environment(run, study)
        notes: list[str] = []
        place = given_place(run.folder, study.name, None)
        copies = copies_of(run.folder, study.rules.format, records, place, notes.append)
        recorded = RecordedRun(study, run.folder, records, copies)
        if recorded.adopt():  # what is added may be what a search died over
            recorded.refresh()
        ignored = take_predictor(study.predictor, run.folder / PREDICTOR_FILE)
        notes += [ignored] if ignored is not None else []
        yield Addition(recorded, Evaluator(study, run.folder / "models", predictor=study.predictor), notes)
        recorded.keep_files([])
        study.predictor.save()
        with writing_to(run.folder):
            write_predictor(study.predictor, run.folder / PREDICTOR_FILE)
        recorded.settle_copies()


def _check_environment(run: Run, study: Study) -> None:
    """Raise `InputError` where what was timed here, with these versions, is not what the run's front is made of."""
    here, known = Run(run.folder, study.environment.digest), Run(run.folder)
    if [trial.number for trial in here.trials if trial.measured] != [t.number for t in known.trials if t.measured]:
        raise InputError(
            f"{run.folder} was timed in another environment (another machine, or other versions): add to it there, or "
            "continue the search here first, which times its candidates again"
        )
