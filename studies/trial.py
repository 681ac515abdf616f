"""A trial: one candidate of a run with all that was found out about it, read back from the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..objectives.protocol import Reading
from ..objectives.ratio import pooled
from ..spaces.candidate import Candidate
from .criteria import Criterion, readings_of
from .records import DONE, FAILED, PREDICTED, Record

STAGES = ("build", "quality", "timing")  # in this order; a trial with all of them is measured
QUALITY = "quality"
GLANCE = "glance"  # a look at a few images, between build and quality
PROPOSAL = "proposal"  # what a model expected of the candidate when it was proposed
CLAIM = "claim"  # somebody is about to evaluate it
WITHOUT_FILE = (PROPOSAL, "prediction")  # stages that come before the candidate's file
REFERENCE_LABEL = "reference"
MEMORY = ("memory_bytes", "predicted_memory_bytes")


def stages_with(criteria: Iterable[Criterion]) -> tuple[str, ...]:
    """Return the stages of a study with these further objectives, in their order; a trial with all of them is measured."""
    return (*STAGES[:-1], *(criterion.name for criterion in criteria), STAGES[-1])


@dataclass(frozen=True)
class Trial:
    """A candidate of a run.

    Attributes:
        number: its place in the run, from 0 (the reference).
        candidate: the point of the space.
        state: "measured", "failed", "predicted" where it was not timed, or not even judged on all images, or "started" where
            stages are still missing.
        reason: why it failed, or was not timed.
        stages: what is on disk, by stage: state, environment, seconds, time and readings as plain data.
        label: "reference", "uniform 4/8" or empty.
        sha256: of its file.
        readings: of all stages, by name.
        reference_ms: the run's time of the reference; latencies are this over the speedup.
        timings: how often its file was timed.
        claims: how often in a row its evaluation was begun by processes that ended before they had found anything.
        further: names of the readings of further objectives, which belong to its JSON form.
    """

    number: int
    candidate: Candidate
    state: str
    reason: str | None = None
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    label: str = ""
    sha256: str = ""
    readings: dict[str, Reading] = field(default_factory=dict)
    reference_ms: float | None = None
    timings: int = 0
    claims: int = 1
    further: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether all stages are there."""
        return self.state == "measured"

    def value(self, name: str) -> float:
        """Return a reading's value, e.g. `value("psnr_db")`; KeyError where it was not measured."""
        return self.readings[name].value

    @property
    def predicted(self) -> bool:
        """Whether its speed is only predicted: it is dominated anyway, or is timed later."""
        return self.state == "predicted"

    @property
    def judged(self) -> bool:
        """Whether its quality was measured on all images."""
        return self._quality == DONE

    def judged_by(self, criteria: Iterable[Criterion]) -> bool:
        """Whether all that comes before timing was measured, or quality was estimated in place of it."""
        return self.estimated or all(stage in self.stages for stage in stages_with(criteria)[:-1])

    @property
    def estimated(self) -> bool:
        """Whether its quality is only estimated, by its first images: it is dominated anyway."""
        return self._quality == PREDICTED

    @property
    def _quality(self) -> str | None:
        return self.stages.get(QUALITY, {}).get("state")

    @property
    def speedup(self) -> Reading:
        """The measured speedup, or the predicted one of a trial that was not timed."""
        return self.readings["predicted_speedup" if self.predicted else "speedup"]

    @property
    def latency_ms(self) -> float:
        """The run's reference time over the speedup, in milliseconds."""
        return (self.reference_ms or 0.0) / self.speedup.value

    @property
    def memory(self) -> Reading | None:
        """Its peak memory, as measured, else as predicted; None where neither is known."""
        return self.readings.get("memory_bytes") or self.readings.get("predicted_memory_bytes")

    def row(self) -> dict[str, Any]:
        """Return the JSON form of a candidate; what was not measured is None, and so is quality by a few images.

        Memory is told only where it is known.
        """
        speedup = self.readings.get("speedup")
        size = self._or_none("size_bytes")
        return {
            "trial": self.number,
            "candidate": self.candidate.to_json(),
            "sha256": self.sha256 or None,
            "size_bytes": None if size is None else int(size),
            "speedup": speedup.value if speedup else None,
            "speedup_low": speedup.low if speedup else None,
            "speedup_high": speedup.high if speedup else None,
            "latency_ms": self._latency(speedup.value if speedup else None),
            "latency_low_ms": self._latency(speedup.high if speedup else None),
            "latency_high_ms": self._latency(speedup.low if speedup else None),
            "predicted_speedup": self._or_none("predicted_speedup"),
            "psnr_db": None if self.estimated else self._or_none("psnr_db"),
            "fidelity_db": None if self.estimated else self._or_none("fidelity_db"),
            "ssim": self._or_none("ssim"),
            "worst_psnr_db": self._or_none("worst_psnr_db"),
            **{name: self._or_none(name) for name in self.further},
            **{name: int(self.value(name)) for name in MEMORY if name in self.readings},
        }

    def _or_none(self, name: str) -> float | None:
        return self.readings[name].value if name in self.readings else None

    def _latency(self, speedup: float | None) -> float | None:
        return self.reference_ms / speedup if self.reference_ms is not None and speedup else None


