"""A copy of the run in an Optuna storage, one write a trial, for optuna-dashboard and for people.

The truth is the records: nothing is ever read back from here but which trials are already there.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..spaces.errors import InputError
from ..studies.database import first_line, is_database, made_meanwhile, without_password
from ..studies.records import FAILED
from ..studies.run import Run
from ..studies.study import Study
from ..studies.trial import Trial
from .grid import Grid
from .proposers import Observation, frozen_trial

if TYPE_CHECKING:
    import optuna

METRICS = ("size", "time", "drop")
TRIES = 5  # to open a database that others may be opening for the first time as well


class Mirror:
    """An Optuna study that follows a run.

    Args:
        url: a database URL such as "sqlite:///runs.db", or the path of a journal file.
        study: names the Optuna study, with the start of its digest.

    Raises:
        InputError: the storage cannot be opened.
    """

    def __init__(self, url: str, study: Study) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for left in reversed(range(TRIES)):
            try:
                self.study = self._open(url, study)
                break
            except Exception as error:
                if left and made_meanwhile(error):
                    time.sleep(0.5)
                    continue
                shown = without_password(url) if is_database(url) else url
                raise InputError(f"--storage {shown!r} cannot be opened: {first_line(error)}") from error
        self._told = {trial.user_attrs.get("trial") for trial in self.study.get_trials(deepcopy=False)}
        self.axes = Grid(study.space).axes
        self.space = study.space

    @staticmethod
    def _open(url: str, study: Study) -> optuna.Study:
        import optuna

        made = optuna.create_study(
            storage=_storage(url),
            study_name=f"{study.name}-{study.digest[:8]}",
            directions=["minimize"] * 3,
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made.set_metric_names(list(METRICS))
        return made

    def add(self, run: Run, trials: Iterable[Trial], ended: bool = False) -> None:
        """Add finished trials of a run that are not there yet; those that may still be timed when the search has ended.

        A storage that is away costs the mirror those trials until the next search on the run; nothing else needs them.
        """
        for trial in trials:
            if trial.number not in self._told and (ended or not trial.predicted):
                try:
                    self.study.add_trial(self._frozen(run, trial))
                except Exception as error:
                    logging.getLogger(__name__).warning(
                        "the mirror lacks trial %d: %s", trial.number, first_line(error)
                    )
                    return
                self._told.add(trial.number)

    def _frozen(self, run: Run, trial: Trial) -> optuna.trial.FrozenTrial:
        point, violation = (None, 0.0) if trial.state == FAILED else (run.point(trial), run.violation(trial))
        notes = {
            **trial.row(),
            "state": trial.state,
            "label": trial.label,
            "reason": trial.reason,
            "repair": trial.candidate.repair,
        }
        del notes["candidate"]
        return frozen_trial(
            Observation(trial.candidate, point, violation),
            self.axes if self.space.contains(trial.candidate) else (),
            user_attrs={key: value for key, value in notes.items() if value not in (None, "")},
        )


def _storage(url: str) -> optuna.storages.BaseStorage | str:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return url if is_database(url) else JournalStorage(JournalFileBackend(url))
