"""python studies/benchmarks/workers.py --zoo ../shared/zoo [painting rlfn_s_x2 ...] [--candidates 24] [--rounds 3]

How much faster are two workers than one, and do they time as the search's own process does?

Random candidates are built and judged by Ray's workers on this machine, by one and by two in turn, each time into an empty
folder; workers have opened the study before. Then some of them are timed by a worker and by this process, in turn as well;
their speedups agree where the difference is within what their 95 % intervals leave open. Prints a Markdown table, the medians
over the rounds. Takes two processors that have nothing else to do.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from searches import study_of
from zoo import load, parser

from slimfront.objectives.protocol import Reading
from slimfront.objectives.ratio import spread
from slimfront.search import cluster
from slimfront.search.evaluate import Evaluator
from slimfront.search.grid import Grid
from slimfront.search.loop import search
from slimfront.search.pace import AT_ONCE
from slimfront.search.pool import OwnProcess, Pool
from slimfront.search.ray_pool import RayPool
from slimfront.search.vectors import draw
from slimfront.search.work import Kind, Told, Work
from slimfront.studies.records import DONE
from slimfront.studies.run import Run
from slimfront.studies.study import Study, load_study
from slimfront.studies.trial import Trial

MODELS = ("painting", "rlfn_s_x2")
TIMED = 12  # candidates
Z = 1.96  # standard deviations of a 95 % interval


def main() -> None:
    """Measure each model and print its line."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--candidates", type=int, default=24)
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_args()
    print("| model | s, one worker | two workers | times as fast | timings that agree |\n|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        os.environ["SLIMFRONT_CACHE"] = str(Path(folder) / "cache")
        for name in arguments.models:
            study = load_study(name) if name == "painting" else study_of(load(arguments.zoo, name), name, 0, {})
            print(line(study, Path(folder) / name, arguments.candidates, arguments.rounds), flush=True)


def line(study: Study, folder: Path, count: int, rounds: int) -> str:
    """Return a model's line of the table."""
    run = search(study, trials=1, run_dir=folder)
    study.prepare_spaces()
    grid = Grid(study.space)
    drawn = draw(grid.lengths, np.random.default_rng(0), count)
    trials = [Trial(number, grid.decode(vector), "started") for number, vector in enumerate(drawn, start=1)]
    with cluster.connected(2, None, study.settings.target.threads):
        opened(study, run, folder / "opened", 2).close()  # both processes have opened the study from now on
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for number in range(rounds):
            for workers in (1, 2):
                pool = opened(study, run, folder / f"models-{number}-{workers}", workers)
                begun = time.perf_counter()
                judged = results_of(pool, [Work(Kind.JUDGE, (trial,)) for trial in trials])
                seconds[workers].append(time.perf_counter() - begun)
                pool.close()
        agree = agreeing(study, run, pool.models, judged)
    one, two = (statistics.median(found) for found in seconds.values())
    ratio = statistics.median(a / b for a, b in zip(seconds[1], seconds[2], strict=True))
    return f"| {study.name} | {one:.1f} | {two:.1f} | {ratio:.2f} | {sum(agree)} of {len(agree)} |"


def opened(study: Study, run: Run, models: Path, workers: int) -> RayPool:
    """Return a pool of so many workers that have opened the study: each has judged the reference."""
    pool = RayPool(Evaluator(study, models, predictor=study.predictor), run.reference, workers)
    results_of(pool, [Work(Kind.JUDGE, (Trial(0, run.reference.candidate, "started"),)) for _ in range(2 * workers)])
    return pool


def results_of(pool: Pool, works: Sequence[Work]) -> list[Told]:
    """Have all work done, as much at once as there is room for."""
    left, told = list(works), []
    while left or pool.busy:
        while left and pool.room:
            pool.submit(left.pop(0))
        told += pool.wait()
    return told


def agreeing(study: Study, run: Run, models: Path, judged: Sequence[Told]) -> list[bool]:
    """Return which of the candidates that were judged have the same speedup, timed by a worker and by this process."""
    files = {
        number: result.sha256
        for told in judged
        for number, result in told.results
        if result.state == DONE and result.sha256
    }
    trials = [replace(trial, sha256=files[trial.number]) for trial in unique(judged) if trial.number in files][:TIMED]
    evaluator = Evaluator(study, models, predictor=study.predictor)
    agree = []
    pool = opened(study, run, models, 2)
    for first in range(0, len(trials), AT_ONCE):
        works = [Work(Kind.TIME, tuple(trials[first : first + AT_ONCE]))]
        there, here = (speedups(results_of(each, works)) for each in (pool, OwnProcess(evaluator)))
        agree += [alike(there[number], here[number]) for number in there]
    pool.close()
    return agree


def unique(judged: Sequence[Told]) -> list[Trial]:
    """Return the trials that were judged, by number."""
    return [trial for _, trial in sorted({told.work.trials[0].number: told.work.trials[0] for told in judged}.items())]


def speedups(found: Sequence[Told]) -> dict[int, Reading]:
    """Return what was timed, by trial."""
    return {number: result.readings["speedup"] for told in found for number, result in told.results}


def alike(there: Reading, here: Reading) -> bool:
    """Whether two speedups differ by no more than their 95 % intervals leave open."""
    return abs(math.log(there.value / here.value)) <= Z * math.hypot(spread(there), spread(here))


if __name__ == "__main__":
    main()
