"""python studies/benchmarks/samplers.py --zoo ../shared/zoo [rlfn_s_x2 painting ...] [--seeds 3] [--results FOLDER]

How much of the front does each sampler find, over its evaluations? All have the same space, starting points and evaluator:
exact size, real PSNR, predicted latency. An evaluation is made once, whoever asks for it, and kept in the folder, so that a
benchmark that was stopped goes on. Prints the mean hypervolumes over the seeds as a Markdown table, and leaves
MODEL/hypervolumes.csv (sampler, seed, evaluations, hypervolume, seconds a proposal). What the frontier sampler's
sensitivities took is told as evaluations of equal time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from searches import study_of
from zoo import load, parser

from slimfront.objectives.calibration import calibrate
from slimfront.objectives.predictor_file import take_predictor, write_predictor
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.quality import Quality
from slimfront.search.loop import search
from slimfront.search.proposers import Observation, OptunaProposer, Proposer, Task, make_proposer
from slimfront.search.start import start_points
from slimfront.search.task import task_of
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.changes import changes_of
from slimfront.spaces.errors import BuildError
from slimfront.spaces.sensitivity import errors_of
from slimfront.studies.front import drop_db, hypervolume, point
from slimfront.studies.run import Run
from slimfront.studies.run_folder import use_machine_facts
from slimfront.studies.study import Study, load_study

MODELS = ("rlfn_s_x2", "painting", "waifu2x_upconv7_x2")
EVALUATIONS = {"frontier": 120, "tpe": 400, "tpe, each alone": 400, "nsga2": 400, "random": 400, "gp": 60}
SHOWN = (20, 40, 60, 120, 200, 400)
CALIBRATION_SECONDS = 60.0


@dataclass(frozen=True)
class Found:
    """What an evaluation found; ``seconds`` are those of building, judging and predicting."""

    size: float
    speedup: float
    psnr: float
    fidelity: float
    seconds: float


def main() -> None:
    """Search with every sampler and print the table."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--samplers", nargs="+", choices=list(EVALUATIONS), default=list(EVALUATIONS))
    flags.add_argument("--most", type=int, default=max(EVALUATIONS.values()), help="evaluations of each search")
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--results", type=Path, required=True, help="a folder that keeps all that is found")
    arguments = flags.parse_args()
    print(f"| model | sampler | {' | '.join(map(str, SHOWN))} | ms a proposal |\n|{'---|' * (len(SHOWN) + 3)}")
    for name in arguments.models:
        folder = arguments.results / name
        os.environ["SLIMFRONT_CACHE"] = str((folder / "cache").resolve())  # so that nothing is known beforehand
        prepare(arguments.zoo, name, folder)
        tasks = [(sampler, seed) for sampler in arguments.samplers for seed in range(arguments.seeds)]
        with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
            searched = partial(curve, arguments.zoo, name, folder, arguments.most)
            table = pd.concat(pool.starmap(searched, tasks, chunksize=1))
        table.to_csv(folder / "hypervolumes.csv", index=False)
        for line in rows(table):
            print(f"| {name} | {line} |", flush=True)
        probing = json.loads((folder / "probing.json").read_text())
        print(f"| {name} | sensitivities: {probing['seconds']:.0f} s, {probing['evaluations']:.0f} evaluations |")


def prepare(zoo: Path, name: str, folder: Path) -> None:
    """Measure the reference and what the machine offers, and calibrate a predictor, once for all searches."""
    study = open_study(zoo, name)
    (folder / "evaluations").mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    search(study, trials=1, run_dir=run)
    study.prepare(study.space.rounded, study.space.pruned)
    if not (folder / "predictor.npz").exists():
        calibrate(study.predictor, study.space, study.feed, CALIBRATION_SECONDS)
        write_predictor(study.predictor, folder / "predictor.npz")
    if not (folder / "probing.json").exists():
        begun = time.perf_counter()
        errors_of(study.builder, list(changes_of(study.space)))  # never from the cache
        seconds = time.perf_counter() - begun
        evaluator = Evaluations(study, folder)
        each = np.median([evaluator.find(candidate).seconds for _, candidate in start_points(study.space)[1:]])
        about = {"seconds": seconds, "evaluations": seconds / float(each)}
        (folder / "probing.json").write_text(json.dumps(about))


def open_study(zoo: Path, name: str) -> Study:
    """Return a ready-made study, or that of a zoo's model."""
    return load_study(name) if name == "painting" else study_of(load(zoo, name), name, 0, {})