class Trials:
    """The trials that records tell of, kept current as records are added.

    A reading counts for the file that it was measured on: where a candidate was built again with other bytes, readings
    of the earlier file are left out. Timings count where they were made in one environment.

    Args:
        environment: whose timings count; by default the one that most candidates were timed in, of several the latest.
        criteria: the study's further objectives: a trial has to have been measured by each.
    """

    def __init__(self, environment: str | None = None, criteria: Sequence[Criterion] = ()) -> None:
        self._criteria = tuple(criteria)
        self._given = environment
        self._environment = environment
        self._records: dict[str, list[Record]] = {}
        self._candidates: dict[str, Candidate] = {}
        self._trials: dict[str, Trial] = {}
        self._keys: dict[int, str] = {}  # by number
        self._started: set[int] = set()
        self._next_number = 0
        self._reference: str | None = None
        self._reference_ms: float | None = None

    def add(self, records: Iterable[Record]) -> dict[str, Trial | None]:
        """Take further records; return by key what trials that changed were before, None for new ones."""
        changed: set[str] = set()
        for record in records:
            if record.candidate is not None:
                self._candidates.setdefault(record.key, Candidate.from_canonical(record.candidate, record.key))
                record = replace(record, candidate=None)  # a hundred layers as JSON take more room than all else
            self._records.setdefault(record.key, []).append(record)
            changed.add(record.key)
            if record.label == REFERENCE_LABEL:
                self._reference = record.key
        if self._given is None:
            main = _main_environment(self._records)
            if main != self._environment:
                self._environment, changed = main, set(self._records)
        if self._reference in changed:
            known, self._reference_ms = self._reference_ms, self._time_of_reference()
            if known != self._reference_ms:
                changed = set(self._records)
        before = {key: self._trials.get(key) for key in changed if key in self._candidates}
        for key in before:
            own = self._records[key]
            standing = _standing(own, self._environment)
            self._put(_trial(self._candidates[key], own, standing, self._reference_ms, self._criteria))
        return before

    @property
    def environment(self) -> str | None:
        """The environment whose timings count; None where nothing was timed."""
        return self._environment

    def _put(self, trial: Trial) -> None:
        self._trials[trial.candidate.key] = trial
        self._keys[trial.number] = trial.candidate.key
        self._next_number = max(self._next_number, trial.number + 1)
        (self._started.add if trial.state == "started" else self._started.discard)(trial.number)

    def of(self, key: str) -> Trial | None:
        """Return the trial of a candidate's key; None where there is none."""
        return self._trials.get(key)

    def numbered(self, number: int) -> Trial:
        """Return a trial by its number; KeyError where there is none."""
        return self._trials[self._keys[number]]

    def started(self) -> list[Trial]:
        """Return the trials whose stages are not all done, by number."""
        return [self.numbered(number) for number in sorted(self._started)]

    @property
    def next_number(self) -> int:
        """The number of the next trial: one more than the highest."""
        return self._next_number

    @property
    def count(self) -> int:
        """How many trials there are."""
        return len(self._trials)

    @property
    def finished(self) -> int:
        """How many of them have all their stages."""
        return len(self._trials) - len(self._started)

    def all(self) -> list[Trial]:
        """Return all trials, by number."""
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def timed_elsewhere(self) -> set[str]:
        """Return the environments in which candidates were timed that were not in the one whose timings count."""
        timed = [
            {r.environment for r in own if (r.stage, r.state) == ("timing", DONE)} for own in self._records.values()
        ]
        return {environment for found in timed if self._environment not in found for environment in found}

    def _time_of_reference(self) -> float | None:
        standing = _standing(self._records[self._reference or ""], self._environment)
        timing = standing.get("timing")
        return float(timing.readings["reference_ms"]["value"]) if timing is not None and timing.state == DONE else None


