"""Which students a search looks at beside the reference: the most promising of a family, by its shared network."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..spaces.cache import content_hash
from ..spaces.capture import capture_onnx
from ..spaces.errors import BuildError
from ..spaces.family import Family, family_of
from ..spaces.graph import Graph
from ..spaces.shorten import residual_blocks
from ..spaces.statistics import Progress
from ..spaces.threads import one_torch_thread
from ..spaces.work import multiply_adds
from ..studies.front import FULL_FIDELITY_DB, WORST, full_drop_db, hypervolume
from ..studies.holdings import OpenHoldings
from ..studies.study import Study
from ..studies.texts import student_name
from .distillation import Distillation, Examples
from .distilled_study import examples_of, loss_of
from .losses import Loss
from .training import ETA, TRAINING_FOLDER, Schedule, Training

if TYPE_CHECKING:
    from ..studies.definition import StudentsTable
    from .alone import Lone
    from .race import Race
    from .shared_network import SharedNetwork

JUDGED = 4  # calibration samples that all students are judged on
WHOLE_DB = 30.0  # of a reference against its targets: a student's own error is compared with that
LEAST_ERROR = 1e-9
BY_ROUNDING = (0.25, 0.3)  # of size and time, what 8-bit integers leave (README: "How it compares")
SHARED_RATE = 2e-3


@dataclass(frozen=True)
class Judged:
    """A student with what is known of it before it is built.

    Attributes:
        student: the parameters of its architecture.
        graph: returns its graph, with the weights that it has so far.
        point: its `costs`, and its drop, all minimised.
        inherits: whether its weights are the reference's, so that it is trained as gently as a candidate is polished.
    """

    student: Mapping[str, Any]
    graph: Callable[[], Graph]
    point: tuple[float, float, float]
    inherits: bool = False


def use_students(
    study: Study, holdings: OpenHoldings, progress: Progress | None = None, race: Race | None = None
) -> list[str]:
    """Decide which students a run searches, where its study asks for some and it is not decided yet; return notes.

    Args:
        study: what is searched.
        holdings: of the run: students are kept there.
        progress: told what is being done, and the part of it that is done.
        race: trains students side by side; by default one after another, in this process.

    Raises:
        InputError: the study's students' weights are missing or another family's, its own family fails or gives outputs of
            another shape, or the disk cannot be written to.
    """
    table = study.settings.students
    if table is None:
        return []
    if (decided := holdings.students) is not None:  # also by another search that shares the run's records
        study.use_students(decided, holdings)
        return []
    folder = holdings.folders[0]
    notes: list[str] = []
    try:
        graphs = _found(study, table, folder, notes, progress, race)
    except NoStudentsError as error:
        holdings.decide({})
        return [f"no students are searched: {error}"]
    except BuildError as error:  # it may be another time: with more memory, or another loss
        return [f"no students are searched this time: {error}"]
    found = {holdings.keep_base(captured(graph)): student for student, graph in graphs}
    study.use_students(holdings.decide(found), holdings)
    for checkpoint in (folder / TRAINING_FOLDER).glob("*.pt"):
        checkpoint.unlink()
    return notes


class NoStudentsError(BuildError):
    """The reference can have no students."""


def _found(
    study: Study, table: StudentsTable, folder: Path, notes: list[str], progress: Progress | None, race: Race | None
) -> list[tuple[Mapping[str, Any], Graph]]:
    """Return the students that are searched, and their graphs; note whose training fails."""
    training, build, count = study.settings.training, study.student_family, table.count
    if build is not None:
        from .own_family import drawn

        steps = training.student_steps(True) or 1
        return trained(study, drawn(study, build, count), count, steps, folder, notes, progress, race)
    steps = training.student_steps(study.student_weights is None)
    judged: list[Judged] = []
    reason: BuildError | None = None
    if "elastic" in table.kinds:
        try:
            family = family_of(study.graph, **table.sizes)
        except BuildError as error:
            reason = error
            notes.append(f"no elastic students: {error}")
        else:
            judged += judge(study, shared_network(study, family, folder, progress), progress)
    blocks = residual_blocks(study.graph) if "shortened" in table.kinds else []
    if blocks and steps:
        from .shortened import judge_shortened

        judged += judge_shortened(study, blocks, progress)
    if not judged and blocks:
        raise BuildError("shortened students have to be trained, but training.steps is 0")
    if not judged:
        raise NoStudentsError(reason or "there is no residual block in the model that could be left out")
    if not steps:
        return [(each.student, each.graph()) for each in most_promising(judged, count)]
    return trained(study, most_promising(judged, count * ETA), count, steps, folder, notes, progress, race)


def trained(
    study: Study,
    judged: Sequence[Judged],
    count: int,
    steps: int,
    folder: Path,
    notes: list[str],
    progress: Progress | None = None,
    race: Race | None = None,
) -> list[tuple[Mapping[str, Any], Graph]]:
    """Train students alone; return so many that promise most by then, and their graphs; note whose training fails.

    Raises:
        BuildError: the training of each of them fails.
    """
    from .alone import RATE, Lone, halved, raced
    from .race import able

    examples, loss = examples_of(study), loss_of(study)
    scale = Scale.of(study, examples)
    gentle = Schedule(steps, seed=study.settings.search.seed, clipped=True)
    known: dict[int, Judged] = {}
    begun: list[Lone] = []
    reason = None
    for each in judged:
        try:
            schedule = gentle if each.inherits else replace(gentle, rate=RATE)
            begun.append(Lone(each.student, each.graph(), examples, loss, schedule, folder, each.inherits))
        except BuildError as error:  # an op without a form in PyTorch here
            reason = error
            notes.append(f"{student_name(each.student)} cannot be trained: {error}")
            continue
        known[id(begun[-1])] = each
    if not begun:
        raise reason or BuildError("there is no student to train")

    def choose(lones: list[Lone], wanted: int) -> list[Lone]:
        errors = [scale.error(lone.lesson) for lone in lones]
        rows = [(lone, scale.rated(known[id(lone)], error)) for lone, error in zip(lones, errors, strict=True)]
        kept = {id(each) for each in most_promising([each for _, each in rows], wanted)}
        return [lone for lone, each in rows if id(each) in kept]

    def failed(lone: Lone, reason: str) -> None:
        notes.append(f"{student_name(lone.student)} cannot be trained: {reason}")

    together = able(race)
    if together is None:
        left = halved(begun, count, choose, progress, failed)
    else:
        points = [scale.rated(known[id(lone)], scale.error(lone.lesson)).point for lone in begun]
        promises = [StudentPromise(scale, point, [p for p in points if p is not point]) for point in points]
        left = raced(begun, promises, together, count, choose, progress, failed)
    return [(lone.student, lone.graph()) for lone in left]


def shared_network(study: Study, family: Family, folder: Path, progress: Progress | None = None) -> SharedNetwork:
    """Return the study's shared network: its own, or one that is trained on the calibration data now."""
    from .sandwich import Sandwich
    from .shared_network import SharedNetwork

    weights = study.student_weights
    if weights is not None:
        return SharedNetwork(family, weights=weights)
    low, high = study.settings.data.range
    scale = float(np.std(next(iter(study.calibration.values())))) or 1.0
    network = SharedNetwork(family, scale, high - low)
    schedule = Schedule(
        study.settings.training.shared_steps, SHARED_RATE, seed=study.settings.search.seed, clipped=True
    )
    loss = loss_of(study)
    name = content_hash(repr(family), repr(schedule), repr(loss))
    lesson = Sandwich(network, examples_of(study), loss)
    Training(lesson, schedule, folder / TRAINING_FOLDER / f"students-{name}.pt").run(progress)
    return network