class Evaluations:
    """Evaluates candidates of a study, each once for all who share the folder."""

    def __init__(self, study: Study, folder: Path) -> None:
        use_machine_facts(folder / "run", study)
        study.prepare(study.space.rounded, study.space.pruned)
        take_predictor(study.predictor, folder / "predictor.npz")
        self.study = study
        self.folder = folder / "evaluations"
        self.run = Run(folder / "run")
        self.temporary = tempfile.TemporaryDirectory()
        reference = self.run.model_path(self.run.reference)
        self.reference = OpenModel(reference, study.evaluation, study.graph.batch)

    def find(self, candidate: Candidate) -> Found:
        """Return what is known of a candidate, evaluated where nobody has."""
        kept = self.folder / f"{candidate.key}.json"
        if not kept.exists():
            found = self._evaluate(candidate)
            part = kept.with_suffix(f".{time.monotonic_ns()}.part")
            part.write_text(json.dumps(asdict(found)))
            part.replace(kept)
        return Found(**json.loads(kept.read_text()))

    def observe(self, candidate: Candidate) -> Observation:
        """Return what a proposer is told."""
        try:
            found = self.find(candidate)
        except BuildError:
            return Observation(candidate, None)
        reference = self.run.reference
        drop = drop_db(found.psnr, found.fidelity, reference.value("psnr_db"), self.run.has_target)
        ratio = found.size / reference.value("size_bytes")
        return Observation(candidate, point(ratio, found.speedup, drop, self.run.has_target))

    def _evaluate(self, candidate: Candidate) -> Found:
        begun = time.perf_counter()
        study = self.study
        built = study.builder.build(candidate)
        path = Path(self.temporary.name) / "candidate.onnx"
        built.save(path)
        opened = OpenModel(path, study.evaluation, study.graph.batch)
        quality = {key: reading.value for key, reading in Quality().measure(Subject(opened, self.reference)).items()}
        speedup = 1.0 if candidate == Candidate() else study.predictor.predict(candidate).speedup
        psnr, fidelity = quality.get("psnr_db", quality["fidelity_db"]), quality["fidelity_db"]
        return Found(built.size_bytes, speedup, psnr, fidelity, time.perf_counter() - begun)


class EachAlone(OptunaProposer):
    """TPE as Optuna has it by default: each parameter on its own."""

    def _sampler(self, asked: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=self._seed(asked), multivariate=False)


def proposer_of(sampler: str, task: Task) -> Proposer:
    """Return a proposer by the name that this benchmark gives it."""
    return EachAlone("tpe", task) if sampler == "tpe, each alone" else make_proposer(sampler, task)


def curve(zoo: Path, name: str, folder: Path, most: int, sampler: str, seed: int) -> pd.DataFrame:
    """Search once; return the hypervolume after each evaluation, from the folder where it was finished before."""
    count = min(EVALUATIONS[sampler], most)
    kept = folder / f"{sampler.replace(', ', '-').replace(' ', '-')}-{seed}-{count}.csv"
    if kept.exists():
        return pd.read_csv(kept)
    evaluations = Evaluations(open_study(zoo, name), folder)
    study = evaluations.study
    proposer = proposer_of(sampler, task_of(study, evaluations.run, sampler, seed))
    history: list[Observation] = []
    lines = []
    starting = [candidate for _, candidate in start_points(study.space)]
    while len(history) < count:
        begun = time.perf_counter()
        ahead = starting[len(history) : len(history) + 1]
        candidate = ahead[0] if ahead else next(iter(proposer.propose(history, 1)), None)
        proposing = time.perf_counter() - begun
        if candidate is None:
            break
        history.append(evaluations.observe(candidate))
        points = [observation.point for observation in history if observation.point is not None]
        lines.append((name, sampler, seed, len(history), hypervolume(points), proposing, candidate.key))
    columns = ["model", "sampler", "seed", "evaluations", "hypervolume", "seconds", "candidate"]
    table = pd.DataFrame(lines, columns=columns)
    part = kept.with_suffix(".part")
    table.to_csv(part, index=False)
    part.replace(kept)
    return table


def rows(table: pd.DataFrame) -> Sequence[str]:
    """Return a line for each sampler: the mean hypervolume over the seeds after so many evaluations."""
    lines = []
    for sampler, some in table.groupby("sampler", sort=False):
        means = some.groupby("evaluations").hypervolume.mean()
        cells = [f"{means[count]:.4f}" if count in means.index else "" for count in SHOWN]
        proposing = 1000.0 * some[some.evaluations > 20].seconds.mean()
        lines.append(f"{sampler} | {' | '.join(cells)} | {proposing:.0f}")
    return lines


if __name__ == "__main__":
    main()
