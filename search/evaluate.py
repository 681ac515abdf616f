"""From a candidate to its readings: build, then quality, then timing, each told as it finishes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..objectives.agreement import Agreement
from ..objectives.predictor import Lesson, Prediction, Predictor
from ..objectives.protocol import Objective, OpenModel, Reading, Subject
from ..objectives.quality import Quality
from ..objectives.reference_times import ReferenceTimes
from ..objectives.size import Size
from ..objectives.target import OnnxRuntime, Target
from ..objectives.timing import Timing
from ..spaces.build import Built, built_hash
from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError, InputError
from ..spaces.statistics import Progress
from ..studies.criteria import readings_of
from ..studies.reading_notes import reading_notes
from ..studies.records import DONE, FAILED, PREDICTED
from ..studies.run_folder import model_file, save_model_file
from ..studies.study import Study
from ..studies.trial import GLANCE, Trial
from .glance import Look

TIMING = "timing"


@dataclass(frozen=True)
class StageResult:
    """A finished stage.

    Attributes:
        stage: its name.
        state: "done", "failed" or "predicted".
        sha256: of the file that it was measured on.
        readings: by name.
        reason: why it failed, or was not done.
        seconds: what it took.
        lesson: what a timing teaches the predictor.
    """

    stage: str
    state: str
    sha256: str
    readings: dict[str, Reading] = field(default_factory=dict)
    reason: str | None = None
    seconds: float = 0.0
    lesson: Lesson | None = None


class Evaluator:
    """Builds and measures candidates of a study; the reference is opened once and kept.

    Args:
        study: with its builder prepared.
        models: a folder for the model files.
        objectives: what is measured after building, each a stage under its name.
        predictor: predicts each candidate's speedup first.
    """

    def __init__(
        self, study: Study, models: Path, objectives: Sequence[Objective] = (), predictor: Predictor | None = None
    ) -> None:
        self.study = study
        self.models = models
        self.predictor = predictor
        self.objectives = tuple(objectives) or default_objectives(study.target, study.further.objectives)
        self.reference_times = ReferenceTimes(study.environment.machine, study.graph.digest)
        self._latest: tuple[str, OpenModel] | None = None  # judged last, often timed next

    def path(self, candidate: Candidate) -> Path:
        """Return where the candidate's file lies."""
        return model_file(self.models, candidate, self.study.rules.format)

    @cached_property
    def reference(self) -> OpenModel:
        """The uncompressed model, opened."""
        path = self.path(Candidate())
        if not path.exists():
            save_model_file(self.study.builder.build(Candidate()), path)
        return self._open(Candidate())

    def judge(
        self, candidate: Candidate, known: Trial | None = None, look: Look | None = None
    ) -> Iterator[StageResult]:
        """Yield each stage before timing that ``known`` has not finished yet, as it finishes; the last one where one fails.

        Args:
            candidate: what to predict, build and judge.
            known: what was found before.
            look: tells whether a candidate is hopeless by its first images; then it is not judged on all.

        Raises:
            InputError: the disk cannot be written to; nothing of the candidate's is lost by it.
        """
        found = dict(known.readings) if known else {}
        for result in self._stages(candidate, known, look, found):
            found.update(result.readings)
            yield result

    def _stages(
        self, candidate: Candidate, known: Trial | None, look: Look | None, found: Mapping[str, Reading]
    ) -> Iterator[StageResult]:
        """Yield stages; ``found`` grows by the readings of each."""
        done = {stage for stage, facts in known.stages.items() if facts["state"] == DONE} if known else set()
        prediction = None if "prediction" in done else self._predict(candidate)
        if prediction is not None:
            yield _done("prediction", "", {"predicted_speedup": prediction.reading()}, time.perf_counter())
        built = yield from self._build(candidate, known.sha256 if known else "", done)
        if built is None:
            return
        subject, sha256 = built
        for objective in self.objectives:
            if objective.name in done or objective.name == TIMING:
                continue
            start = time.perf_counter()
            try:
                glanced = {} if GLANCE in done else self._glance(objective, subject)
                if glanced:
                    yield _done(GLANCE, sha256, glanced, start)
                hopeless = look.hopeless(found) if look is not None and hasattr(objective, "glance") else None
                if hopeless is not None:
                    yield StageResult(objective.name, PREDICTED, sha256, *hopeless)
                    return
                start = time.perf_counter()
                readings = objective.measure(subject)
            except Exception as error:
                yield _failed(objective.name, sha256, error, start)
                return
            yield _done(objective.name, sha256, readings, start)

    def _build(
        self, candidate: Candidate, sha256: str, done: set[str]
    ) -> Generator[StageResult, None, tuple[Subject, str] | None]:
        """Yield that a candidate is built, where it was not yet; return what is measured and its sha256, None if it fails.

        What is ``done`` was measured on another file, and does not count, where the candidate's bytes are others by now.
        """
        start = time.perf_counter()
        built = None
        try:
            if "build" not in done or not self.path(candidate).exists():
                built = self.study.builder.build(candidate)
                save_model_file(built, self.path(candidate))
                if built.sha256 != sha256:
                    done.clear()
                    sha256 = built.sha256
            subject = self._subject(candidate, sha256, built)
            if built is not None and "build" not in done:
                yield _done("build", sha256, Size().measure(subject) | _fallbacks(built, subject), start)
            return subject, sha256
        except Exception as error:
            yield _failed("build", sha256, error, start)
            return None

    def _glance(self, objective: Any, subject: Subject) -> dict[str, Reading]:
        """Return what an objective tells by the first few images, where it can."""
        glance = getattr(objective, "glance", None)
        return {} if glance is None else dict(glance(subject))

    def time_together(self, trials: Sequence[Trial]) -> list[tuple[Trial, StageResult]]:
        """Time trials that were built and judged, in turn with one another and with the reference, which runs once for all.

        Timings end early where they confirm what is predicted. Where one of the trials fails or is another file by now, each
        is evaluated on its own.
        """
        predictions = [self._predict(trial.candidate) for trial in trials]
        if all(self._has_file(trial) for trial in trials):
            with suppress(BuildError):  # the one that fails is told when it is alone
                return self._timed(trials, predictions)
        return [(trial, result) for trial in trials for result in self.whole(trial)]

    def time_again(self, trials: Sequence[Trial]) -> list[tuple[Trial, StageResult]]:
        """Time measured trials once more, likewise in turn, whatever is predicted.

        Those whose file cannot be had as it was measured, or fails by now, are left out.
        """
        found = [trial for trial in trials if self._has_file(trial)]
        with suppress(BuildError):
            return self._timed(found, [None] * len(found))
        if len(found) == 1:
            return []
        return [pair for trial in found for pair in self.time_again([trial])]

    def whole(self, trial: Trial) -> Iterator[StageResult]:
        """Yield each stage that a trial lacks, and its timing, as it finishes; the last one where one fails."""
        sha256 = trial.sha256
        for result in self.judge(trial.candidate, trial):
            yield result
            sha256 = result.sha256 or sha256
            if result.state == FAILED:
                return
        start = time.perf_counter()
        try:
            timed = self._timed([replace(trial, sha256=sha256)], [self._predict(trial.candidate)])
            yield from (result for _, result in timed)
        except Exception as error:
            yield _failed(TIMING, sha256, error, start)

    def _timed(
        self, trials: Sequence[Trial], predictions: Sequence[Prediction | None]
    ) -> list[tuple[Trial, StageResult]]:
        """Time trials whose files are there. Raises `BuildError` where one of them fails."""
        if not trials:
            return []
        start = time.perf_counter()
        subjects = [
            replace(
                self._subject(trial.candidate, trial.sha256), predicted=prediction.reading() if prediction else None
            )
            for trial, prediction in zip(trials, predictions, strict=True)
        ]
        together = getattr(self._timing, "measure_together", None)
        readings = together(subjects) if together else [self._timing.measure(subject) for subject in subjects]
        seconds = (time.perf_counter() - start) / len(trials)
        for found in readings[:1] if together else readings:  # in turn, they share the reference's rounds
            self.reference_times.add(found["reference_ms"].value / 1000.0)
        return [
            (
                trial,
                StageResult(TIMING, DONE, trial.sha256, found, None, seconds, self._lesson(trial, found, prediction)),
            )
            for trial, found, prediction in zip(trials, readings, predictions, strict=True)
        ]

    def _lesson(self, trial: Trial, readings: Mapping[str, Reading], prediction: Prediction | None) -> Lesson | None:
        """Return what a timing teaches; nothing where the graph cannot be looked into."""
        if self.predictor is None:
            return None
        with suppress(BuildError):
            return self.predictor.lesson(trial.candidate, readings["speedup"], prediction)
        return None

    def _has_file(self, trial: Trial) -> bool:
        """Build a trial's file where it is not kept; return whether it is the one that was measured."""
        path = self.path(trial.candidate)
        if not path.exists():
            try:
                built = self.study.builder.build(trial.candidate)
            except BuildError:
                return False
            if built.sha256 != trial.sha256:
                return False
            save_model_file(built, path)
        return built_hash(path) == trial.sha256

    @property
    def _timing(self) -> Any:
        return next(objective for objective in self.objectives if objective.name == TIMING)

    def _predict(self, candidate: Candidate) -> Prediction | None:
        return None if self.predictor is None else self.predictor.predict_or_none(candidate)

    def _subject(self, candidate: Candidate, sha256: str, built: Built | None = None) -> Subject:
        """Return what is measured of a candidate whose file is there, and was just built where that is given."""
        if candidate == Candidate():
            model = self.reference
        elif self._latest is not None and self._latest[0] == sha256:
            model = self._latest[1]
        else:
            model = self._open(candidate, built)
            self._latest = sha256, model
        return Subject(model, self.reference, self.reference_times.needed)

    def _open(self, candidate: Candidate, built: Built | None = None) -> OpenModel:
        save_graph: Callable[[Path], None] = partial(self._save_graph, candidate)
        if built is not None and built.format.pack is not None:  # an ONNX file is its own graph: no build is held on to
            save_graph = built.save_graph
        study = self.study
        return OpenModel(self.path(candidate), study.evaluation, study.graph.batch, study.target, save_graph)

    def _save_graph(self, candidate: Candidate, path: Path) -> None:
        self.study.builder.build(candidate).save_graph(path)


