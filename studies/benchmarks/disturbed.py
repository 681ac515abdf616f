"""A search that is disturbed, watched from outside: its processes, what is on record whenever something happens to it, and
what has become of that in the end.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

from slimfront.search.sweeper import marked
from slimfront.studies.record_table import read_table
from slimfront.studies.records import Record, read_records
from slimfront.studies.run import Run
from slimfront.studies.run_folder import RECORDS_FILE, RUN_FILE, read_run_file
from slimfront.studies.storage import database_of
from slimfront.studies.trial import CLAIM, PROPOSAL

FAULTY = Path(__file__).with_name("faulty")
COMMAND = [sys.executable, "-c", "from slimfront.cli import main; main()", "search"]
LOOK_SECONDS = 0.005
LONGEST_SECONDS = 600.0  # that nothing at all happens in a search
LEFT_SECONDS = 30.0  # that processes may take to end after their search
LOCAL = ("RAY_ADDRESS", "SLIMFRONT_SEARCH")  # variables that a search inherits from nobody

Result = tuple[str, str, str, str, str]  # key, stage, state, sha256 and readings
Front = list[tuple[str, str, dict[str, dict[str, object]]]]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in a worker.

    Attributes:
        kind: "kill", "segfault", "memory" or "hang".
        key: of the candidate.
        stage: "prediction", "build", "quality" or "timing".
        at: when the stage has "begun", or is "done" and not told of yet.
        always: whenever it comes there; else once.
    """

    kind: str
    key: str
    stage: str
    at: str = "begun"
    always: bool = False


@dataclass(frozen=True)
class Verdict:
    """What faults have done.

    Attributes:
        faults: how many there were.
        finished: results that were on record when the last of them came.
        lost: of all that was ever on record, what is not any more; and candidates that failed through no fault of theirs.
        twice: stages evaluated again though they were on record, and results that are on record twice.
        same: whether the front is that of the undisturbed run.
        left: processes that outlived their search.
    """

    faults: int = 0
    finished: int = 0
    lost: int = 0
    twice: int = 0
    same: bool = True
    left: int = 0

    def __add__(self, other: Verdict) -> Verdict:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Verdict(**{**sums, "same": self.same and other.same})

    @property
    def harmless(self) -> bool:
        """Whether nothing was lost, done twice, found otherwise or left behind."""
        return self.same and not (self.lost or self.twice or self.left)