@dataclass(frozen=True)
class Scale:
    """What a student's error stands for.

    Attributes:
        loss: what is measured: the squared error against the targets, where the calibration data has some, else against the
            reference's outputs; in parts of the output's range.
        reference: the reference's own error; 0 where it is measured against itself.
        whole: the error that a drop is told beside.
        full_drop_db: the drop that counts as 1.
    """

    loss: Loss
    reference: float
    whole: float
    full_drop_db: float

    @classmethod
    def of(cls, study: Study, examples: Examples) -> Scale:
        """Return the scale of a study, given samples that students are judged on."""
        low, high = study.settings.data.range
        decibels = full_drop_db(study.evaluation.target is not None)
        targets = [(wanted, target) for _, wanted, target in examples.each() if target is not None]
        if targets:
            loss = Loss({}, {"l2": 1.0}, high - low)
            error = float(np.mean([float(loss(wanted, wanted, target)) for wanted, target in targets]))
            return cls(loss, error, max(error, LEAST_ERROR), decibels)
        best = FULL_FIDELITY_DB if study.evaluation.target is None else WHOLE_DB
        return cls(Loss(span=high - low), 0.0, 10.0 ** (-best / 10.0), decibels)

    def error(self, lesson: Distillation[Any]) -> float:
        """Return a student's error as it is by now."""
        return Distillation(lesson.module, lesson.graph, lesson.examples, self.loss).standing()

    def drop(self, error: float) -> float:
        """Return the drop that an error stands for, as a part of a whole one."""
        more = max(error - self.reference, 0.0) / self.whole
        return 10.0 * math.log10(1.0 + more) / self.full_drop_db

    def rated(self, judged: Judged, error: float) -> Judged:
        """Return a student with the drop that its error stands for."""
        return replace(judged, point=(*judged.point[:2], self.drop(error)))


