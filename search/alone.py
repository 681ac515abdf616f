"""The best students are trained alone, by successive halving: who promises little after a part of the steps stops there.

Jamieson and Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization (AISTATS 2016); here those stay
that add most to the front.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from ..spaces.errors import BuildError
from ..spaces.graph import Graph
from ..spaces.statistics import Progress
from ..spaces.student import Student
from ..spaces.torch_view import TorchView
from .distillation import Distillation, Examples
from .shared_network import SharedNetwork
from .training import TRAINING_FOLDER, Schedule, Training

ETA = 3  # one in so many goes on, with so many times the steps
RATE = 1e-3

Choose = Callable[[dict[Student, float], int], list[Student]]


class Alone(nn.Module):
    """A student's graph as a module of its inputs by name."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.view = TorchView(graph)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the first output."""
        output: Tensor = self.view(inputs)
        return output


class Lone:
    """A student that is trained alone, beginning with the weights that it shared.

    Args:
        network: the shared network.
        student: of its family.
        examples: what it learns from.
        span: of the output's values, black to white.
        schedule: how it is trained.
        folder: of the run, for the checkpoint.
    """

    def __init__(
        self,
        network: SharedNetwork,
        student: Student,
        examples: Examples,
        span: float,
        schedule: Schedule,
        folder: Path,
    ) -> None:
        self.network, self.student = network, student
        graph = network.graph_of(student)
        self.lesson = Distillation(Alone(graph), graph, examples, span)
        name = "-".join(map(str, student.to_json().values()))
        self.training = Training(self.lesson, schedule, folder / TRAINING_FOLDER / f"{name}-{schedule.steps}.pt")

    def graph(self) -> Graph:
        """Return its graph with the weights as they are now."""
        weights = {name: weight.detach().cpu().numpy() for name, weight in self.lesson.module.view.weights.items()}
        return self.network.family.graph_of(self.student, weights)


def halved(lones: Sequence[Lone], count: int, choose: Choose, progress: Progress | None = None) -> list[Lone]:
    """Train students until so many are left that have made all their steps; return those.

    One whose training fails drops out. Interrupted, the same call goes on from the checkpoints.

    Args:
        lones: more than ``count`` of them are compared after a part of their steps.
        count: how many are wanted.
        choose: returns so many of the students, given their errors.
        progress: told what is being done, and the part of it that is done.

    Raises:
        BuildError: every one's training fails.
    """
    left = list(lones)
    steps = left[0].training.schedule.steps
    rungs = [max(1, steps // ETA), steps] if len(left) > count else [steps]
    whole = len(left) * rungs[0] + min(count, len(left)) * (steps - rungs[0])
    done = 0
    for rung in rungs:
        errors, reason = {}, None
        for lone in left:
            begun = lone.training.step
            try:
                lone.training.go_on(rung, _counted(progress, done - begun, steps, whole))
                errors[lone.student] = lone.lesson.standing()
            except BuildError as error:
                reason = error
            done += rung - begun
        if not errors:
            raise reason or BuildError("no student could be trained")
        kept = choose(errors, count)
        left = [lone for lone in left if lone.student in kept]
    return left


def _counted(progress: Progress | None, before: int, steps: int, whole: int) -> Progress | None:
    """Return what tells of one student's steps as a part of all."""
    if progress is None:
        return None
    return lambda text, part: progress("training students alone", min((before + part * steps) / whole, 1.0))
