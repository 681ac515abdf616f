"""python studies/benchmarks/sensitivity.py --zoo ../shared/zoo [taef2_decoder ...] [--runs 120]

Do a few backward passes know what each option costs? For each model the errors of all options (weight bits, pruning ratios)
are predicted, and those of some of them measured, each by a run of ONNX Runtime with that option alone.
Prints, as a Markdown table: how many options, the seconds that predicting takes, in parts of an evaluation as a search makes it
(build, quality, timing), the rank correlation, and by how many decibels predictions are off.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from zoo import Model, load, parser

from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.quality import Quality
from slimfront.objectives.samples import Samples
from slimfront.objectives.timing import Timing
from slimfront.search.start import start_points
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.changes import changes_of
from slimfront.spaces.perturbation import measured_errors
from slimfront.spaces.sensitivity import MOST_SAMPLES, errors_of
from slimfront.spaces.space import Space, make_space
from slimfront.studies.definition import DEFAULT_PRUNING_RATIOS

MODELS = ("taef2_decoder", "rlfn_s_x2", "waifu2x_upconv7_x2", "dncnn_25", "carn_m_x2", "mobilesr_x4", "dcgan_digits")


def main() -> None:
    """Measure and print the table."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--runs", type=int, default=120)
    arguments = flags.parse_args()
    columns = ["model", "options", "predicted in", "evaluations", "measured", "Spearman", "bias", "standard deviation"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in arguments.models:
        print(f"| {name} | {row(load(arguments.zoo, name), arguments)} |", flush=True)


def row(model: Model, arguments: argparse.Namespace) -> str:
    """Return the cells of a model's row."""
    builder = Builder(model.graph, model.calibration)
    space = make_space(model.graph, pruning_ratios=DEFAULT_PRUNING_RATIOS)
    builder.prepare(space.rounded, space.pruned)
    changes = list(changes_of(space))
    for change in changes:
        change.differences(builder)  # rounded and refitted once, as every search does
    begun = time.perf_counter()
    predicted = errors_of(builder, changes)
    took = time.perf_counter() - begun
    evaluation = evaluation_seconds(model, builder, space)

    drawn = np.random.default_rng(0).permutation(len(changes))[: arguments.runs]
    samples = {name: array[: MOST_SAMPLES * model.graph.batch] for name, array in model.calibration.items()}
    asked = [partial(changes[i].differences, builder) for i in drawn]
    measured = measured_errors(builder.equalised, samples, asked)
    off = 10.0 * np.log10(predicted[drawn] / measured)
    found = f"{spearmanr(predicted[drawn], measured)[0]:.3f} | {off.mean():+.1f} dB | {off.std():.1f} dB"
    return f"{len(changes)} | {took:.0f} s | {took / evaluation:.1f} | {len(drawn)} | {found}"


def evaluation_seconds(model: Model, builder: Builder, space: Space) -> float:
    """Return how long an evaluation takes: the median of uniform candidates, built, judged and timed."""
    samples = Samples(model.inputs, model.target if model.has_target else None, model.low, model.high)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.onnx"
        builder.build(Candidate()).save(path)
        reference = OpenModel(path, samples, model.graph.batch)
        for _, candidate in start_points(space)[1:6]:
            begun = time.perf_counter()
            path = Path(folder) / "candidate.onnx"
            builder.build(candidate).save(path)
            subject = Subject(OpenModel(path, samples, model.graph.batch), reference)
            Quality().measure(subject)
            Timing().measure(subject)
            seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