@dataclass(frozen=True)
class StudentPromise:
    """What a student that is trained promises: how much it adds to the front of the others as they were.

    Attributes:
        scale: what its error stands for.
        point: its costs, and its drop as it was.
        others: the points of the others.
    """

    scale: Scale
    point: tuple[float, float, float]
    others: Sequence[tuple[float, float, float]]

    def __call__(self, lesson: Distillation[Any]) -> float:
        """Return the part of the hypervolume that is the student's alone."""
        now = (*self.point[:2], self.scale.drop(self.scale.error(lesson)))
        return hypervolume([*self.others, now], WORST) - hypervolume(self.others, WORST)


def judge(study: Study, network: SharedNetwork, progress: Progress | None = None) -> list[Judged]:
    """Return what is known of all students of a shared network's family, on a few calibration samples."""
    from .sandwich import Sandwich

    examples = judging_examples(study)
    scale = Scale.of(study, examples)
    lesson = Sandwich(network, examples, scale.loss)
    students = list(network.family.students())
    found = []
    for number, student in enumerate(students):
        before = Judged(
            student.to_json(), partial(network.graph_of, student), (*costs(study, network.view(student).graph), 0.0)
        )
        with one_torch_thread():
            found.append(scale.rated(before, lesson.loss_of(student)))
        if progress is not None:
            progress("judging students", (number + 1) / len(students))
    return found


def judging_examples(study: Study) -> Examples:
    """Return a few calibration samples, spread over all of them."""
    samples = len(next(iter(study.calibration.values())))
    rows = np.unique(np.linspace(0, samples - 1, max(JUDGED, study.graph.batch)).round().astype(int))
    return examples_of(study, rows)


def costs(study: Study, graph: Graph) -> tuple[float, float]:
    """Return a student's weights and multiply-adds in parts of the reference's, as they are in 8-bit integers."""
    size, work = graph.parameters / max(study.graph.parameters, 1), _work(graph) / max(_work(study.graph), 1)
    return BY_ROUNDING[0] * size, BY_ROUNDING[1] * work


def _work(graph: Graph) -> int:
    return sum(multiply_adds(graph).values())


def most_promising(judged: Sequence[Judged], count: int) -> list[Judged]:
    """Return the students whose front is largest, each chosen with those before it (greedily); the largest come first."""
    chosen: list[Judged] = []
    left = list(judged)
    while left and len(chosen) < count:
        taken = [each.point for each in chosen]
        gains = [hypervolume([*taken, each.point], WORST) for each in left]
        chosen.append(left.pop(int(np.argmax(gains))))
    return sorted(chosen, key=lambda each: -each.point[1])


def captured(graph: Graph) -> Graph:
    """Return a graph in the form that candidates are made from."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / "student.onnx"
        graph.save(path)
        return capture_onnx(path, {port.name: port.shape for port in graph.inputs})
