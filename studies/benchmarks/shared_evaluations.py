"""Evaluations that searches with different samplers share: exact size, real quality, predicted speed, each kept in a folder."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from searches import study_of
from zoo import load

from slimfront.objectives.calibration import calibrate
from slimfront.objectives.predictor_file import take_predictor, write_predictor
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.quality import Quality
from slimfront.objectives.timing import Timing
from slimfront.search.loop import search
from slimfront.search.pace import AT_ONCE
from slimfront.search.proposers import Observation
from slimfront.search.start import start_points
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.changes import changes_of
from slimfront.spaces.errors import BuildError
from slimfront.spaces.sensitivity import errors_of
from slimfront.studies.front import drop_db, point
from slimfront.studies.run import Run
from slimfront.studies.run_folder import use_machine_facts
from slimfront.studies.study import Study, load_study

CALIBRATION_SECONDS = 60.0


@dataclass(frozen=True)
class Found:
    """What an evaluation found; ``seconds`` are those of building, judging and predicting."""

    size: float
    speedup: float
    psnr: float
    fidelity: float
    seconds: float


def prepare(zoo: Path, name: str, folder: Path) -> None:
    """Measure the reference and what the machine offers, and calibrate a predictor, once for all searches."""
    study = open_study(zoo, name)
    (folder / "evaluations").mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    search(study, trials=1, run_dir=run)
    study.prepare_spaces()
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
        study.prepare_spaces()
        take_predictor(study.predictor, folder / "predictor.npz")
        self.study = study
        self.folder = folder / "evaluations"
        self.candidates = folder / "candidates"
        self.candidates.mkdir(exist_ok=True)
        self.run = Run(folder / "run")
        self.temporary = tempfile.TemporaryDirectory()
        reference = self.run.model_path(self.run.reference)
        self.reference = OpenModel(reference, study.evaluation, study.graph.batch)

    def find(self, candidate: Candidate) -> Found:
        """Return what is known of a candidate, evaluated where nobody has."""
        kept = self.folder / f"{candidate.key}.json"
        if not kept.exists():
            found = self._evaluate(candidate)
            _write(kept, asdict(found))
        return Found(**json.loads(kept.read_text()))

    def observe(self, candidate: Candidate) -> Observation:
        """Return what a proposer is told; the candidate itself is kept as well."""
        named = self.candidates / f"{candidate.key}.json"
        if not named.exists():
            _write(named, candidate.to_json())
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

    def known(self, key: str) -> Observation:
        """Return what a proposer was told of the candidate of a key."""
        return self.observe(Candidate.from_json(json.loads((self.candidates / f"{key}.json").read_text())))

    def timed(self, keys: Sequence[str]) -> list[float]:
        """Return the speedups of candidates that were observed, timed for real, each once for all who share the folder."""
        folder = self.folder.parent / "timed"
        folder.mkdir(exist_ok=True)
        missing = [key for key in keys if not (folder / f"{key}.json").exists()]
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            for key, speedup in zip(some, self._time_together(some), strict=True):
                _write(folder / f"{key}.json", speedup)
        return [float(json.loads((folder / f"{key}.json").read_text())) for key in keys]

    def _time_together(self, keys: Sequence[str]) -> list[float]:
        """Time several in turn with one reference."""
        subjects = []
        for key in keys:
            path = Path(self.temporary.name) / f"{key}.onnx"
            self.study.builder.build(self.known(key).candidate).save(path)
            subjects.append(Subject(OpenModel(path, self.study.evaluation, self.study.graph.batch), self.reference))
        return [readings["speedup"].value for readings in Timing().measure_together(subjects)]


def _write(path: Path, content: object) -> None:
    """Write a file whole or not at all, since others may write the same one."""
    part = path.with_suffix(f".{time.monotonic_ns()}.part")
    part.write_text(json.dumps(content))
    part.replace(path)
