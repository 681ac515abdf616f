"""python studies/benchmarks/latency.py --zoo ../shared/zoo [taef2_decoder ...] [--candidates 60] [--seconds 60]

How well does the latency predictor know candidates that it has not seen? For each model it starts from nothing, learns the
machine for at most a minute, and predicts random candidates (bits, activation bits, ratios), which are then built and timed
in turn with the reference. Prints, as a Markdown table: candidates whose kernel list is that of ONNX Runtime's own graph,
errors, rank correlation, how many lie within the stated 90 % interval, and predictions a second.
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
from scipy.stats import spearmanr
from zoo import Model, load, parser

from slimfront.objectives.calibration import calibrate
from slimfront.objectives.predictor import Prediction, Predictor
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import OnnxRuntime
from slimfront.objectives.timing import Timing
from slimfront.search.grid import Grid
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.session import batches
from slimfront.spaces.space import make_space
from slimfront.studies.definition import DEFAULT_PRUNING_RATIOS

MODELS = ("taef2_decoder", "rlfn_s_x2", "waifu2x_upconv7_x2", "dncnn_25", "carn_m_x2")


@dataclass(frozen=True)
class Row:
    """One held-out candidate: what was predicted and timed, and whether the kernels were the right ones."""

    prediction: Prediction
    speedup: float
    same_kernels: bool


def main() -> None:
    """Measure and print the table."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--candidates", type=int, default=60)
    flags.add_argument("--seconds", type=float, default=60.0)
    arguments = flags.parse_args()
    print("| model | calibration | same kernels | within 10 % | within 5 % | Spearman | in the 90 % interval | half of it "
          "| speedups | predictions a second |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        print(f"| {name} | {measured(load(arguments.zoo, name), arguments)} |", flush=True)


def measured(model: Model, arguments: argparse.Namespace) -> str:
    """Return the cells of a model's row."""
    builder = Builder(model.graph, model.calibration)
    space = make_space(model.graph, pruning_ratios=DEFAULT_PRUNING_RATIOS)
    builder.prepare(space.rounded, space.pruned)
    predictor = Predictor(builder, OnnxRuntime(f"benchmark {os.getpid()} {time.time()}"))  # knows no machine yet
    begun = time.monotonic()
    profiled = calibrate(predictor, space, next(batches(model.calibration, model.graph.batch)), arguments.seconds)
    took = time.monotonic() - begun
    grid = Grid(space)
    drawn = [grid.decode(vector) for vector in grid.random(np.random.default_rng(1), arguments.candidates)]
    begun = time.monotonic()
    predictions = [predictor.predict(candidate) for candidate in drawn]
    rate = len(drawn) / (time.monotonic() - begun)
    with tempfile.TemporaryDirectory() as folder:
        rows = held_out(model, predictor, list(zip(drawn, predictions, strict=True)), Path(folder))
    return " | ".join([f"{profiled} in {took:.0f} s", *cells(rows), f"{rate:,.1f}"])


def held_out(
    model: Model, predictor: Predictor, drawn: Sequence[tuple[Candidate, Prediction]], folder: Path
) -> list[Row]:
    """Build and time the candidates."""
    builder = predictor.builder
    samples = Samples(model.inputs, None, model.low, model.high)
    shapes = {port.name: port.shape for port in model.graph.inputs}
    builder.build(Candidate()).save(folder / "reference.onnx")
    reference = OpenModel(folder / "reference.onnx", samples, model.graph.batch)
    rows = []
    for candidate, prediction in drawn:
        path = folder / "candidate.onnx"
        builder.build(candidate).save(path)
        real = Counter(kernel.key for kernel in predictor.target.kernels(path, shapes))
        timed = Timing().measure(Subject(OpenModel(path, samples, model.graph.batch), reference))
        rows.append(Row(prediction, timed["speedup"].value, real == predictor.kernels(candidate)))
    return rows


def cells(rows: Sequence[Row]) -> list[str]:
    """Return what was found of all candidates."""
    predicted, timed = (
        np.array([value(row) for row in rows]) for value in (lambda r: r.prediction.speedup, lambda r: r.speedup)
    )
    off = np.abs(predicted / timed - 1.0)
    inside = [row.prediction.low <= row.speedup <= row.prediction.high for row in rows]
    widths = [(row.prediction.high - row.prediction.low) / (2 * row.prediction.speedup) for row in rows]
    return [
        f"{sum(row.same_kernels for row in rows)} of {len(rows)}",
        f"{np.mean(off <= 0.10):.0%}",
        f"{np.mean(off <= 0.05):.0%}",
        f"{spearmanr(predicted, timed)[0]:.3f}",
        f"{np.mean(inside):.0%}",
        f"{np.mean(widths):.1%}",
        f"{timed.min():.2f}–{timed.max():.2f}",
    ]


if __name__ == "__main__":
    main()
