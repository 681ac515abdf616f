"""Which students a search looks at beside the reference: the most promising of a family, by its shared network."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..spaces.capture import capture_onnx
from ..spaces.errors import BuildError
from ..spaces.family import Family, family_of
from ..spaces.graph import Graph
from ..spaces.statistics import Progress
from ..spaces.student import Student
from ..spaces.threads import one_torch_thread
from ..spaces.work import multiply_adds
from ..studies.definition import StudentsTable
from ..studies.front import FULL_FIDELITY_DB, full_drop_db, hypervolume
from ..studies.holdings import RunHoldings, decided, write_base, write_students
from ..studies.study import Study
from .distillation import Examples
from .training import TRAINING_FOLDER, Schedule, Training, device

if TYPE_CHECKING:
    from torch import Tensor

    from .shared_network import SharedNetwork

JUDGED = 4  # calibration samples that all students are judged on
WHOLE_DB = 30.0  # of a reference against its targets: a student's own error is compared with that
WORST = (1.0, 1.0, 1.0)
SHARED_RATE = 2e-3
SHARED_CHECKPOINT = "students.pt"


@dataclass(frozen=True)
class Judged:
    """A student with what is known of it before it is built.

    Attributes:
        student: the architecture.
        error: its mean squared error against the reference's outputs, in parts of the output's range.
        point: its weights and multiply-adds in parts of the reference's, and its drop, all minimised.
    """

    student: Student
    error: float
    point: tuple[float, float, float]


def use_students(study: Study, folder: Path, progress: Progress | None = None) -> list[str]:
    """Decide which students a run searches, where its study asks for some and it is not decided yet; return notes.

    Args:
        study: what is searched.
        folder: of the run: students are kept there.
        progress: told what is being done, and the part of it that is done.

    Raises:
        InputError: the study's students' weights are missing or another family's, or the disk cannot be written to.
    """
    table = study.settings.students
    if table is None or decided(folder):
        return []
    try:
        family = family_of(study.graph, **table.family)
    except BuildError as error:
        write_students(folder, {})
        return [str(error)]
    network = shared_network(study, family, folder, progress)
    judged = judge(study, network, progress)
    found = {
        write_base(folder, captured(graph)): student.to_json()
        for student, graph in trained(study, network, judged, folder, progress)
    }
    write_students(folder, found)
    study.use_students(found, RunHoldings(folder))
    for checkpoint in (folder / TRAINING_FOLDER).glob("*.pt"):
        checkpoint.unlink()
    return []


def trained(
    study: Study, network: SharedNetwork, judged: Sequence[Judged], folder: Path, progress: Progress | None = None
) -> list[tuple[Student, Graph]]:
    """Return the most promising students and their graphs: as the shared network has them, or trained alone from there."""
    from .alone import ETA, RATE, Lone, halved

    count = (study.settings.students or StudentsTable()).count
    steps = study.settings.training.student_steps(study.student_weights is None)
    if not steps:
        return [(each.student, network.graph_of(each.student)) for each in most_promising(judged, count)]
    low, high = study.settings.data.range
    examples = examples_of(study, study.calibration)
    schedule = Schedule(steps, RATE, seed=study.settings.search.seed, clipped=True)
    known = {each.student: each for each in judged}
    begun = [
        Lone(network, each.student, examples, high - low, schedule, folder)
        for each in most_promising(judged, count * ETA)
    ]

    def choose(errors: Mapping[Student, float], wanted: int) -> list[Student]:
        anew = [rated(study, known[student], error) for student, error in errors.items()]
        return [each.student for each in most_promising(anew, wanted)]

    return [(lone.student, lone.graph()) for lone in halved(begun, count, choose, progress)]


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
    lesson = Sandwich(network, examples_of(study, study.calibration), high - low)
    Training(lesson, schedule, folder / TRAINING_FOLDER / SHARED_CHECKPOINT).run(progress)
    return network


def examples_of(study: Study, inputs: Mapping[str, NDArray]) -> Examples:
    """Return samples and what the reference makes of them."""
    from ..spaces.torch_view import TorchView

    return Examples(TorchView(study.graph).to(device()), inputs, study.graph.batch)


def judge(study: Study, network: SharedNetwork, progress: Progress | None = None) -> list[Judged]:
    """Return what is known of all students of a shared network's family, on a few calibration samples."""
    from .sandwich import Sandwich

    low, high = study.settings.data.range
    samples = len(next(iter(study.calibration.values())))
    batch = study.graph.batch
    rows = np.unique(np.linspace(0, samples - 1, max(JUDGED, batch)).round().astype(int))
    lesson = Sandwich(network, examples_of(study, {n: a[rows] for n, a in study.calibration.items()}), high - low, l2)
    reference = np.array([study.graph.parameters, sum(multiply_adds(study.graph).values())], float)
    students = list(network.family.students())
    found = []
    for number, student in enumerate(students):
        graph = network.view(student).graph
        size, work = np.array([graph.parameters, sum(multiply_adds(graph).values())]) / np.maximum(reference, 1.0)
        before = Judged(student, 0.0, (float(size), float(work), 0.0))
        with one_torch_thread():
            found.append(rated(study, before, lesson.loss_of(student)))
        if progress is not None:
            progress("judging students", (number + 1) / len(students))
    return found


def rated(study: Study, judged: Judged, error: float) -> Judged:
    """Return a student with another error, and the drop that it stands for beside the reference's own error."""
    has_target = study.evaluation.target is not None
    whole = 10.0 ** (-(WHOLE_DB if has_target else FULL_FIDELITY_DB) / 10.0)
    drop = 10.0 * np.log10(1.0 + error / whole) / full_drop_db(has_target)
    return replace(judged, error=error, point=(*judged.point[:2], float(drop)))


def most_promising(judged: Sequence[Judged], count: int) -> list[Judged]:
    """Return the students whose front is largest, each chosen with those before it (greedily); the largest come first."""
    chosen: list[Judged] = []
    left = list(judged)
    while left and len(chosen) < count:
        taken = [each.point for each in chosen]
        gains = [hypervolume([*taken, each.point], WORST) for each in left]
        chosen.append(left.pop(int(np.argmax(gains))))
    return sorted(chosen, key=lambda each: -each.point[1])


def l2(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return (found - wanted).square().mean()


def captured(graph: Graph) -> Graph:
    """Return a graph in the form that candidates are made from."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / "student.onnx"
        graph.save(path)
        return capture_onnx(path, {port.name: port.shape for port in graph.inputs})
