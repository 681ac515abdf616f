"""A run that is followed while a search writes it: read once, then only what is new."""

from __future__ import annotations

import math
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...spaces.errors import BuildError, InputError
from ..criteria import readings_of
from ..frame import as_frame, trial_row
from ..neighbours import Neighbour, neighbours
from ..records import RecordTail
from ..run import Run
from ..run_folder import RECORDS_FILE
from ..strip import Network
from .parameters import SHAPES, column, parameter_names, shape_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ..study import Study
    from ..trial import Trial

PAUSE_SECONDS = 1.0  # between two looks at the records, however many pages ask
UNDRAWN = ("on_front", "latency_ms", "drop_db", "fidelity_db")  # of the frame's columns: the page does not need them
QUIET_SECONDS = 60.0  # without a record, from which a search is not called running


class Followed:
    """A run's candidates, kept current.

    Args:
        folder: of the run.

    Attributes:
        run: what was read of it.
        trouble: why its records cannot be read just now; None where they can.
        version: grows whenever a candidate is new or changed.

    Raises:
        InputError: the folder is no run, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.run = Run(self.folder, records=[])
        self.trouble: str | None = None
        self.version = self._first = time.time_ns() // 1_000_000  # later than any of a board that was stopped
        self.lock = threading.RLock()  # of the run and all that was made of it
        self._looking = threading.Lock()
        self._rows: dict[int, dict[str, Any]] = {}
        self._changed: dict[int, int] = {}  # by number, the version that brought it
        self._front: tuple[int, list[int]] = (-1, [])
        self._networks: dict[str, Network] = {}
        self._guessed: dict[str, Network] = {}  # by what candidates tell of them
        self._frame: tuple[int, pd.DataFrame] | None = None
        self._looked = float("-inf")
        self._told = float("-inf")  # when the last record came
        self.look()

    @cached_property
    def _tail(self) -> Any:
        storage = self.run.storage
        if storage is None:
            return RecordTail(self.folder / RECORDS_FILE)
        from ..record_table import TableTail

        return TableTail(storage, self.run.digest)

    def look(self) -> None:
        """Take what was written since the last look, unless that was just now or somebody else is looking."""
        if time.monotonic() - self._looked < PAUSE_SECONDS or not self._looking.acquire(blocking=False):
            return
        try:
            try:
                news, trouble = self._tail.news(), None
            except InputError as error:
                news, trouble = [], str(error)
            with self.lock:
                self.trouble = trouble
                if news:
                    self._told = max(self._told, _seconds(news[-1].time))
                    self._take(self.run.add(news))
            self._looked = time.monotonic()
        finally:
            self._looking.release()

    def _take(self, changed: list[Trial]) -> None:
        if not changed or not self.has_reference:
            return
        if not self._rows:  # the reference has come: what came before it has its place now
            changed = self.run.all_trials
        self._guessed.clear()
        self.version += 1
        for trial in changed:
            if trial.measured or (trial.predicted and trial.judged):
                shape = shape_of(trial.candidate, self.network(trial.candidate.base))
                self._rows[trial.number] = trial_row(self.run, trial) | shape
                self._changed[trial.number] = self.version
            elif self._rows.pop(trial.number, None) is not None:
                self._changed[trial.number] = self.version

    @property
    def has_reference(self) -> bool:
        """Whether the reference is measured: before that nothing can be compared."""
        try:
            return self.run.reference is not None
        except InputError:
            return False

    @property
    def running(self) -> bool:
        """Whether a search has written to the run lately."""
        return time.time() - self._told < QUIET_SECONDS

    @property
    def numbers(self) -> list[int]:
        """The numbers of the trials that are shown, rising."""
        with self.lock:
            return sorted(self._rows)

    @property
    def front(self) -> list[int]:
        """The numbers of the trials on the front, smallest first."""
        with self.lock:
            if self._front[0] != self.version:
                trials = self.run.front_trials() if self.has_reference else []
                self._front = (self.version, [trial.number for trial in trials])
            return self._front[1]

    def front_trials(self) -> list[Trial]:
        """Return the trials on the front, smallest first."""
        with self.lock:
            return [self.run.any_trial(number) for number in self.front]

    def is_reference(self, trial: Trial) -> bool:
        """Whether a trial is the uncompressed model."""
        with self.lock:
            return trial.number == self.run.reference.number

    @property
    def hypervolume(self) -> float | None:
        """The hypervolume; None where nothing is measured yet."""
        with self.lock:
            return self.run.hypervolume() if self.has_reference else None

    def neighbours(self, trial: Trial) -> list[Neighbour]:
        """Return a trial's neighbours on the front."""
        with self.lock:
            return neighbours(self.run, trial)

    def read_again(self) -> Run:
        """Return the run as it is now, read anew: for work that takes longer, while this one goes on."""
        return Run(self.folder)

    def news(self, since: int) -> dict[str, Any] | None:
        """Return what has changed after a version: the rows, the numbers that are gone, and the front; None where nothing has.

        Returns:
            Plain data: ``version``, ``from`` (0: all), ``rows`` (columns that the page draws, lists), ``gone`` and ``front``
            (numbers).
        """
        self.look()
        with self.lock:
            if since == self.version or not self._changed:
                return None
            numbers = self._changed_after(since)
            frame = self._framed([number for number in numbers if number in self._rows])
            return {
                "version": self.version,
                "from": since if self._knows(since) else 0,
                "rows": columns(frame.drop(columns=list(UNDRAWN))),
                "gone": [number for number in numbers if number not in self._rows],
                "front": self.front,
            }

    def column(self, name: str, since: int) -> dict[str, Any]:
        """Return a parameter of the candidates that have changed after a version.

        Args:
            name: of `parameters.parameter_names`.
            since: a version.

        Returns:
            Plain data: ``version``, and lists ``trial`` and ``values``.

        Raises:
            InputError: there is no such parameter.
        """
        with self.lock:
            if name not in parameter_names(
                [self.network(base) for base in {row["base"] for row in self._rows.values()}]
            ):
                raise InputError(f"candidates have no parameter {name!r}")
            numbers = [number for number in self._changed_after(since) if number in self._rows]
            values = column(name, [self.run.any_trial(number) for number in numbers], self.network)
            return {"version": self.version, "trial": numbers, "values": plain(np.array(values, float))}

    def _changed_after(self, since: int) -> list[int]:
        """Return the numbers that have changed after a version, rising; all where it is not one of this board's."""
        known = self._knows(since)
        return sorted(number for number, version in self._changed.items() if version > since or not known)

    def _knows(self, version: int) -> bool:
        return self._first <= version <= self.version

    def frame(self) -> pd.DataFrame:
        """Return the frame of what is known now, which is not to be changed."""
        with self.lock:
            if self._frame is None or self._frame[0] != self.version:
                frame = self._framed(self.numbers)
                self._frame = (self.version, frame.assign(on_front=frame["trial"].isin(self.front)))
            return self._frame[1]

    def _framed(self, numbers: list[int]) -> pd.DataFrame:
        return as_frame((self._rows[number] for number in numbers), (*SHAPES, *readings_of(self.run.criteria)))

    def trials(self) -> list[Trial]:
        """Return the trials that are shown, by number."""
        with self.lock:
            return [self.run.any_trial(number) for number in self.numbers]

    def trial(self, number: int) -> Trial:
        """Return a trial that is shown. Raises `InputError` where there is none of this number."""
        with self.lock:
            if number not in self._rows:
                raise InputError(f"there is no candidate {number} to show in {self.run.study_name}")
            return self.run.any_trial(number)

    @cached_property
    def study(self) -> Study | None:
        """The run's study; None where it is not there any more."""
        try:
            return self.run.load()
        except (InputError, BuildError) as error:
            self.without_study = str(error)
            return None

    without_study: str | None = None  # why there is none

    def network(self, base: str) -> Network:
        """Return the network that candidates of a base are made from."""
        with self.lock:
            if base not in self._networks and (found := self._network(base)) is not None:
                self._networks[base] = found
            if base in self._networks:
                return self._networks[base]
            if base not in self._guessed:
                self._guessed[base] = Network.of_run(self.run, base)
            return self._guessed[base]

    def _network(self, base: str) -> Network | None:
        """Return the network as the study knows it; None where it does not, or where another process has made it since."""
        if self.study is None:
            return None
        try:
            return Network.of_graph(self.study.builder.of(base).graph)
        except (BuildError, InputError):
            return None


def columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Return a frame as plain lists for JSON, numbers to six digits, None where there are none."""
    return {str(name): plain(frame[name].to_numpy()) for name in frame.columns}


def plain(values: NDArray[Any]) -> list[Any]:
    """Return values ``[N]`` as a list for JSON, numbers to six digits, None where there are none."""
    if values.dtype.kind != "f":
        return list(values.tolist())
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def _seconds(time_: str) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(time_).timestamp()
    except ValueError:
        return float("-inf")
