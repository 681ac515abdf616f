"""Trainings side by side on Ray's workers: Ray Tune carries them, and ASHA stops those that promise less than others.

Li et al.: A System for Massively Parallel Hyperparameter Tuning (MLSys 2020). Checkpoints go through one actor beside the
coordinator into the run's folder, so that nodes need not share it; the same call goes on from them.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spaces.errors import BuildError
from ..spaces.statistics import Progress
from . import cluster
from .distillation import Distillation
from .training import ETA, Schedule, Training, device

RUNGS = 2  # after a third of the steps, and a ninth
PARTS = 27  # of a training, after each of which it tells how far it is, and its checkpoint is kept
TRIES = 2  # where a worker is lost
STEPS, PROMISE, NUMBER = "steps", "promise", "number"
QUIET = {  # Tune's own: no signal handler, no files of its own beside the results, no remarks
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Entry:
    """A training that takes part.

    Attributes:
        training: of a distillation; all share their examples.
        promise: returns what the distillation promises by now; more is better. It is sent to workers.
    """

    training: Training
    promise: Callable[[Distillation[Any]], float]


@dataclass(frozen=True)
class _End:
    """How far a training has come.

    Attributes:
        entry: of it.
        steps: that it has made; 0 where it failed.
        promise: what it told last.
        reason: why it failed.
        own: whether it failed by itself, and not with its worker.
    """

    entry: Entry
    steps: int
    promise: float
    reason: str = ""
    own: bool = False

    @classmethod
    def of(cls, entry: Entry, result: Any) -> _End:
        """Return what Tune's result says."""
        if result.error:
            _, own, reason = cluster.what_failed(result.error).rpartition(f"{BuildError.__name__}: ")
            return cls(entry, 0, 0.0, reason, bool(own))
        told = result.metrics or {}
        return cls(entry, told.get(STEPS, 0), told.get(PROMISE, 0.0))


def able(race: Race | None) -> Race | None:
    """Return a race where there is one and it has a processor to train on; else trainings go one after another, here."""
    return race if race is not None and race.able else None


class Race:
    """Trains on the Ray that this process is connected with.

    Args:
        most: trainings at once, at most; by default as many as there are processors.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    @property
    def able(self) -> bool:
        """Whether there is a processor to train on."""
        import ray

        return float(ray.cluster_resources().get("CPU", 0.0)) >= 1.0

    @property
    def at_once(self) -> int:
        """How many trainings are under way at once."""
        import ray

        processors = int(ray.cluster_resources().get("CPU", 0.0))
        return max(1, processors if self.most is None else min(self.most, processors))

    def run(
        self,
        entries: Sequence[Entry],
        count: int,
        progress: Progress | None = None,
        failed: Callable[[Entry, Exception], None] = lambda entry, error: None,
    ) -> list[Entry]:
        """Train until each has made all its steps, or has stopped; return the former, with what they have become.

        Args:
            entries: at least one.
            count: so many at least make all their steps, where their training does not fail.
            progress: told what is being done, and the part of it that is done; what it raises ends the race.
            failed: is told which trainings fail, and why: by themselves, a `BuildError`; or with their worker.

        Raises:
            BuildError: every one's training fails.
        """
        ends = self._ends(entries, _asha(_steps(entries)), progress)
        whole = [end for end in ends if end.steps == _steps(entries)]
        stopped = sorted((end for end in ends if 0 < end.steps < _steps(entries)), key=lambda end: -end.promise)
        if missing := stopped[: max(count - len(whole), 0)]:
            again = [end.entry for end in missing]
            ends += self._ends(again, None, progress)
            whole += [end for end in ends[len(entries) :] if end.steps == _steps(entries)]
        for end in ends:
            if end.reason:
                failed(end.entry, BuildError(end.reason) if end.own else RuntimeError(end.reason))
        if not whole:
            raise BuildError(next((end.reason for end in ends if end.reason), "no training came to its end"))
        found = sorted((end.entry for end in whole), key=entries.index)
        for entry in found:
            entry.training.go_on(0)  # reads the checkpoint
        return found

    def _ends(self, entries: Sequence[Entry], scheduler: Any, progress: Progress | None) -> list[_End]:
        """Train, and return how far each has come."""
        from ray import tune

        listener = _listener(entries, progress)
        with (
            _kept_quiet(),
            _plain_workers(),
            _cleared_away(),
            self._keeper(entries) as keeper,
            tempfile.TemporaryDirectory(prefix="slimfront-") as folder,
        ):
            tuner = tune.Tuner(
                self._trainable(entries, keeper),
                param_space={NUMBER: tune.grid_search(list(range(len(entries))))},
                tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=self.most, reuse_actors=True),
                run_config=tune.RunConfig(
                    storage_path=folder,
                    stop=listener,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=TRIES - 1),
                ),
            )
            grid = tuner.fit()
            results = [grid[number] for number in range(len(grid))]
        if listener.ended is not None:
            raise listener.ended
        return [_End.of(entries[(result.config or {})[NUMBER]], result) for result in results]

    @contextmanager
    def _keeper(self, entries: Sequence[Entry]) -> Iterator[Any]:
        """Give the actor, beside this process, that keeps the checkpoints in the run's folder."""
        import ray

        paths = [entry.training.checkpoint.resolve() for entry in entries]
        here = ray.get_runtime_context().get_node_id()
        keeper: Any = ray.remote(_Keeper).options(num_cpus=0, scheduling_strategy=cluster.on(here)).remote(paths)
        try:
            yield keeper
        finally:
            ray.kill(keeper)

    def _trainable(self, entries: Sequence[Entry], keeper: Any) -> Any:
        import ray
        from ray import tune

        pupils = [ray.put(_sent(entry)) for entry in entries]
        examples = entries[0].training.lesson.examples  # type: ignore[attr-defined]
        given = tune.with_parameters(_train, pupils=pupils, examples=examples, keeper=keeper)
        return tune.with_resources(given, {"cpu": 1})


@contextmanager
def _plain_workers() -> Iterator[None]:
    """Let Tune's workers start as all others do: in an environment of their own, a variable of which Tune sets, Ray starts
    Python by a shell, its path unquoted, and one with a space never comes up.
    """
    from ray.tune.execution.class_cache import DEFAULT_ENV_VARS

    before = dict(DEFAULT_ENV_VARS)
    DEFAULT_ENV_VARS.clear()
    try:
        yield
    finally:
        DEFAULT_ENV_VARS.update(before)


@contextmanager
def _cleared_away() -> Iterator[None]:
    """Let Ray forget what Tune was given, which would be kept for any later connection."""
    import ray

    hooks = getattr(ray._private.worker, "_post_init_hooks", [])
    before = len(hooks)
    try:
        yield
    finally:
        del hooks[before:]


class _Keeper:
    """Keeps the checkpoints of trainings in the run's folder."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def read(self, number: int) -> bytes | None:
        with suppress(OSError):
            return self.paths[number].read_bytes()
        return None

    def write(self, number: int, checkpoint: bytes) -> None:
        from ..studies.run_folder import write_whole

        self.paths[number].parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.paths[number], checkpoint)


def _train(config: dict[str, Any], pupils: Sequence[Any], examples: Any, keeper: Any) -> None:
    """Train one entry in a worker; tell after each part of its steps what it promises."""
    import ray
    import torch
    from ray import tune

    torch.set_num_threads(1)
    number = config[NUMBER]
    lesson, schedule, promise = ray.get(pupils[number])
    lesson.module.to(device())
    lesson.examples = examples
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        checkpoint = Path(folder) / "training" / "checkpoint.pt"
        known = ray.get(keeper.read.remote(number))
        if known is not None:
            checkpoint.parent.mkdir()
            checkpoint.write_bytes(known)
        training = Training(lesson, schedule, checkpoint)
        training.go_on(0)  # reads the checkpoint
        for steps in [part for part in _parts(schedule.steps) if part >= min(training.step, schedule.steps)]:
            training.go_on(steps)
            ray.get(keeper.write.remote(number, checkpoint.read_bytes()))
            tune.report({STEPS: steps, PROMISE: promise(lesson)})


def _parts(steps: int) -> list[int]:
    """Return the numbers of steps after which a training tells how far it is."""
    return sorted({max(1, round(part * steps / PARTS)) for part in range(1, PARTS + 1)})


def _rung(steps: int) -> int:
    """Return the lowest number of steps at which trainings are compared: one of `_parts`."""
    return max(1, round(steps / ETA**RUNGS))


def _steps(entries: Sequence[Entry]) -> int:
    return entries[0].training.schedule.steps


def _asha(steps: int) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=STEPS, metric=PROMISE, mode="max", max_t=steps, grace_period=_rung(steps), reduction_factor=ETA
    )


def _sent(entry: Entry) -> tuple[Distillation[Any], Schedule, Callable[[Distillation[Any]], float]]:
    """Return what a worker needs of an entry, besides the examples."""
    lesson: Any = copy.copy(entry.training.lesson)
    lesson.module = copy.deepcopy(lesson.module).cpu()
    lesson.examples = None
    return lesson, entry.training.schedule, entry.promise


def _listener(entries: Sequence[Entry], progress: Progress | None) -> Any:
    """Return what Tune tells of results, and asks whether to stop."""
    from ray import tune
    from ray.tune.stopper import NoopStopper

    whole = len(entries) * _steps(entries)
    streams = sys.stdout, sys.stderr  # people are told there; Tune is not

    class Listener(tune.Stopper):
        """Tells people how far the trainings are; those that stopped early count as done."""

        def __init__(self) -> None:
            self.done: dict[str, int] = {}
            self.ended: BaseException | None = None

        def __reduce__(self) -> Any:
            """Tune writes down what it was given; whom progress is told is nothing that can be written."""
            return NoopStopper, ()

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self.done[trial_id] = result[STEPS]
            return self.ended is not None

        def stop_all(self) -> bool:
            if progress is not None and self.ended is None:
                try:
                    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
                        progress("training side by side", min(sum(self.done.values()) / whole, 1.0))
                except Exception as error:  # the time is over
                    self.ended = error
            return self.ended is not None

    return Listener()


@contextmanager
def _kept_quiet() -> Iterator[None]:
    """Let Tune work without a word of its own."""
    import logging

    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with cluster.quiet():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
