"""python studies/benchmarks/faults.py [--kinds coordinator 'disk full' ...] [--trials 30] [--seed 0] [--folder FOLDER]

What is lost, done twice or left behind where a search is disturbed? Each kind of fault meets the real command, with its
random sampler, on a small made-up model; a search that ends is begun again by the same command. A first search records
timings. In all others they are replayed (`faulty/replay.py`), as is what is predicted, so that the front of a disturbed search
can be compared with that of an undisturbed one; files, quality, records, Ray and PostgreSQL are real. Workers are made to
fail from inside, when a stage has begun or is done and not told of yet. No flag of the command line says how long a stage
may take: 6 s instead of at least 10 minutes are patched in where a candidate hangs. A full disk is a small tmpfs where one
can be mounted, as root; else the search's files may not grow any more.

Prints a Markdown table, each kind as it ends, and ends with status 1 where a fault did harm. The whole takes about half an
hour on two cores; ``--kinds`` takes some of it.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from disturbed import Disturbed, Fault, Front, Verdict, ended_well, front_of
from server import postgres

from slimfront.search.cluster import SLOT
from slimfront.search.sweeper import marked
from slimfront.search.work import Kind
from slimfront.studies.run import Run

HANGS_SECONDS = 6.0  # after which a stage is ended where a candidate hangs
NODE_STAGE_SECONDS = 0.3  # that a stage lasts at least, so that a node is lost in it
TITLES = tuple(f"ray::{kind}" for kind in Kind)  # of workers that work for a search
DISK = "2m"
LAYERS, CHANNELS = 4, 48  # so many weights that fewer bits make a smaller file: a front of many candidates

Process = subprocess.Popen[str]
Disturb = Callable[[Disturbed, Process], Process]  # returns the process that goes on


@dataclass
class Bench:
    """Searches of one study, and what they find undisturbed.

    Args:
        folder: for all that is written.
        study: folder of the study.
        trials: of each search.
        seed: of all that is drawn.
        records: whether to time for real first; else the speedups that are replayed are drawn.
    """

    folder: Path
    study: Path
    trials: int
    seed: int = 0
    records: bool = True

    def __post_init__(self) -> None:
        self.count = 0
        self.chance = random.Random(self.seed)

    def close(self) -> None:
        """End what is left of searches that were broken off."""
        for process in set(marked(f"SLIMFRONT_FAULTS={self.folder}/".encode())) - {os.getpid()}:
            with _gone_already():
                os.kill(process, signal.SIGKILL)

    def search(self, **more: Any) -> Disturbed:
        """Return a search in a folder of its own."""
        self.count += 1
        folder = self.folder / f"search-{self.count}"
        return Disturbed(folder, self.study, self.trials, **{"speedups": self.speedups, **more})

    @cached_property
    def speedups(self) -> dict[str, float]:
        """What was timed, or predicted where it was not, by candidate's key."""
        if not self.records:
            return {}
        recording = Disturbed(self.folder / "recorded", self.study, self.trials, replay=False)
        recording.finish()
        trials = Run(recording.run).trials
        return {trial.candidate.key: trial.speedup.value for trial in trials if trial.state != "failed"}

    @cached_property
    def undisturbed(self) -> Run:
        """A run that nothing happens to."""
        search = self.search()
        search.finish()
        return Run(search.run)

    @cached_property
    def front(self) -> Front:
        """What every disturbed search is to find."""
        return front_of(self.undisturbed)

    def keys(self, count: int, timed: bool = False, spare: bool = False) -> list[str]:
        """Draw candidates that are no reference: of those that are timed, or of those that are not on the front."""
        front = {trial.number for trial in self.undisturbed.front_trials()}
        found = [trial for trial in self.undisturbed.trials[1:] if trial.measured or not timed]
        found = [trial for trial in found if not (spare and trial.number in front)]
        return [trial.candidate.key for trial in self.chance.sample(found, min(count, len(found)))]


# Coordinators.


def at_random_moments(bench: Bench, count: int, disturb: Disturb, flags: Callable[[], Sequence[str]]) -> Verdict:
    """Disturb searches, each with flags of its own, at random moments until they come to their end, so often in all."""
    total = Verdict()
    while total.faults < count:
        search = bench.search(flags=flags())
        process = search.start()
        while total.faults + search.faults < count and search.until_some(process, bench.chance):
            process = disturb(search, process)
        ended_well(process)
        total += search.verdict(bench.front)
    return total


def coordinator_killed(bench: Bench, count: int, *flags: str) -> Verdict:
    """Kill the search's process again and again."""

    def kill(search: Disturbed, process: Process) -> Process:
        search.kill(process)
        return search.start()

    return at_random_moments(bench, count, kill, lambda: flags)


