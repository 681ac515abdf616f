"""python studies/benchmarks/polish.py --zoo ../shared/zoo [taef2_decoder ...] [--minutes 10] [--threads 2] [--seed 0]

What does a short training gain? Two candidates of each model, all layers at 4/8 and half of all channels away at 8/8, are
trained by distillation on the calibration data for as many steps as the minutes allow, and judged before and after on the
evaluation data, which is not seen. All is measured on the ONNX files. Prints a Markdown table.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from searches import study_of
from zoo import load, parser

from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.quality import Quality
from slimfront.search.polish import lesson_of
from slimfront.search.training import Schedule, Training
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.studies.holdings import OpenHoldings
from slimfront.studies.study import Study, load_study

PROBED = 3  # steps that tell how long one takes
RATIO = 0.5


def main() -> None:
    """Train each model's candidates and print the table."""
    flags = parser(__doc__ or "", ("taef2_decoder",))
    flags.add_argument("--minutes", type=float, default=10.0)
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--seed", type=int, default=0)
    arguments = flags.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        "| model | candidate | bytes | before, dB | after, dB | gained | steps | minutes |\n|---|---|---|---|---|---|---|---|"
    )
    with TemporaryDirectory() as folder:
        for name in arguments.models:
            study = load_study(name) if name == "painting" else study_of(load(arguments.zoo, name), name, 0, {})
            for title, candidate in candidates(study):
                told = gain(study, candidate, 60.0 * arguments.minutes, arguments.seed, Path(folder))
                print(f"| {name} | {title} | {' | '.join(told)} |", flush=True)


def candidates(study: Study) -> Sequence[tuple[str, Candidate]]:
    """Return what is trained."""
    layers = study.graph.layers
    groups = {name: RATIO for name, ratios in study.space.ratios.items() if RATIO in ratios}
    four, eight = (dict.fromkeys(layers, LayerChoice(bits, 8)) for bits in (4, 8))
    return [("4/8", Candidate(four)), (f"8/8, pruned {RATIO:g}", Candidate(eight, groups))]


def gain(study: Study, candidate: Candidate, seconds: float, seed: int, folder: Path) -> Sequence[str]:
    """Return a candidate's size, quality before and after, and what the training was."""
    study.prepare([candidate])
    before = quality(study, candidate, folder)
    training = begun(study, candidate, Schedule(10 * PROBED, seed=seed), folder)
    started = time.perf_counter()
    for _ in range(PROBED):
        training._one_step()
    each = (time.perf_counter() - started) / PROBED
    steps = max(1, int(seconds / each))
    started = time.perf_counter()
    training = begun(study, candidate, Schedule(steps, seed=seed), folder)
    training.run()
    took = time.perf_counter() - started
    study.builder.holdings = holdings = OpenHoldings(folder)
    weights = holdings.keep_trained(training.lesson.module.trained())  # type: ignore[operator]
    after = quality(study, replace(candidate, weights=weights), folder)
    size = f"{study.builder.build(candidate).size_bytes:,}"
    return size, f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}", f"{steps:,}", f"{took / 60:.1f}"


def begun(study: Study, candidate: Candidate, schedule: Schedule, folder: Path) -> Training:
    """Return a training from its beginning."""
    checkpoint = folder / "training" / "checkpoint.pt"
    checkpoint.unlink(missing_ok=True)
    lesson = lesson_of(study, candidate)
    return Training(lesson, schedule.for_layers(len(lesson.graph.layers)), checkpoint)


def quality(study: Study, candidate: Candidate, folder: Path) -> float:
    """Return the PSNR of a candidate's file on the evaluation data, in dB."""
    path = folder / "candidate.onnx"
    opened = []
    for each in (Candidate(), candidate):
        study.builder.build(each).save(path)
        opened.append(OpenModel(path, study.evaluation, study.graph.batch))
        _ = opened[-1].session  # read before the file is written anew
    reference, model = opened
    return Quality().measure(Subject(model, reference))["psnr_db"].value


if __name__ == "__main__":
    main()