def default_objectives(target: Target, further: Sequence[Objective] = ()) -> tuple[Objective, ...]:
    """Return what is measured after building; elsewhere than on ONNX Runtime here also whether it computes what that does.

    Args:
        target: what candidates run on.
        further: a study's further objectives, each a stage between quality and timing.
    """
    agreement = () if isinstance(target, OnnxRuntime) and target.is_stock else (Agreement(),)
    return (*agreement, Quality(), *further, Timing())


def evaluate(study: Study, candidates: Sequence[Candidate], progress: Progress | None = None) -> list[dict[str, Any]]:
    """Build and measure candidates outside any run; return their JSON forms in the order given (`trial` is None).

    What was unsteady about the timings is added to the study's warnings.

    Raises:
        InputError: the study is wrong, or a candidate names a layer or a channel group that the model has not.
        BuildError: a candidate cannot be built or does not run.
    """
    candidates = [study.builder.fitting(candidate) for candidate in candidates]
    study.check()
    study.prepare(candidates, progress)
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        evaluator = Evaluator(study, Path(folder))
        timings = [_measure(evaluator, Candidate())[1]]
        reference_ms = timings[0]["reference_ms"].value
        rows = []
        for candidate in candidates:
            sha256, readings = _measure(evaluator, candidate)
            trial = Trial(
                -1,
                candidate,
                "measured",
                sha256=sha256,
                readings=readings,
                reference_ms=reference_ms,
                further=tuple(readings_of(study.criteria)),
            )
            rows.append({**trial.row(), "trial": None})
            timings.append(readings)
    study.warn(*reading_notes(timings))
    return rows


