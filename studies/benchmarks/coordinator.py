"""python studies/benchmarks/coordinator.py [--trials 20000] [--workers 500] [--layers 100]

How many trials does the coordinator tell a second, where its workers only sleep? The study, its space, records, front and
sampler are real; what workers would find is drawn. Prints for each part of the search the trials told a second and the
coordinator's own time for each, then the memory taken, the size of the records and how long the run takes to open.
"""

from __future__ import annotations

import argparse
import heapq
import os
import resource
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimfront.objectives.protocol import Reading
from slimfront.search import loop, preparation
from slimfront.search.evaluate import Evaluator, StageResult
from slimfront.search.pool import Crew
from slimfront.search.work import Kind, Results, Told, Work
from slimfront.studies.run import Run
from slimfront.studies.standing import Doing, Standing
from slimfront.studies.study import Study
from slimfront.studies.trial import Trial

PARTS = 10
SECONDS = 0.5  # that a piece of work sleeps, in the mean
CHANNELS = 4


def main() -> None:
    """Search, then open the run."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--trials", type=int, default=20_000)
    flags.add_argument("--workers", type=int, default=500)
    flags.add_argument("--layers", type=int, default=100)
    flags.add_argument("--sampler", default="random")
    flags.add_argument("--storage")
    arguments = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLIMFRONT_CACHE"] = str(Path(folder) / "cache")
        study = deep_study(Path(folder), arguments.layers)
        print(f"{len([axis for axis in study.space.axes if len(axis.options) > 1])} parameters")
        watch = Watch(arguments.trials, arguments.workers)
        loop._crew = watch.crew  # type: ignore[assignment]
        preparation.LEAST_CALIBRATED = arguments.trials + 1  # what workers find is drawn: nothing is to be predicted
        run_dir = Path(folder) / "run"
        storage = arguments.storage
        loop.search(study, arguments.trials, run_dir, sampler=arguments.sampler, storage=storage, progress=watch)
        print("\n".join(watch.lines()))
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        size = sum(path.stat().st_size for path in run_dir.glob("*.jsonl")) / 1e6
        begun = time.perf_counter()
        run = Run(run_dir)
        volume, front = run.hypervolume(), len(run.front_trials())
        seconds = time.perf_counter() - begun
    print(
        f"memory {megabytes:.0f} MB, records {size:.0f} MB, opened in {seconds:.1f} s: {front} on the front, {volume:.3f}"
    )


def deep_study(folder: Path, layers: int, channels: int = CHANNELS) -> Study:
    """Return a study of so many small convolutions one after another."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for number in range(layers):
        weight = random.standard_normal((channels, channels, 1, 1)).astype(np.float32) / channels**0.5
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        source = f"conv{number - 1}" if number else "x"
        nodes.append(helper.make_node("Conv", [source, f"w{number}"], [f"conv{number}"], f"conv{number}"))
    shape = [1, channels, 8, 8]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", f"conv{layers - 1}")]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:], weights)
    path = folder / "deep.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    samples = random.random((4, *shape[1:]), dtype=np.float32)
    return Study(path, samples[:2], samples[2:], name="deep", activation_bits=(32,), pruning_ratios=(0.0,))


class Sleeping:
    """Workers that sleep, and then tell of what was drawn for their candidates."""

    gathered = 6
    timers = 6

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.notes: list[str] = []
        self.environments: dict[str, dict[str, object]] = {}
        self.slept = 0.0
        self._random = np.random.default_rng(0)
        self._due: list[tuple[float, int, Work]] = []

    @property
    def room(self) -> int:
        """Workers that are idle."""
        return self.workers - len(self._due)

    @property
    def busy(self) -> int:
        """Workers that sleep."""
        return len(self._due)

    @property
    def doing(self) -> list[Doing]:
        """They sleep."""
        return [Doing("sleeping", work.kind, work.numbers, 0.0) for _, _, work in self._due]

    def submit(self, work: Work) -> None:
        """Let a worker sleep."""
        ends = time.monotonic() + self._random.exponential(SECONDS)
        heapq.heappush(self._due, (ends, id(work), work))

    def wait(self) -> list[Told]:
        """Return what those that are awake have found."""
        now = time.monotonic()
        if self._due[0][0] > now:
            self.slept += self._due[0][0] - now
            time.sleep(self._due[0][0] - now)
            now = time.monotonic()
        told = []
        while self._due and self._due[0][0] <= now:
            work = heapq.heappop(self._due)[2]
            told += [Told(work, drawn(work), node="sleeping"), Told(work, over=True, node="sleeping")]
        return told

    def teach(self) -> None:
        """They learn nothing."""

    def close(self) -> None:
        """They are gone."""


def drawn(work: Work) -> Results:
    """Return stages of trials whose readings follow from their candidates' keys."""
    found = []
    for trial in work.trials:
        sha256 = f"{trial.candidate.key:0<64}"
        bits = np.array([choice.weight_bits for choice in trial.candidate.layers.values()] or [32])
        noise = np.random.default_rng(int(trial.candidate.key[:12], 16)).random(2)
        readings = {
            "build": {"size_bytes": Reading(50.0 * bits.sum(), "bytes")},
            "quality": {name: Reading(20.0 + bits.mean() + noise[0], "dB") for name in ("psnr_db", "fidelity_db")},
            "timing": {
                "speedup": Reading(1.0 + noise[1], "x", 0.99 + noise[1], 1.01 + noise[1]),
                "reference_ms": Reading(10.0, "ms"),
            },
        }
        stages = ("build", "quality") if work.kind is Kind.JUDGE else ("timing",)
        found += [(trial.number, StageResult(stage, "done", sha256, readings[stage])) for stage in stages]
    return tuple(found)


class Watch:
    """Notes how fast trials are told."""

    def __init__(self, trials: int, workers: int) -> None:
        self.every = max(trials // PARTS, 1)
        self.workers = workers
        self.stops: list[tuple[int, float, float]] = []
        self.pool: Sleeping | None = None

    def crew(self, *_: object) -> AbstractContextManager[Crew]:
        """Give what opens the pool."""

        def open_pool(evaluator: Evaluator, reference: Trial) -> Sleeping:
            self.pool = Sleeping(self.workers)
            self.stops.append((1, time.perf_counter(), 0.0))
            return self.pool

        return nullcontext(Crew(open_pool))  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """Nobody reads it."""

    def prepare(self, text: str, fraction: float) -> None:
        """Nobody reads it."""

    def step(self, done: int, total: int, *more: object) -> None:
        """Take the time now and then."""
        if self.pool is not None and done >= self.stops[-1][0] + self.every:
            self.stops.append((done, time.perf_counter(), self.pool.slept))

    def standing(self, standing: Standing) -> None:
        """Nobody looks at it."""

    def lines(self) -> list[str]:
        """Return what was noted."""
        found = ["| trials | told a second | ms of the coordinator for each |", "|---|---|---|"]
        for (before, begun, slept), (after, ended, slept_after) in zip(self.stops, self.stops[1:], strict=False):
            count, seconds = after - before, ended - begun
            own = 1e3 * (seconds - (slept_after - slept)) / count
            found.append(f"| {before} to {after} | {count / seconds:.0f} | {own:.2f} |")
        return found


if __name__ == "__main__":
    main()
