"""In every process of a search, workers as well: readings are replayed, what is planned goes wrong, and stages are logged.

The folder that SLIMFRONT_FAULTS names holds

plan.json    whether to replay, speedups by candidate's key, the faults, how long a stage lasts at least and at most
log          a line for each moment: begun, done, recorded or fault, then key, stage and the worker's node

Of timings and predictions, which no two runs have alike, each candidate has the same ones in every run; files and quality are
real. What is timed is timed once: intervals are so narrow that nothing is in doubt, and those of predictions hold the speedup.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(os.environ["SLIMFRONT_FAULTS"])
REFERENCE_MS = 10.0
NARROW = 0.001  # half the interval of a replayed timing, in parts of the speedup
GIGABYTE = 1 << 30


@functools.lru_cache(maxsize=1)
def plan() -> dict[str, Any]:
    """Return what is planned; the same for the life of a process."""
    return dict(json.loads((FOLDER / "plan.json").read_text()))


def note(*words: str) -> None:
    """Add a line to the log, in one piece whoever else writes."""
    line = " ".join(words) + "\n"
    file = os.open(FOLDER / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, line.encode())
    os.close(file)


# What goes wrong.


def meet(moment: str, key: str, stage: str) -> None:
    """Log a moment of a stage, and let happen what is planned for it; the search's own process is only ended from outside."""
    note(moment, key, stage, node())
    for number, fault in enumerate(plan()["faults"]):
        planned = (fault["key"], fault["stage"], fault["at"]) == (key, stage, moment) and is_worker()
        if planned and (fault["always"] or is_first(number)):
            note("fault", key, stage, node())
            FAULTS[fault["kind"]]()
    if moment == "begun":
        time.sleep(plan()["least_seconds"])