def _fallbacks(built: Built, subject: Subject) -> dict[str, Reading]:
    """Return how many nodes that should run in integers do not, by the graph that the runtime made of the file."""
    reads = subject.model.integer_reads if built.integer_tensors else None
    if reads is None:
        return {}
    lacking = built.fallbacks(reads)
    how = "kernels of the optimised graph" + (f"; in float: {', '.join(lacking)}" if lacking else "")
    return {"float_fallbacks": Reading(float(len(lacking)), "", how=how)}


def _measure(evaluator: Evaluator, candidate: Candidate) -> tuple[str, dict[str, Reading]]:
    readings: dict[str, Reading] = {}
    sha256 = ""
    for result in evaluator.whole(Trial(-1, candidate, "started")):
        if result.state == FAILED:
            raise BuildError(result.reason or "the candidate cannot be built")
        readings |= result.readings
        sha256 = result.sha256
    return sha256, readings


def _done(stage: str, sha256: str, readings: dict[str, Reading], start: float) -> StageResult:
    return StageResult(stage, DONE, sha256, readings, seconds=time.perf_counter() - start)


def _failed(stage: str, sha256: str, error: Exception, start: float) -> StageResult:
    """Return the failure as a result; a user's mistake and a full disk are no fault of the candidate's."""
    if isinstance(error, InputError):
        raise error
    if isinstance(error, OSError):
        raise InputError(f"cannot write the model: {error.strerror or error}") from error
    reason = str(error) if isinstance(error, BuildError) else f"{type(error).__name__}: {error}"
    return StageResult(stage, FAILED, sha256, reason=reason, seconds=time.perf_counter() - start)