def one_of_two_killed(bench: Bench, count: int) -> Verdict:
    """Kill one of two coordinators that share a database, again and again."""
    total = Verdict()
    with postgres() as server:
        while total.faults < count:
            search = bench.search(flags=("--storage", server.database()))
            runs = [search.run, search.folder / "other"]
            processes = [search.start(run) for run in runs]
            while total.faults + search.faults < count:
                which = bench.chance.randrange(2)
                if not search.until_some(processes[which], bench.chance):
                    break
                search.kill(processes[which])
                processes[which] = search.start(runs[which])
            for process in processes:
                ended_well(process)
            total += search.verdict(bench.front)
    return total


def database_stopped(bench: Bench, count: int) -> Verdict:
    """Stop PostgreSQL without a word to anyone, and start it a while later."""
    with postgres() as server:

        def stop(search: Disturbed, process: Process) -> Process:
            server.stop()
            time.sleep(bench.chance.uniform(0.0, 2.0))
            server.start()
            search.note()
            return process

        return at_random_moments(bench, count, stop, lambda: ("--storage", server.database()))


# A full disk.


def disk_full(bench: Bench, count: int, *flags: str) -> Verdict:
    """Let the run's disk be full at random moments; the search says so, and goes on once there is room."""
    total = Verdict()
    while total.faults < count:
        search = bench.search(flags=flags)
        with small_disk(search) as mounted:
            while total.faults + search.faults < count:
                process = search.start(most_bytes=None if mounted else _little_more(search, bench.chance))
                if mounted and not search.until_some(process, bench.chance):
                    ended_well(process)
                    break
                filler = search.run.parent / "filler"
                if mounted:
                    fill(filler)
                _, said = process.communicate()
                filler.unlink(missing_ok=True)
                if process.returncode == 0:
                    break
                if process.returncode != 2 or "make room" not in said:
                    raise RuntimeError(f"a search on a full disk ended with {process.returncode}: {said}")
                search.note()
            search.finish()
            total += search.verdict(bench.front)
    return total


@contextmanager
def small_disk(search: Disturbed) -> Iterator[bool]:
    """Put the run on a small disk of its own where that can be mounted; say whether it could."""
    disk = search.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "slimfront", str(disk)]
    mounted = shutil.which("mount") is not None and not subprocess.run(mount, capture_output=True).returncode
    search.run = disk / "run"
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path) -> None:
    """Take all that a disk has left."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def _little_more(search: Disturbed, chance: random.Random) -> int:
    records = search.run / "records.jsonl"
    return (records.stat().st_size if records.exists() else 0) + chance.randrange(8000, 12000)


# Workers.


def worker_killed(bench: Bench, count: int, stage: str) -> Verdict:
    """Kill workers in a stage, when it has begun or is done and not told of yet."""
    keys = bench.keys(count, timed=stage == "timing")
    planned = [Fault("kill", key, stage, ("begun", "done")[place % 2]) for place, key in enumerate(keys)]
    return with_workers(bench, planned)


def candidate_fails(bench: Bench, kind: str, once: int, always: int) -> Verdict:
    """Let some candidates do harm once, and others each time."""
    doomed = bench.keys(always, spare=True)
    others = [key for key in bench.keys(bench.trials) if key not in doomed][:once]
    planned = [Fault(kind, key, "quality") for key in others]
    planned += [Fault(kind, key, "quality", always=True) for key in doomed]
    return with_workers(bench, planned, most_seconds=HANGS_SECONDS)


def with_workers(bench: Bench, planned: Sequence[Fault], **more: float) -> Verdict:
    """Search with two workers and planned faults."""
    search = bench.search(flags=("--workers", "2"), planned=planned, **more)
    search.watch(search.start())
    return search.verdict(bench.front)


# Nodes.


def node_killed(bench: Bench, count: int, in_timing: bool = False) -> Verdict:
    """Kill all processes of a node, at a random moment or while the node with the timing slot times; then add another."""
    total = Verdict()
    while total.faults < count:
        search = bench.search(least_seconds=NODE_STAGE_SECONDS)
        with Nodes(search) as nodes:
            search.flags = ("--ray", nodes.address)
            process = search.start()
            while total.faults + search.faults < count:
                if not (nodes.until_timing(process) if in_timing else search.until_some(process, bench.chance)):
                    break
                nodes.kill(0 if in_timing else bench.chance.randrange(2))
                search.note()
                nodes.add()
            ended_well(process)
            at_work = nodes.at_work()
        total += search.verdict(bench.front) + Verdict(left=at_work)
    return total


class Nodes:
    """A Ray cluster on loopback: a head of one processor, and two more nodes, of which the first has the timing slot."""

    def __init__(self, search: Disturbed) -> None:
        self.search = search
        self.others: list[Any] = []

    def __enter__(self) -> Nodes:
        from ray.cluster_utils import Cluster

        logging.getLogger("ray").setLevel(logging.WARNING)
        self._kept = dict(os.environ)
        os.environ.update(self.search.environment)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.address = str(self._cluster.address)
        self.add()
        self.add()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()
        os.environ.clear()
        os.environ.update(self._kept)

    def add(self) -> None:
        """Add the node that is missing."""
        slot = not any(has for _, has in self.others)
        made = self._cluster.add_node(num_cpus=1, resources={SLOT: 1} if slot else {})
        self.others.insert(0 if slot else 1, (made, slot))

    def kill(self, which: int) -> None:
        """Kill all processes of a node at once; 0 is the one with the timing slot."""
        node, _ = self.others.pop(which)
        for process in [_raylet(node), *descendants(_raylet(node))]:
            with _gone_already():
                os.kill(process, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)

    def until_timing(self, process: subprocess.Popen[str]) -> bool:
        """Wait until the node with the slot has begun to time; return False where the search ended before."""
        known, id_ = len(self.search.log()), self.others[0][0].node_id
        begun = ["timing", id_]
        return self.search.until(
            lambda log: any(line[0] == "begun" and line[2:] == begun for line in log[known:]), process
        )

    def at_work(self) -> int:
        """Return how many of the cluster's workers still work for the search."""
        nodes = (self._cluster.head_node, *(node for node, _ in self.others))
        processes = [each for node in nodes for each in descendants(_raylet(node))]
        return sum(title_of(process).startswith(TITLES) for process in processes)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def title_of(process: int) -> str:
    """Return what a process is called; nothing where it is gone."""
    with _gone_already():
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""