def _standing(records: list[Record], environment: str | None) -> dict[str, Record]:
    """Return the records that count, by stage: the last of each on the last build."""
    standing: dict[str, Record] = {}
    for record in records:
        if record.stage == CLAIM:
            continue
        if record.stage in WITHOUT_FILE:
            if record.environment == environment or record.stage == PROPOSAL:
                standing[record.stage] = record
        elif record.stage == "build":
            if "build" in standing and standing["build"].sha256 != record.sha256:
                standing = {stage: kept for stage, kept in standing.items() if stage in WITHOUT_FILE}
            standing["build"] = record
        elif _only_predicted(record) and _is_done(standing.get("timing")):
            continue  # a process that had lost the candidate meanwhile
        elif record.sha256 == standing.get("build", record).sha256 and (
            record.stage != "timing" or record.environment == environment or record.state == FAILED
        ):
            standing[record.stage] = record
    return standing


def _only_predicted(record: Record) -> bool:
    return (record.stage, record.state) == ("timing", PREDICTED)


def _only_predicted_of(standing: dict[str, Record]) -> bool:
    """Whether what is known of a candidate's quality or time is only predicted: then its further objectives may be missing."""
    return any(stage in standing and standing[stage].state == PREDICTED for stage in (QUALITY, "timing"))


def _is_done(record: Record | None) -> bool:
    return record is not None and record.state == DONE


def _trial(
    candidate: Candidate,
    own: list[Record],
    standing: dict[str, Record],
    reference_ms: float | None,
    criteria: Sequence[Criterion],
) -> Trial:
    first = own[0]
    failed = next((record for record in standing.values() if record.state == FAILED), None)
    needed = STAGES if _only_predicted_of(standing) else stages_with(criteria)
    complete = all(stage in standing for stage in needed)
    readings = {
        name: Reading.from_json(reading)
        for record in standing.values()
        if record.state != FAILED
        for name, reading in record.readings.items()
    }
    timed = standing.get("timing")
    unfinished = timed is not None and timed.state == PREDICTED
    timings = _timings(own, timed) if timed is not None and timed.state == DONE else []
    if timings:
        readings["speedup"] = pooled(timings)
    return Trial(
        number=first.trial,
        candidate=candidate,
        state="failed" if failed else "started" if not complete else "predicted" if unfinished else "measured",
        reason=failed.reason if failed else timed.reason if timed is not None and unfinished else None,
        stages={stage: _stage(record) for stage, record in standing.items()},
        label=first.label,
        sha256=standing["build"].sha256 if "build" in standing else "",
        readings=readings,
        reference_ms=reference_ms,
        timings=len(timings),
        claims=_claims(own),
        further=tuple(readings_of(criteria)),
    )


def _timings(own: list[Record], last: Record) -> list[Reading]:
    """Return the speedups of all timings of the file and in the environment of the last."""
    return [
        Reading.from_json(record.readings["speedup"])
        for record in own
        if (record.stage, record.state, record.sha256, record.environment)
        == ("timing", DONE, last.sha256, last.environment)
    ]


def _claims(own: list[Record]) -> int:
    """Return how often in a row an evaluation was begun that found nothing."""
    claims = 0
    for record in reversed(own):
        if record.stage != CLAIM:
            break
        claims += 1
    return claims


def _stage(record: Record) -> dict[str, Any]:
    return {key: getattr(record, key) for key in ("state", "reason", "environment", "seconds", "time", "readings")}


def _main_environment(by_key: dict[str, list[Record]]) -> str | None:
    """Return the environment that most candidates were timed in; of several the one whose last timing stands last."""
    timed: dict[str, set[str]] = defaultdict(set)
    last: dict[str, int] = {}
    timings = (record for own in by_key.values() for record in own if record.stage == "timing" and record.state == DONE)
    for place, record in enumerate(timings):
        timed[record.environment].add(record.key)
        last[record.environment] = place
    return max(timed, key=lambda environment: (len(timed[environment]), last[environment]), default=None)
