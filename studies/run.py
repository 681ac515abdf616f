"""A run: what is read from the folder with all that one search produced (`run_folder`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..objectives.ratio import spread
from ..spaces.candidate import Candidate
from ..spaces.errors import InputError, SlimfrontError
from . import front
from .artifacts import fetch
from .criteria import Criterion, bounds_of, compared, coordinates, readings_of
from .holdings import RunHoldings
from .limits import Limits, given_limits
from .pick import pick
from .preference import compared as bound_to
from .preference import preferences
from .records import Record, many_objects, read_records
from .review import Review
from .run_folder import (
    RECORDS_FILE,
    check_same_study,
    format_of,
    model_file,
    read_run_file,
    save_model_file,
    use_machine_facts,
)
from .searched import searched
from .shared import Source
from .trial import Trial, Trials

if TYPE_CHECKING:
    import pandas as pd

    from ..objectives.protocol import Reading
    from ..spaces.build import Built
    from ..spaces.formats import Format
    from ..spaces.statistics import Progress
    from ..spaces.trainee import Trainee
    from .study import Study

AT_ONCE = 500  # trials that are compared with one another and with the front at a time
CHANGING = ("all_trials", "trials", "reference", "_front", "corners", "bar", "best")  # made from the trials


class Run:
    """What a run folder holds, as it was when it was first read, and what is added; make another to see later records.

    Args:
        folder: the run folder.
        environment: digest of the environment whose timings count; by default that of most candidates.
        records: of the run, where they were read already; by default they are read when they are needed.

    Raises:
        InputError: the folder is no run.
    """

    def __init__(
        self, folder: str | Path, environment: str | None = None, records: Iterable[Record] | None = None
    ) -> None:
        self.folder = Path(folder)
        self._environment = environment
        self._given = records
        self._about = read_run_file(self.folder)

    @property
    def study_name(self) -> str:
        """The study's name."""
        return str(self._about["study"]["name"])

    @property
    def definition(self) -> dict[str, Any]:
        """All that determined the readings, as plain data."""
        return dict(self._about["study"]["definition"])

    @property
    def digest(self) -> str:
        """The study's digest."""
        return str(self._about["study"]["digest"])

    @property
    def format(self) -> Format:
        """The form of the model files."""
        return format_of(self._about["study"]["definition"])

    @property
    def storage(self) -> str | None:
        """The database that keeps the records, without its password; None where they lie in the folder."""
        storage = self._about.get("storage")
        return None if storage is None else str(storage)

    @cached_property
    def has_target(self) -> bool:
        """Whether the evaluation data has targets; else quality is against the reference's output."""
        return self.definition["data"]["target"] is not None

    @cached_property
    def limits(self) -> Limits:
        """The study's constraints, those of its further objectives included."""
        own = Limits(**self.definition["constraints"])
        asked = [bound for criterion in self.criteria for bound in criterion.bounds]
        told = "" if own.max_memory is None else "memory_bytes"  # a constraint of its own
        return replace(own, bounds=tuple(bound for bound in asked if bound.reading != told))

    @cached_property
    def criteria(self) -> tuple[Criterion, ...]:
        """The study's further objectives; mostly none."""
        return tuple(map(Criterion.from_json, self._about["study"].get("objectives", ())))

    @cached_property
    def _kept(self) -> Trials:
        trials = Trials(self._environment, self.criteria)
        with many_objects():
            trials.add(self._records() if self._given is None else self._given)
        self._given = None
        return trials

    def _records(self) -> Iterable[Record]:
        """Read the run's records, from its folder or from the database that keeps them."""
        if self.storage is None:
            return read_records(self.folder / RECORDS_FILE)
        from .record_table import read_table

        return read_table(self.storage, self.digest)

    def add(self, records: Iterable[Record]) -> list[Trial]:
        """Take records that were written since the run was read; return the trials that are new or changed."""
        before = self._kept.add(records)
        changed = [trial for key in before if (trial := self._kept.of(key)) is not None]
        known = {name: vars(self).pop(name) for name in CHANGING if name in vars(self)}
        old = {key: trial for key, trial in before.items() if trial is not None and trial.measured}
        if all(_same_readings(trial, self._kept.of(key)) for key, trial in old.items()):
            measured = [trial for trial in changed if trial.measured and trial.candidate.key not in old]
            if "_front" in known:
                self._front = self.undominated([*known["_front"], *measured])
            if "corners" in known:
                self.corners = self._corners_of(known["corners"], measured)
        return changed

    def any_trial(self, number: int) -> Trial:
        """Return a trial by its number, finished or not; KeyError where there is none."""
        return self._kept.numbered(number)

    def of_key(self, key: str) -> Trial | None:
        """Return the trial of a candidate's key, finished or not; None where there is none."""
        return self._kept.of(key)

    def known(self, candidate: Candidate) -> Trial | None:
        """Return a candidate's trial, finished or not; None where it has none."""
        return self._kept.of(candidate.key)

    @cached_property
    def all_trials(self) -> list[Trial]:
        """All trials by number, those included whose stages are not all done."""
        return self._kept.all()

    @cached_property
    def trials(self) -> list[Trial]:
        """The measured, the failed and the trials that were not timed, by number."""
        return [trial for trial in self.all_trials if trial.state != "started"]

    @property
    def started(self) -> list[Trial]:
        """The trials whose stages are not all done, by number."""
        return self._kept.started()

    @property
    def count(self) -> int:
        """How many trials there are, those included whose stages are not all done."""
        return self._kept.count

    @property
    def next_number(self) -> int:
        """The number of the next trial."""
        return self._kept.next_number

    @property
    def finished(self) -> int:
        """How many trials are finished."""
        return self._kept.finished

    @cached_property
    def reference(self) -> Trial:
        """The uncompressed model. Raises `InputError` where it is not measured yet."""
        trial = self.known(Candidate())
        if trial is not None and trial.measured:
            return trial
        raise InputError(f"{self.folder} has no measured candidate yet; run the search again to continue it")

    def trial(self, number: int) -> Trial:
        """Return a trial by its number. Raises `InputError` where there is none."""
        with suppress(KeyError):
            found = self.any_trial(number)
            if found.state != "started":
                return found
        numbers = [trial.number for trial in self.trials]
        known = f"it has trials {min(numbers)} to {max(numbers)}" if numbers else "it has none yet"
        raise InputError(f"there is no trial {number} in {self.folder}; {known}")

    def drop_db(self, trial: Trial) -> float:
        """Return by how many decibels a measured trial is worse than the reference, at least 0."""
        psnr, fidelity = trial.value("psnr_db"), trial.value("fidelity_db")
        return front.drop_db(psnr, fidelity, self.reference.value("psnr_db"), self.has_target)

    def signed_drop_db(self, trial: Trial) -> float:
        """Return by how many decibels a measured trial is worse than the reference, below 0 where it is better."""
        psnr, fidelity = trial.value("psnr_db"), trial.value("fidelity_db")
        return front.signed_drop_db(psnr, fidelity, self.reference.value("psnr_db"), self.has_target)

    def point(self, trial: Trial) -> tuple[float, float, float]:
        """Return (size / reference size, 1 / speedup, drop) of a trial that did not fail, all minimised."""
        size = trial.value("size_bytes") / self.reference.value("size_bytes")
        return front.point(size, trial.speedup.value, self.drop_db(trial), self.has_target)

    def violation(self, trial: Trial, limits: Limits | None = None) -> float:
        """Return by how much a measured trial breaks the limits (by default the study's); 0 where it keeps them."""
        return (self.limits if limits is None else limits).violation(
            size_bytes=trial.value("size_bytes"),
            latency_ms=trial.latency_ms,
            psnr_db=trial.value("psnr_db"),
            drop_db=self.drop_db(trial),
            speedup=trial.speedup.value,
            **self._apart(trial),
        )

    def excesses(self, trial: Trial, limits: Limits | None = None) -> tuple[float, ...]:
        """Return by how much a trial breaks each limit that is on no axis of its `point`, by default the study's.

        Those of memory and of further objectives, below 0 where they are kept; NaN where that was not measured. Of a trial
        that did not fail.
        """
        return (self.limits if limits is None else limits).apart(**self._apart(trial))

    def _apart(self, trial: Trial) -> dict[str, Any]:
        """Return what limits ask of a trial beside its size, speed and quality."""
        return {
            "memory_bytes": math.inf if trial.memory is None else trial.memory.value,
            "readings": {name: trial.value(name) for name in readings_of(self.criteria) if name in trial.readings},
            "best": self.best,
        }

    @cached_property
    def best(self) -> dict[str, float]:
        """What the reference has of each reading of the further objectives, from which a drop of it counts.

        Decibels against the reference's own output count from 50 dB, as quality does.
        """
        itself = math.inf if self.has_target else front.FULL_FIDELITY_DB
        found = {name: self.reference.value(name) for name in readings_of(self.criteria)}
        abouts = readings_of(self.criteria)
        return {name: min(v, itself) if abouts[name].unit == "dB" else v for name, v in found.items()}

    def coordinates(self, trial: Trial) -> tuple[float, ...]:
        """Return what dominance compares of a measured trial, all minimised: its `point`, and then its further objectives."""
        return (*self.point(trial), *self._further(trial))

    def _further(self, trial: Trial) -> tuple[float, ...]:
        """Return what dominance compares of a trial's further objectives; NaN where one was not measured."""
        criteria = compared(self.criteria)
        return coordinates(criteria, trial.readings, self.best) if criteria else ()

    def front_trials(self) -> list[Trial]:
        """Return the measured trials that no other dominates beyond the intervals of their speedups, smallest first."""
        return list(self._front)

    @cached_property
    def _front(self) -> list[Trial]:
        return self.undominated([trial for trial in self.trials if trial.measured])

    def undominated(self, measured: Sequence[Trial]) -> list[Trial]:
        """Return the front of measured trials, a part of them after another: who is dominated has a dominator on the front."""
        points = np.array([self.coordinates(trial) for trial in measured])
        times = np.array([time_interval(trial) for trial in measured])
        rows = np.zeros(0, int)
        for first in range(0, len(measured), AT_ONCE):
            rows = np.append(rows, range(first, min(first + AT_ONCE, len(measured)))).astype(int)
            rows = rows[~front.surely_dominated(points[rows], *times[rows].T)]
        kept = [measured[row] for row in rows]
        return sorted(kept, key=lambda trial: (trial.value("size_bytes"), trial.number))

    @cached_property
    def bar(self) -> tuple[list[int], NDArray[np.float64]]:
        """What has to be beaten: the numbers of the front's trials, and their size, drop, slowest time and further
        objectives, as they are compared ``[F, 3 + K]``.
        """
        rows = [
            (
                trial.value("size_bytes"),
                self.drop_db(trial),
                time_interval(trial)[1],
                *self._further(trial),
            )
            for trial in self._front
        ]
        return [trial.number for trial in self._front], np.array(rows, ndmin=2).reshape(len(rows), -1 if rows else 3)

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """The points of measured trials that no other dominates ``[N, 3]``: who has one is on the front."""
        return self._corners_of(np.zeros((0, 3)), self._front)

    @property
    def edge(self) -> NDArray[np.float64]:
        """The coordinates of measured trials that no other dominates ``[N, D]``, further objectives among them."""
        if not compared(self.criteria):
            return self.corners
        return np.array([self.coordinates(trial) for trial in self._front])

    def _corners_of(self, corners: NDArray[np.float64], measured: Iterable[Trial]) -> NDArray[np.float64]:
        """Return the points that no other dominates, of those given and those of measured trials, ``[N, 3]``."""
        points = np.vstack([corners, *(self.point(trial) for trial in measured)])
        return points[front.nondominated(points)]

    def probabilities(self) -> dict[int, float]:
        """Return the probability that each trial of the front belongs there, by number."""
        trials = self.front_trials()
        points, spreads = [self.coordinates(trial) for trial in trials], [spread(trial.speedup) for trial in trials]
        return dict(zip((trial.number for trial in trials), front.membership(points, spreads).tolist(), strict=True))

    def front(self) -> pd.DataFrame:
        """Return the front as a table, smallest first: one row a candidate, columns as in the JSON form."""
        import pandas as pd

        return pd.DataFrame(self._front_rows(), columns=[*self.reference.row(), "front_probability"])

    def _front_rows(self) -> list[dict[str, Any]]:
        sure = self.probabilities()
        return [{**trial.row(), "front_probability": sure[trial.number]} for trial in self.front_trials()]

    def hypervolume(self) -> float:
        """Return the volume that the measured trials dominate, 0 to 1; larger is better."""
        return front.hypervolume(self.corners)

    def to_json(self, all: bool = False) -> dict[str, Any]:
        """Return the front as plain data; with ``all`` every trial with its state, reason and stages."""
        document = {
            "study": self.study_name,
            "reference": self.reference.row(),
            "hypervolume": self.hypervolume(),
            "front": self._front_rows(),
            "search": searched(self),
        }
        if self.criteria:
            document["objectives"] = [criterion.to_json() for criterion in self.criteria]
        if all:
            document["trials"] = [
                {**trial.row(), "state": trial.state, "reason": trial.reason, "stages": trial.stages}
                for trial in self.trials
            ]
        return document

    def pick(
        self,
        max_size: str | float | None = None,
        max_latency: str | float | None = None,
        min_psnr: float | None = None,
        max_drop: float | None = None,
        min_speedup: float | None = None,
        prefer: str = "knee",
        min_preference: float | None = None,
        min: Mapping[str, float] | None = None,
        max: Mapping[str, float] | None = None,
        max_memory: str | float | None = None,
    ) -> Trial:
        """Return the candidate of the front that keeps these limits, and the study's own, and suits best.

        Args:
            max_size: bytes, or a text such as "1MB".
            max_latency: milliseconds, or a text such as "40ms".
            min_psnr: decibels.
            max_drop: decibels below the reference.
            min_speedup: times the reference.
            prefer: "knee", "size", "latency", "psnr", or a further objective of the study.
            min_preference: how often people prefer it to the reference at least, 0 to 1; 0.5 is as good as the reference.
            min, max: limits of further objectives, by their names or those of their readings.
            max_memory: bytes that a process grows by at its peak, or a text such as "64MB".

        Raises:
            InputError: a limit that cannot be read, or no candidate keeps them.
        """
        limits = self.wanted(max_size, max_latency, min_psnr, max_drop, min_speedup, min, max, max_memory)
        return pick(self, limits, prefer, min_preference)

    def wanted(
        self,
        max_size: str | float | None = None,
        max_latency: str | float | None = None,
        min_psnr: float | None = None,
        max_drop: float | None = None,
        min_speedup: float | None = None,
        min: Mapping[str, float] | None = None,
        max: Mapping[str, float] | None = None,
        max_memory: str | float | None = None,
    ) -> Limits:
        """Return these limits, and the study's own where these have none; see `pick`."""
        bounds = bounds_of(self.criteria, min, max)
        limits = given_limits(max_size, max_latency, min_psnr, max_drop, min_speedup, max_memory, bounds)
        return limits.over(self.limits)

    def preferences(self) -> Mapping[str, Reading]:
        """Return how often people prefer candidates to the reference, 0 to 1 with its interval, by candidate's key.

        Those are told that were compared with the reference, or with others that were.

        Raises:
            InputError: what was judged cannot be read.
        """
        judgements, reference = Review(self.folder).judgements, self.reference.candidate.key
        known = bound_to(judgements, reference)
        return {key: reading for key, reading in preferences(judgements, reference).items() if key in known}

    def ship(self, trial: Trial | int, folder: str | Path, why: str = "") -> Path:
        """Measure a trial's file again in a fresh process and write it as a bundle; return the bundle's folder.

        ``why``, the reason for the choice, is kept in the run and in the bundle's card.
        """
        from .ship import ship

        return ship(self, self.trial(trial) if isinstance(trial, int) else trial, Path(folder), why=why)

    def ship_spread(self, count: int, folder: str | Path, why: str = "", **limits: Any) -> Path:
        """Ship members of the front that stand for all of it, with a loader that chooses among them on the device.

        Args:
            count: how many.
            folder: of the shipment, new or empty; it is returned.
            why: the reason for the choice.
            limits: that all keep, beside the study's own, by name as `pick` takes them.

        Raises:
            InputError: there are fewer such members, or a limit cannot be read.
        """
        from .shipment import ship_spread

        return ship_spread(self, count, Path(folder), self.wanted(**limits), why=why)

    def load(self) -> Study:
        """Return the study that the run was made of.

        Raises:
            InputError: it is not there any more, or has changed.
        """
        from .study import load_study

        stored = self.folder / "study"
        source = self._about["study"]["source"]
        study = load_study(stored if source is None else source)
        check_same_study(self.folder, self._about, study)
        use_machine_facts(self.folder, study)
        holdings = RunHoldings(self.folder, source=self._shared)
        study.use_students(holdings.students or {}, holdings)
        return study

    @property
    def _shared(self) -> Source | None:
        """What searches that keep their records in the same database have made."""
        if self.storage is None:
            return None
        from .holdings_table import SharedHoldings

        return SharedHoldings(self.storage, self.digest)

    def to_torch(self, trial: int | Trial) -> Trainee:
        """Return a trial's candidate as a PyTorch module, rounded as its file is; its weights can be trained.

        Raises:
            InputError: there is no such trial, or the study is not there any more.
            BuildError: an op has no form in PyTorch here; it is named.
        """
        candidate = (trial if isinstance(trial, Trial) else self.trial(trial)).candidate
        study = self.load()
        study.prepare([candidate])
        return study.builder.to_torch(candidate)

    def model_path(self, trial: Trial) -> Path:
        """Return the path of a trial's model file; one that is not in the run folder is fetched from where the run's models
        are kept besides, or else built again.

        Raises:
            SlimfrontError: what is built now is not the file that was measured.
        """
        path = model_file(self.folder / "models", trial.candidate, self.format)
        if path.exists() or (lacking := fetch(self._about, trial, path)) is None:
            return path
        try:
            save_model_file(self.rebuild(trial, self.load()), path)
        except SlimfrontError as error:
            if not lacking:
                raise
            raise type(error)(f"{error}; {lacking}") from error
        return path

    def rebuild(self, trial: Trial, study: Study) -> Built:
        """Return a trial's model, built again from the run's study: the very bytes that were measured.

        Raises:
            SlimfrontError: what is built now is not the file that was measured.
        """
        built = study.builder.build(trial.candidate)
        if built.sha256 != trial.sha256:
            raise SlimfrontError(
                f"trial {trial.number} of {self.folder} cannot be built again as it was measured "
                f"(sha256 {trial.sha256}, now {built.sha256}): the machine or a version has changed; "
                "search into a new run folder"
            )
        return built

    def explain(self, trial: Trial | int, progress: Progress | None = None) -> dict[str, Any]:
        """Say of each layer of a trial why it is as fast as it is, and what would help most (`explain.explain`)."""
        from .explain import explain

        return explain(self, self.trial(trial) if isinstance(trial, int) else trial, progress)

    def timed_elsewhere(self) -> set[str]:
        """Return the digests of environments in which candidates were timed that were not in the one that counts."""
        return self._kept.timed_elsewhere()

    @property
    def environment(self) -> dict[str, Any]:
        """The environment whose timings count (`environment.Environment.to_json`); empty where it is not known."""
        return self.environments().get(self._kept.environment or "", {})

    def environments(self) -> dict[str, dict[str, Any]]:
        """Return the environments that stages were measured in, by digest."""
        files = sorted((self.folder / "environments").glob("*.json"))
        return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def _same_readings(before: Trial, now: Trial | None) -> bool:
    """Whether a trial is as it was, but for evaluations that were begun."""
    return now is not None and replace(before, claims=now.claims) == now


def time_interval(trial: Trial) -> tuple[float, float]:
    """Return the ends of 1 / speedup that a trial's interval leaves open, the fastest first."""
    speedup = trial.speedup
    return 1.0 / (speedup.high or speedup.value), 1.0 / (speedup.low or speedup.value)


def open_run(folder: str | Path) -> Run:
    """Return the run in a folder. Raises `InputError` where there is none."""
    return Run(folder)