def descendants(process: int) -> list[int]:
    """Return the children of a process, theirs, and so on."""
    found: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with _gone_already():
            for child in map(int, children.read_text().split()):
                found += [child, *descendants(child)]
    return found


@contextmanager
def _gone_already() -> Iterator[None]:
    try:
        yield
    except (ProcessLookupError, FileNotFoundError):
        return


KINDS: dict[str, Callable[[Bench], Verdict]] = {
    "coordinator": partial(coordinator_killed, count=24),
    "coordinator with workers": lambda bench: coordinator_killed(bench, 10, "--workers", "2"),
    "one of two coordinators": partial(one_of_two_killed, count=10),
    "PostgreSQL": partial(database_stopped, count=10),
    "disk full": partial(disk_full, count=10),
    "disk full with workers": lambda bench: disk_full(bench, 4, "--workers", "2"),
    **{
        f"worker in {stage}": partial(worker_killed, count=8, stage=stage)
        for stage in ("prediction", "build", "quality", "timing")
    },
    "segmentation fault": partial(candidate_fails, kind="segfault", once=3, always=2),
    "memory eaten": partial(candidate_fails, kind="memory", once=0, always=4),
    "hanging": partial(candidate_fails, kind="hang", once=2, always=1),
    "node": partial(node_killed, count=6),
    "node with the timing slot": partial(node_killed, count=6, in_timing=True),
}


def main() -> None:
    """Do harm of each kind, and print what came of it."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    flags.add_argument("--trials", type=int, default=30)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--folder", type=Path, help="keep all runs here; by default nothing is kept")
    arguments = flags.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended then too
    with tempfile.TemporaryDirectory(prefix="slimfront-faults-") as temporary:
        bench = prepare(arguments.folder or Path(temporary), arguments.trials, arguments.seed)
        try:
            harmless = table(bench, arguments.kinds)
        finally:
            bench.close()
    sys.exit(not harmless)


def table(bench: Bench, kinds: Sequence[str]) -> bool:
    """Print what came of each kind; return whether none did harm."""
    print(f"undisturbed: {len(bench.undisturbed.trials)} candidates, {len(bench.front)} on the front")
    print("| fault | injected | results before the last / lost | evaluated twice | front equal | left | seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    total, broken = Verdict(), False
    for kind in kinds:
        begun = time.monotonic()
        try:
            found = KINDS[kind](bench)
        except RuntimeError as error:
            broken = True
            bench.close()
            print(f"| {kind} | {str(error).strip()} |", flush=True)
            continue
        print(f"{row(kind, found)} {time.monotonic() - begun:.0f} |", flush=True)
        total += found
    print(f"{row('all', total)} |")
    return total.harmless and not broken


def prepare(folder: Path, trials: int, seed: int) -> Bench:
    """Make the study, and search it undisturbed."""
    from coordinator import deep_study

    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SLIMFRONT_CACHE"] = str(folder.resolve() / "cache")
    deep_study(folder, LAYERS, CHANNELS).save(folder / "study")
    return Bench(folder.resolve(), folder.resolve() / "study", trials, seed)


def row(kind: str, found: Verdict) -> str:
    """Return a line of the table, but for its last cell."""
    same = "yes" if found.same else "no"
    return f"| {kind} | {found.faults} | {found.finished} / {found.lost} | {found.twice} | {same} | {found.left} |"


if __name__ == "__main__":
    main()