def is_first(number: int) -> bool:
    """Whether a fault that happens once has not happened yet."""
    try:
        (FOLDER / f"fault-{number}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def is_worker() -> bool:
    """Whether this process is one of Ray's workers."""
    return sys.argv[0].endswith("default_worker.py")


@functools.lru_cache(maxsize=1)
def node() -> str:
    """Return the id of the worker's node; "-" in the search's own process."""
    if not is_worker():
        return "-"
    import ray

    return str(ray.get_runtime_context().get_node_id())


def segfault() -> None:
    """Read where nothing is."""
    import ctypes

    ctypes.string_at(0)


def eat_memory() -> None:
    """Take memory until there is no more for this process; none of it is written to, so that the machine keeps its own."""
    import numpy as np

    taken = []
    while True:
        taken.append(np.empty(GIGABYTE, np.uint8))


FAULTS: dict[str, Callable[[], object]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": segfault,
    "memory": eat_memory,
    "hang": lambda: time.sleep(1e6),
}


# What is replayed.


def speedup_of(key: str) -> float:
    """Return a candidate's recorded speedup; one that was never recorded has one that follows from its key."""
    return float(plan()["speedups"].get(key, 1.0 + int(key[:6], 16) / 2**24))


def predict(evaluator: Any, candidate: Any) -> Any:
    """Return a prediction near the replayed speedup; its interval is narrow enough for the timing to wait, or not, by the key."""
    from slimfront.objectives.predictor import Prediction
    from slimfront.spaces.candidate import Candidate

    if candidate == Candidate():
        return None
    chance = int(candidate.key[6:12], 16) / 2**24
    value = speedup_of(candidate.key) * (0.98 + 0.04 * chance)
    half = 0.05 if chance < 0.5 else 0.2
    return Prediction(value, (1 - half) * value, (1 + half) * value, half / 2, REFERENCE_MS)


class ReplayedTiming:
    """Takes the place of `objectives.timing.Timing`."""

    name = "timing"
    stage = "timing"  # or "again"

    def measure_together(self, subjects: Sequence[Any]) -> list[dict[str, Any]]:
        """Return what was recorded of these models."""
        keys = [subject.model.path.stem for subject in subjects]
        for key in keys:
            meet("begun", key, self.stage)
        found = [readings(subject) for subject in subjects]
        for key in keys:
            meet("done", key, self.stage)
        return found


def readings(subject: Any) -> dict[str, Any]:
    """Return the readings of a timing."""
    from slimfront.objectives.protocol import Reading

    value, half = (1.0, 0.0) if subject.is_reference else (speedup_of(subject.model.path.stem), NARROW)
    return {
        "speedup": Reading(value, "x", (1 - half) * value, (1 + half) * value, how="replayed"),
        "reference_ms": Reading(REFERENCE_MS, "ms", how="replayed"),
        "reference_drift": Reading(0.0, "", how="replayed"),
        "disturbed": Reading(0.0, "", how="replayed"),
    }


def judge(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Return `Evaluator.judge`, its first stages logged; quality is logged where it is measured."""

    def watched(evaluator: Any, candidate: Any, known: Any = None, look: Any = None) -> Iterator[Any]:
        results = original(evaluator, candidate, known, look)
        there = known.stages if known else {}
        first = ["build"] if predict(evaluator, candidate) is None else ["prediction", "build"]
        for stage in first:
            if stage in there:
                continue
            meet("begun", candidate.key, stage)
            result = next(results)
            meet("done", candidate.key, stage)
            yield result
        yield from results

    return watched


def time_again(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `Evaluator.time_again`, logged as a stage of its own: it is done on purpose."""

    def watched(evaluator: Any, trials: Any) -> Any:
        evaluator._timing.stage = "again"
        try:
            return original(evaluator, trials)
        finally:
            evaluator._timing.stage = "timing"

    return watched


def change_evaluate(module: Any) -> None:
    """Replay predictions and timings, and log stages."""

    class Quality(module.Quality):  # type: ignore[misc, name-defined]
        def measure(self, subject: Any) -> dict[str, Any]:
            meet("begun", subject.model.path.stem, self.name)
            found = super().measure(subject)
            meet("done", subject.model.path.stem, self.name)
            return dict(found)

    module.Quality, module.Timing = Quality, ReplayedTiming
    module.Evaluator._predict = predict
    module.Evaluator.judge = judge(module.Evaluator.judge)
    module.Evaluator.time_again = time_again(module.Evaluator.time_again)


def change_recorded(module: Any) -> None:
    """Log what is on record, once it is."""
    append = module.RecordedRun._append

    def logged(recorded: Any, records: Sequence[Any]) -> None:
        append(recorded, records)
        for record in records:
            if record.state != "predicted":  # that one is yet to be timed
                note("recorded", record.key, record.stage, "-")

    module.RecordedRun._append = logged


def change_preparation(module: Any) -> None:
    """Calibrate nothing."""
    module.calibrate = lambda *_: None


def change_predictor(module: Any) -> None:
    """Take the predictor for calibrated: what it says is replayed."""
    module.Predictor.calibrated = property(lambda _: True)


def change_pool(module: Any) -> None:
    """Let a stage take as long as it is planned, at most: no option of the command line does."""
    module.LEAST_SECONDS = dict.fromkeys(module.LEAST_SECONDS, plan()["most_seconds"])


def change_study(module: Any) -> None:
    """Offer what does not depend on the machine."""
    module.kernel_step = lambda *_: 16
    module.layer_offers = lambda *_: {}


CHANGES = {
    "slimfront.search.evaluate": change_evaluate,
    "slimfront.search.recorded": change_recorded,
    "slimfront.search.preparation": change_preparation,
    "slimfront.search.ray_pool": change_pool,
    "slimfront.objectives.predictor": change_predictor,
    "slimfront.studies.study": change_study,
}
OF_THE_MACHINE = ("slimfront.studies.study",)  # changed as well where readings are yet to be recorded


class Changer(MetaPathFinder):
    """Changes modules right after they are imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module that is changed."""
        if name not in CHANGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def changed(module: ModuleType) -> None:
            execute(module)
            if plan()["replay"] or name in OF_THE_MACHINE:
                CHANGES[name](module)

        spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec
