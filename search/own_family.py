"""A researcher's own family of students: ``build(trial)``, define-by-run as in Optuna, returns a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..spaces.capture import capture_module, made_module
from ..spaces.errors import InputError
from ..spaces.family import ports_of
from ..spaces.graph import Graph, Port
from ..studies.study import Study
from .students import ETA, Judged, costs

if TYPE_CHECKING:
    import torch

TRIES = 5  # draws for each student that is wanted, until another one comes


def drawn(study: Study, build: Callable[[Any], Any], count: int) -> list[Judged]:
    """Return students of a family, drawn at random; nothing is known of their quality before they are trained.

    Args:
        study: of the reference, whose input and output they must fit.
        build: given an `optuna.trial.Trial`, returns a `torch.nn.Module`; what it asks of the trial are the student's
            parameters.
        count: how many will be kept in the end: ``ETA`` times as many are drawn, fewer where the family has no more.

    Raises:
        InputError: the function fails, returns no module, or one whose output has another shape than the reference's.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=study.settings.search.seed)
    asked = optuna.create_study(sampler=sampler)
    found: dict[str, Judged] = {}
    for _ in range(count * ETA * TRIES):
        if len(found) == count * ETA:
            break
        trial = asked.ask()
        module = _built(build, trial)
        key = repr(sorted(trial.params.items()))
        if key not in found:
            found[key] = _judged(study, dict(trial.params), _captured(study, module))
    return list(found.values())


def _judged(study: Study, parameters: dict[str, Any], graph: Graph) -> Judged:
    return Judged(parameters, lambda: graph, (*costs(study, graph), 0.0))


def _built(build: Callable[[Any], Any], trial: Any) -> torch.nn.Module:
    import torch

    torch.manual_seed(trial.number)
    who = "space.students.family: build"
    return made_module(lambda: build(trial), f"{who} fails on {trial.params}", who)


def _captured(study: Study, module: Any) -> Graph:
    """Return a module's graph, with the names of the reference's input and output, and its free axes where it can have them."""
    inputs, output = ports_of(study.graph)
    graph = capture_module(module, inputs.shape, [i for i, axis in enumerate(inputs.axes) if isinstance(axis, str)])
    if graph.outputs[0].shape != output.shape:
        raise InputError(
            f"space.students.family: a student gives outputs of shape {list(graph.outputs[0].shape)}, the reference "
            f"{list(output.shape)}"
        )
    return renamed(graph, inputs, output)


def renamed(graph: Graph, inputs: Port, output: Port) -> Graph:
    """Return a graph whose input and first output are called as these, and their free axes as well."""
    import onnx_ir as ir

    model = graph.model.clone()
    for value, port in ((model.graph.inputs[0], inputs), (model.graph.outputs[0], output)):
        own = tuple(value.shape or port.axes)
        value.name = port.name
        value.shape = ir.Shape(
            [side if isinstance(side, int) else axis for side, axis in zip(own, port.axes, strict=True)]
        )
    return Graph(model, {inputs.name: graph.inputs[0].shape})
