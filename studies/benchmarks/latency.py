"""python studies/benchmarks/latency.py --zoo ../shared/zoo [taef2_decoder ...] [--candidates 60] [--seconds 60]

How well does the latency predictor know candidates that it has not seen? For each model it starts from nothing, learns the
machine for at most a minute, and predicts random candidates (bits, activation bits, ratios), which are then built and timed
in turn with the reference. Prints, as a Markdown table: candidates whose kernel list is that of ONNX Runtime's own graph,
errors, rank correlation, how many lie within the stated 90 % interval, and half of that; then the same of rapid predictions,
and how many of these it makes a second. A timing is itself uncertain: "half of timed" is half its 95 % interval.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from zoo import Model, load, parser

from slimfront.objectives.calibration import calibrate
from slimfront.objectives.predictor import Prediction, Predictor
from slimfront.objectives.protocol import OpenModel, Reading, Subject
from slimfront.objectives.rapid import RapidPredictor, Speedups
from slimfront.objectives.reference_times import ReferenceTimes
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import OnnxRuntime
from slimfront.objectives.timing import Timing
from slimfront.search.grid import Grid
from slimfront.search.vectors import draw
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.session import batches
from slimfront.spaces.space import make_space
from slimfront.studies.definition import DEFAULT_PRUNING_RATIOS

MODELS = ("taef2_decoder", "rlfn_s_x2", "waifu2x_upconv7_x2", "dncnn_25", "carn_m_x2")


MANY = 10_000  # candidates, to see how many are predicted a second


@dataclass(frozen=True)
class Row:
    """One held-out candidate: what was timed, and whether the kernels were the right ones."""

    timed: Reading
    same_kernels: bool


def main() -> None:
    """Measure and print the table."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--candidates", type=int, default=60)
    flags.add_argument("--seconds", type=float, default=60.0)
    arguments = flags.parse_args()
    columns = ["model", "speedups", "half of timed", "predictor", "calibration", "same kernels", *COLUMNS, "a second"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in arguments.models:
        for line in measured(load(arguments.zoo, name), arguments):
            print(f"| {name} | {line} |", flush=True)


def measured(model: Model, arguments: argparse.Namespace) -> list[str]:
    """Return the cells of a model's two rows."""
    builder = Builder(model.graph, model.calibration)
    space = make_space(model.graph, pruning_ratios=DEFAULT_PRUNING_RATIOS)
    builder.prepare(space.rounded, space.pruned)
    machine = f"benchmark {os.getpid()} {time.time()}"  # nothing is known of it yet
    predictor = Predictor(builder, OnnxRuntime(machine))
    begun = time.monotonic()
    profiled = calibrate(predictor, space, next(batches(model.calibration, model.graph.batch)), arguments.seconds)
    took = time.monotonic() - begun
    rapid = RapidPredictor(predictor)
    begun = time.monotonic()
    rapid.learn(space)
    learned = f"{len(predictor.samples)} met, {time.monotonic() - begun:.0f} s more"

    grid = Grid(space)
    drawn = [grid.decode(vector) for vector in draw(grid.lengths, np.random.default_rng(1), arguments.candidates)]
    quick = rapid.predict(drawn)
    begun = time.monotonic()
    predictions = [predictor.predict(candidate) for candidate in drawn]
    exact_rate = len(drawn) / (time.monotonic() - begun)
    many = [grid.decode(vector) for vector in draw(grid.lengths, np.random.default_rng(2), MANY)]
    begun = time.monotonic()
    rapid.predict(many)
    rapid_rate = len(many) / (time.monotonic() - begun)

    with tempfile.TemporaryDirectory() as folder:
        rows = held_out(model, predictor, drawn, ReferenceTimes(machine, model.graph.digest), Path(folder))
    timed = np.array([row.timed.value for row in rows])
    half = np.mean([((row.timed.high or 0.0) - (row.timed.low or 0.0)) / (2 * row.timed.value) for row in rows])
    truth = f"{timed.min():.2f}–{timed.max():.2f} | {half:.1%}"
    same = f"{sum(row.same_kernels for row in rows)} of {len(rows)}"
    exactly = " | ".join([f"kernels | {profiled} in {took:.0f} s | {same}", *cells(as_arrays(predictions), timed)])
    rapidly = " | ".join([f"rapid | {learned} | ", *cells(quick, timed)])
    return [f"{truth} | {exactly} | {exact_rate:,.1f}", f" |  | {rapidly} | {rapid_rate:,.0f}"]


def as_arrays(predictions: Sequence[Prediction]) -> Speedups:
    """Return single predictions as arrays."""
    return Speedups(*(np.array([getattr(each, name) for each in predictions]) for name in ("speedup", "low", "high")))


def held_out(
    model: Model, predictor: Predictor, drawn: Sequence[Candidate], known: ReferenceTimes, folder: Path
) -> list[Row]:
    """Build and time the candidates."""
    builder = predictor.builder
    samples = Samples(model.inputs, None, model.low, model.high)
    shapes = {port.name: port.shape for port in model.graph.inputs}
    builder.build(Candidate()).save(folder / "reference.onnx")
    reference = OpenModel(folder / "reference.onnx", samples, model.graph.batch)
    rows = []
    for candidate in drawn:
        path = folder / "candidate.onnx"
        builder.build(candidate).save(path)
        real = Counter(kernel.key for kernel in predictor.target.kernels(path, shapes))
        timed = Timing().measure(Subject(OpenModel(path, samples, model.graph.batch), reference, known.needed))
        known.add(timed["reference_ms"].value / 1000.0)
        rows.append(Row(timed["speedup"], real == predictor.kernels(candidate)))
    return rows


COLUMNS = ("within 10 %", "within 5 %", "Spearman", "bias", "in the 90 % interval", "half of it")


def cells(predicted: Speedups, timed: NDArray[np.float64]) -> list[str]:
    """Return what was found of all candidates, `COLUMNS`."""
    off = predicted.speedup / timed - 1.0
    return [
        f"{np.mean(np.abs(off) <= 0.10):.0%}",
        f"{np.mean(np.abs(off) <= 0.05):.0%}",
        f"{spearmanr(predicted.speedup, timed)[0]:.3f}",
        f"{np.mean(off):+.1%}",
        f"{np.mean((predicted.low <= timed) & (timed <= predicted.high)):.0%}",
        f"{np.mean((predicted.high - predicted.low) / (2 * predicted.speedup)):.1%}",
    ]


if __name__ == "__main__":
    main()
