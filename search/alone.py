"""The best students are trained alone, by successive halving: who promises little after a part of the steps stops there.

Jamieson and Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization (AISTATS 2016); here those stay
that add most to the front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..spaces.cache import content_hash
from ..spaces.errors import BuildError
from ..spaces.graph import Graph, with_weights
from ..spaces.statistics import Progress
from ..spaces.torch_view import TorchView
from .distillation import Distillation, Examples
from .losses import Loss
from .race import Entry, Race
from .students import StudentPromise
from .training import ETA, TRAINING_FOLDER, Schedule, Training

RATE = 1e-3  # of students that inherit nothing

Choose = Callable[[list["Lone"], int], list["Lone"]]
Failed = Callable[["Lone", str], None]


class Alone(nn.Module):
    """A student's graph as a module of its inputs by name.

    Args:
        graph: with the weights to begin with.
        relative: whether its parameters are in units of their root mean square as they came, so that one learning rate suits
            all: for weights that were trained before.
    """

    def __init__(self, graph: Graph, relative: bool = False) -> None:
        super().__init__()
        self.view = TorchView(graph)
        self.units = _units(self.view.weights) if relative else dict.fromkeys(self.view.weights, 1.0)
        with torch.no_grad():
            for name, weight in self.view.weights.items():
                weight.div_(self.units[name])

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the first output."""
        return self.view.values(inputs, self._edited)[self.view.graph.outputs[0].name]

    def graph(self) -> Graph:
        """Return its graph with the weights as they are now."""
        with torch.no_grad():
            arrays = {name: (weight * self.units[name]).cpu().numpy() for name, weight in self.view.weights.items()}
        return with_weights(self.view.graph, arrays)

    def _edited(self, name: str, value: Tensor) -> Tensor:
        return value * self.units[name] if name in self.units else value


def _units(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the root mean square of each weight; of biases that are zero, what is usual among the others."""
    sizes = {name: float(weight.detach().square().mean().sqrt()) for name, weight in weights.items()}
    some = [size for size in sizes.values() if size > 0.0]
    usual = float(np.exp(np.mean(np.log(some)))) if some else 1.0
    return {name: size or usual for name, size in sizes.items()}


class Lone:
    """A student that is trained alone, from the weights that it has.

    Args:
        student: the parameters of its architecture, by which it is known.
        graph: with the weights to begin with.
        examples: what it learns from.
        loss: what is made small.
        schedule: how it is trained.
        folder: of the run, for the checkpoint.
        inherits: whether the weights are a trained network's: then the rates are parts of them.
    """

    def __init__(
        self,
        student: Mapping[str, Any],
        graph: Graph,
        examples: Examples,
        loss: Loss,
        schedule: Schedule,
        folder: Path,
        inherits: bool = False,
    ) -> None:
        self.student = dict(student)
        self.lesson = Distillation(Alone(graph, inherits), graph, examples, loss)
        name = content_hash(self.student, graph.digest, repr(schedule), repr(loss))
        schedule = schedule.for_layers(len(graph.layers)) if inherits else schedule
        self.training = Training(self.lesson, schedule, folder / TRAINING_FOLDER / f"{name}.pt")

    def graph(self) -> Graph:
        """Return its graph with the weights as they are now."""
        return self.lesson.module.graph()


def halved(
    lones: Sequence[Lone],
    count: int,
    choose: Choose,
    progress: Progress | None = None,
    failed: Failed = lambda *_: None,
) -> list[Lone]:
    """Train students until so many are left that have made all their steps; return those.

    One whose training fails drops out. Interrupted, the same call goes on from the checkpoints.

    Args:
        lones: more than ``count`` of them are compared after a part of their steps.
        count: how many are wanted.
        choose: returns so many of the students, as they are by now.
        progress: told what is being done, and the part of it that is done.
        failed: told whose training fails, and why.

    Raises:
        BuildError: every one's training fails.
    """
    left = list(lones)
    steps = left[0].training.schedule.steps
    rungs = [max(1, steps // ETA), steps] if len(left) > count else [steps]
    whole = len(left) * rungs[0] + min(count, len(left)) * (steps - rungs[0])
    done = 0
    for rung in rungs:
        able: list[Lone] = []
        reason = None
        for lone in left:
            begun = lone.training.step
            try:
                lone.training.go_on(rung, _counted(progress, done - begun, steps, whole))
                able.append(lone)
            except BuildError as error:
                reason = error
                failed(lone, str(error))
            done += rung - begun
        if not able:
            raise reason or BuildError("no student could be trained")
        left = choose(able, count) if len(able) > count else able
    return left


def raced(
    lones: Sequence[Lone],
    promises: Sequence[StudentPromise],
    race: Race,
    count: int,
    choose: Choose,
    progress: Progress | None = None,
    failed: Failed = lambda *_: None,
) -> list[Lone]:
    """Do the same side by side: who promises less than others at as many steps stops there; see `halved`."""
    entries = [Entry(lone.training, promise) for lone, promise in zip(lones, promises, strict=True)]
    by_entry = {id(entry): lone for entry, lone in zip(entries, lones, strict=True)}
    told = race.run(entries, count, progress, lambda entry, error: failed(by_entry[id(entry)], str(error)))
    done = {id(entry.training) for entry in told}
    able = [lone for lone in lones if id(lone.training) in done]
    return choose(able, count) if len(able) > count else able


def _counted(progress: Progress | None, before: int, steps: int, whole: int) -> Progress | None:
    """Return what tells of one student's steps as a part of all."""
    if progress is None:
        return None
    return lambda text, part: progress("training students alone", min((before + part * steps) / whole, 1.0))
