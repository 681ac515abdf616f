"""python studies/benchmarks/agreement.py --zoo ../shared/zoo [taef2_decoder] [--trials 60] [--timings 3]

Do two searches of the same study agree? Searches twice with the same seed, times the files of both fronts again, and prints,
as a Markdown table: both hypervolumes from the later timings and what they differ by, how many of each front are still not
dominated beyond the intervals, the rank correlation of later and first speedups, and how many trials were timed at all.
Files of both fronts are timed in random order, several in turn with one reference; one that lies on both is timed as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr
from searches import folder_of_runs, run_of, search_parser
from zoo import Model, load

from slimfront.objectives.protocol import OpenModel, Reading, Subject
from slimfront.objectives.ratio import pooled
from slimfront.objectives.reference_times import ReferenceTimes
from slimfront.objectives.samples import Samples
from slimfront.objectives.timing import Timing
from slimfront.search.pace import AT_ONCE
from slimfront.studies import front
from slimfront.studies.run import Run


def main() -> None:
    """Search, time again and print the table."""
    flags = search_parser(__doc__ or "", ["taef2_decoder"], trials=60)
    flags.add_argument("--timings", type=int, default=3, help="of each file, afterwards")
    arguments = flags.parse_args()
    print("| model | run | timed | hypervolume | timed again | differ by | still on the front | Spearman |")
    print("|---|---|---|---|---|---|---|---|")
    with folder_of_runs(arguments.runs) as folder:
        for name in arguments.models:
            model = load(arguments.zoo, name)
            runs = [run_of(model, name, 0, arguments.trials, folder / f"{name}-{which}", {}) for which in "ab"]
            later = timed_again(runs, model, arguments.timings)
            again = [{t.number: later[t.sha256] for t in run.front_trials() if t.sha256 in later} for run in runs]
            volumes = [volume(run, found) for run, found in zip(runs, again, strict=True)]
            differ = f"{abs(volumes[0] / volumes[1] - 1.0):.1%}"
            for which, run, found, whole in zip("ab", runs, again, volumes, strict=True):
                timed = f"{sum(trial.measured for trial in run.trials)} of {len(run.trials)}"
                numbers = f"{run.hypervolume():.4f} | {whole:.4f} | {differ}"
                kept = f"{standing(run, found):.0%} | {correlation(run, found):.3f}"
                print(f"| {name} | {which} | {timed} | {numbers} | {kept} |", flush=True)


def timed_again(runs: Sequence[Run], model: Model, timings: int) -> dict[str, Reading]:
    """Time the files of the runs' fronts again; return the speedups by a file's hash."""
    files = {
        trial.sha256: run.model_path(trial)
        for run in runs
        for trial in run.front_trials()
        if trial.number != run.reference.number
    }
    samples, batch = Samples(model.inputs, None, model.low, model.high), model.graph.batch
    reference = OpenModel(runs[0].model_path(runs[0].reference), samples, batch)
    known = ReferenceTimes(runs[0].load().environment.machine, model.graph.digest)
    found: dict[str, list[Reading]] = {sha256: [] for sha256 in files}
    random = np.random.default_rng(0)
    for _ in range(timings):
        for some in batches(random.permutation(list(files)).tolist()):
            subjects = [Subject(OpenModel(files[sha256], samples, batch), reference, known.needed) for sha256 in some]
            readings = Timing().measure_together(subjects)
            known.add(readings[0]["reference_ms"].value / 1000.0)
            for sha256, each in zip(some, readings, strict=True):
                found[sha256].append(each["speedup"])
    return {sha256: pooled(readings) for sha256, readings in found.items()}


def batches(names: Sequence[str]) -> list[Sequence[str]]:
    """Return the files that are timed in turn with one another."""
    return [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]


def point(run: Run, number: int, speedup: Reading) -> tuple[float, float, float]:
    """Return a trial's point with the later timing."""
    size, _, drop = run.point(run.trial(number))
    return size, 1.0 / speedup.value, drop


def volume(run: Run, again: Mapping[int, Reading]) -> float:
    """Return the hypervolume of a front by the later timings."""
    return front.hypervolume([point(run, number, reading) for number, reading in again.items()])


def standing(run: Run, again: Mapping[int, Reading]) -> float:
    """Return the part of a front that no other member dominates beyond the intervals of the later timings."""
    points = [point(run, number, reading) for number, reading in again.items()]
    fastest = [1.0 / (reading.high or reading.value) for reading in again.values()]
    slowest = [1.0 / (reading.low or reading.value) for reading in again.values()]
    return float(1.0 - front.surely_dominated(points, fastest, slowest).mean())


def correlation(run: Run, again: Mapping[int, Reading]) -> float:
    """Return Spearman's rank correlation of the later timings with the run's."""
    first = [run.trial(number).value("speedup") for number in again]
    return float(spearmanr(first, [reading.value for reading in again.values()])[0])


if __name__ == "__main__":
    main()
