"""Copies of a run's models at another place, kept in line with its front; a place that is away costs no trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..spaces.errors import one_line, some_of
from ..spaces.formats import Format
from ..studies.artifacts import DATA, Place, agree, is_measured, key_of, name_of
from ..studies.records import Records
from ..studies.run_folder import model_file
from ..studies.trial import Trial

PAUSE = 20.0  # times as long as a failure took until the next try: a place that is away takes a twentieth of a search


class Copies:
    """The copies that one process keeps.

    Args:
        place: where.
        models: the run's folder of model files.
        format: of these.
        note: is told, in one line, when the place cannot be worked with, and what it lacks at the end.
    """

    def __init__(self, place: Place, models: Path, format: Format, note: Callable[[str], None]) -> None:
        self._place = place
        self._models = models
        self._format = format
        self._note = note
        self._there: dict[str, int] = {}  # sizes of files, as far as is known
        self._told = False
        self._again = 0.0

    def follow(self, trials: Sequence[Trial], mine: Callable[[str], bool], at_once: bool = False) -> None:
        """Put the models of trials there that it lacks, and delete others; what fails is tried again at a later call.

        Args:
            trials: whose models are kept, all of them this process's.
            mine: whether the trial of a candidate's key is this process's; those of others are left to them.
            at_once: also where the place was away a moment ago.
        """
        start = time.monotonic()
        if start < self._again and not at_once:
            return
        try:
            self._follow(trials, mine)
        except Exception as error:  # what drivers raise has no common root
            now = time.monotonic()
            self._again = now + PAUSE * (now - start)
            if not self._told:
                self._told = True
                self._note(
                    f"models cannot be kept in {self._place.url}: {one_line(error)}; this is tried again, and all stays in the "
                    "run folder meanwhile"
                )

    def settle(self, trials: Sequence[Trial], mine: Callable[[str], bool]) -> None:
        """Do the same at the end of a search; tell of models that the place lacks even so."""
        self.follow(trials, mine, at_once=True)
        lacking = [str(trial.number) for trial in trials if not self._has(trial)]
        if lacking:
            self._note(
                f"{self._place.url} lacks the models of {len(lacking)} trials ({some_of(lacking)}): they are built again when "
                "they are asked for, and the same command puts there those that the run folder has"
            )

    def _follow(self, trials: Sequence[Trial], mine: Callable[[str], bool]) -> None:
        self._there = self._place.names()
        kept = {name_of(trial, self._format.suffix) for trial in trials}
        for name in sorted(self._there):  # a model before its data
            if name.removesuffix(DATA) not in kept and mine(key_of(name)):
                self._place.delete(name)
        lacking = [trial for trial in trials if not self._has(trial)]
        paths = [(trial, model_file(self._models, trial.candidate, self._format)) for trial in lacking]
        found = [(trial, path) for trial, path in paths if path.exists() and is_measured(trial, path)]
        for trial, path in found:
            self._place.put(trial, path)
        if found:
            self._there = self._place.names()

    def _has(self, trial: Trial) -> bool:
        """Whether a trial's model is there, whole."""
        name = name_of(trial, self._format.suffix)
        return name in self._there and self._there[name] + self._there.get(name + DATA, 0) == trial.value("size_bytes")


def copies_of(
    folder: Path, format: Format, records: Records, place: Place | None, note: Callable[[str], None]
) -> Copies | None:
    """Return what keeps copies of a run's models at the place that all who write to its records use; None without one.

    Args:
        folder: the run folder, made and checked.
        format: of the run's model files.
        records: of the run, open.
        place: that was given, or is known from the run folder.
        note: as for `Copies`.

    Raises:
        InputError: others keep their models at another place, or theirs cannot be written to.
    """
    agreed = agree(folder, records, place)
    return None if agreed is None else Copies(agreed, folder / "models", format, note)