@dataclass
class Disturbed:
    """A search with replayed readings.

    Args:
        folder: of its own, for its runs, the plan and the log.
        study: folder of the study.
        trials: of the run.
        flags: more flags of the command line.
        planned: faults of workers.
        speedups: that are replayed, by candidate's key.
        least_seconds, most_seconds: that a stage lasts.
        replay: False measures for real.

    Attributes:
        run: the run's folder.
    """

    folder: Path
    study: Path
    trials: int
    flags: Sequence[str] = ()
    planned: Sequence[Fault] = ()
    speedups: Mapping[str, float] = field(default_factory=dict)
    least_seconds: float = 0.0
    most_seconds: float = 600.0
    replay: bool = True

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.run = self.folder / "run"
        plan = {
            "replay": self.replay,
            "speedups": dict(self.speedups),
            "faults": [asdict(fault) for fault in self.planned],
            "least_seconds": self.least_seconds,
            "most_seconds": self.most_seconds,
        }
        (self.folder / "plan.json").write_text(json.dumps(plan))
        self.faults = 0
        self.before: Counter[Result] = Counter()  # all that was on record at any fault
        self.finished = 0

    # Its processes.

    @property
    def environment(self) -> dict[str, str]:
        """Variables of all its processes; the first of them marks them."""
        own = {name: value for name, value in os.environ.items() if name not in LOCAL}
        path = os.pathsep.join(filter(None, [str(FAULTY), own.get("PYTHONPATH")]))
        return {**own, "SLIMFRONT_FAULTS": str(self.folder), "PYTHONPATH": path}

    def start(self, run: Path | None = None, most_bytes: int | None = None) -> subprocess.Popen[str]:
        """Begin the search, or go on with it; no file may grow beyond ``most_bytes``."""
        limit = None if most_bytes is None else partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most_bytes,) * 2)
        arguments = [str(self.study), "--run", str(run or self.run), "--trials", str(self.trials), *self.flags]
        return subprocess.Popen(
            [*COMMAND, *arguments, "--sampler", "random", "--json", "--quiet"],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=limit,
        )

    def left(self, seconds: float = LEFT_SECONDS) -> int:
        """Return how many of its processes are still there after so many seconds."""
        end = time.monotonic() + seconds
        mark = f"SLIMFRONT_FAULTS={self.folder}\0".encode()
        while (found := [id_ for id_ in marked(mark) if id_ != os.getpid()]) and time.monotonic() < end:
            time.sleep(0.1)
        return len(found)

    # What happens.

    def log(self) -> list[list[str]]:
        """Return the moments so far, each as words."""
        path = self.folder / "log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def records(self) -> list[Record]:
        """Return what is on record."""
        if not (self.run / RUN_FILE).exists():
            return []
        database = database_of(self.run, None)
        if database is None:
            return list(read_records(self.run / RECORDS_FILE))
        return read_table(database, read_run_file(self.run)["study"]["digest"])

    def note(self, faults: int = 1) -> None:
        """Take down what is on record now that something has happened."""
        self.faults += faults
        found = Counter(map(_result, self.records()))
        self.before |= found
        self.finished = sum(stage not in (CLAIM, PROPOSAL) for _, stage, *_ in found)
        with (self.folder / "log").open("a") as log:
            log.writelines(f"recorded {key} {stage} -\n" for key, stage, state, *_ in found if state != "predicted")

    def until(self, moment: Callable[[list[list[str]]], bool], process: subprocess.Popen[str]) -> bool:
        """Wait for a moment in the log; return False where the process ended before."""
        end, size = time.monotonic() + LONGEST_SECONDS, -1
        log = self.folder / "log"
        while process.poll() is None:
            found = log.stat().st_size if log.exists() else 0
            if found != size:
                end, size = time.monotonic() + LONGEST_SECONDS, found
                if moment(self.log()):
                    return True
            if time.monotonic() > end:
                process.kill()
                raise RuntimeError(f"nothing happened for {LONGEST_SECONDS:.0f} s in {self.folder}")
            time.sleep(LOOK_SECONDS)
        return False

    def until_some(self, process: subprocess.Popen[str], chance: random.Random, most: int = 25) -> bool:
        """Wait until some more has happened, or sometimes for a part of the seconds that a search takes to begin."""
        if chance.random() < 0.15:
            time.sleep(chance.uniform(0.0, 3.0))
            return process.poll() is None
        wanted = len(self.log()) + chance.randint(1, most)
        found = self.until(lambda log: len(log) >= wanted, process)
        time.sleep(chance.uniform(0.0, 0.02))
        return found and process.poll() is None

    def watch(self, process: subprocess.Popen[str]) -> None:
        """Take down what is on record after each planned fault, until the search has ended."""
        known = 0

        def another(log: list[list[str]]) -> bool:
            return sum(line[0] == "fault" for line in log) > known

        while self.until(another, process):
            known += 1
            self.note()
        while another(self.log()):
            known += 1
            self.note()
        ended_well(process)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill a search, and take down what is on record then."""
        process.kill()
        process.communicate()
        self.note()

    def finish(self) -> None:
        """Go on until the search has ended."""
        ended_well(self.start())

    # What has become of it.

    def verdict(self, undisturbed: Front) -> Verdict:
        """Return what the faults have done, now that the search has ended."""
        records = self.records()
        found = Counter(map(_result, records))
        there = {(record.key, record.stage) for record in records}
        failed = {record.key for record in records if record.state == "failed"}
        doomed = {fault.key for fault in self.planned if fault.always}
        return Verdict(
            self.faults,
            self.finished,
            (self.before - found).total() + len(self._told() - there) + len(failed - doomed),
            self._again() + self._twice(records),
            front_of(Run(self.run)) == undisturbed,
            self.left(),
        )

    def _told(self) -> set[tuple[str, str]]:
        """Return what was on record by the log."""
        return {(key, stage) for moment, key, stage, _ in self.log() if moment == "recorded"}

    def _again(self) -> int:
        """Return how often a stage began that was on record already, by the log."""
        recorded, again = set(), 0
        for moment, key, stage, _ in self.log():
            again += moment == "begun" and (key, stage) in recorded
            recorded |= {(key, stage)} if moment == "recorded" else set()
        return again

    def _twice(self, records: Sequence[Record]) -> int:
        """Return how many results are on record more than once; but for timings that were made again on purpose."""
        asked = {(key, "timing") for moment, key, stage, _ in self.log() if (moment, stage) == ("begun", "again")}
        results = Counter(
            (r.key, r.stage, r.environment) for r in records if r.state != "predicted" and r.stage != CLAIM
        )
        return sum(count - 1 for (key, stage, _), count in results.items() if (key, stage) not in asked)


def front_of(run: Run) -> Front:
    """Return a run's front: keys, files and readings."""
    found = []
    for trial in run.front_trials():
        readings = {name: reading.to_json() for name, reading in sorted(trial.readings.items())}
        found.append((trial.candidate.key, trial.sha256, readings))
    return found


def ended_well(process: subprocess.Popen[str]) -> None:
    """Wait for a search. Raises `RuntimeError` with what it said where it failed."""
    _, said = process.communicate(timeout=LONGEST_SECONDS)
    if process.returncode:
        raise RuntimeError(f"a search ended with {process.returncode}: {said}")


def _result(record: Record) -> Result:
    return record.key, record.stage, record.state, record.sha256, json.dumps(record.readings, sort_keys=True)
