"""How much the model's output suffers from each layer's bits, sparsity and 8-bit inputs, and each channel group's pruning ratio.

Each option's own change of the weights is carried to the output by a few backward passes for all of them (`gauss_newton`)
or, where no gradient comes through the graph, by a run with one option of each layer and group (`perturbation`). Errors of
several layers add up (facts: Spearman 0.996).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .activations import RoundedTensor, rounded_tensors
from .cache import Store, content_hash
from .candidate import NATIVE, LayerChoice
from .changes import Change, changes_of, own_error
from .errors import BuildError
from .importance import VERSION as IMPORTANCE_VERSION
from .perturbation import measured_errors
from .repair import REFIT_VERSION
from .rounding import VERSION as ROUNDING_VERSION
from .space import Option, Space
from .sparsity import VERSION as SPARSITY_VERSION
from .statistics import Progress
from .threads import one_torch_thread
from .work import multiply_adds

if TYPE_CHECKING:
    from .build import Builder
    from .graph import Graph

Tell = Callable[[float], None]
AnyChange = Change | RoundedTensor

VERSION = 6  # part of the cache key: raise it when results change
MOST_SAMPLES = 8
PASSES = (16, 64)  # backward ones, over all samples: from the least for large models to the most for small ones
PASS_WORK = 5e9  # multiply-adds of a batch, times passes, up to which more passes are made
MOST_BYTES = 4e9  # of a batch's tensors, which all stay until the last backward pass
SMALL_WORK = 1e9  # multiply-adds of a pass, below which one thread is nearly as fast
RUN_WORK = 1.5e12  # multiply-adds to spend on runs
LEAST_ERROR = 1e-9  # of the largest, at a ratio of 1: no removal is quite free


@dataclass(frozen=True)
class Sensitivity:
    """The predicted mean squared error at the model's output, everything else left as it is.

    Attributes:
        bits: by layer, the error at each weight width.
        sparsities: by layer, the error at each sparsity, unrounded.
        ratios: by channel group, the error at each pruning ratio.
        forms: by form, the error at each weight width of the layers that may have it.
        activations: by layer, the error where it runs in integers, that of its weights left out; nothing where it is not known.
    """

    bits: Mapping[str, Mapping[int, float]]
    sparsities: Mapping[str, Mapping[float, float]]
    ratios: Mapping[str, Mapping[float, float]]
    forms: Mapping[str, Mapping[str, Mapping[int, float]]] = field(default_factory=dict)
    activations: Mapping[str, float] = field(default_factory=dict)

    def error(self, name: str, option: Option) -> float:
        """Return the error of a layer's choice, or of a group's pruning ratio."""
        if isinstance(option, LayerChoice):
            curves = self.bits if option.form == NATIVE else self.forms.get(option.form, self.bits)
            rounding = curves.get(name, {}).get(option.weight_bits, 0.0)
            activations = self.activations.get(name, 0.0) if option.integer else 0.0
            return rounding + activations + self.sparsities.get(name, {}).get(option.sparsity, 0.0)
        return self.ratios.get(name, {}).get(option, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return them as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Read what `to_json` wrote, the keys of which JSON has made text."""

        def curves(told: Mapping[str, Mapping[str, float]], key: Callable[[str], Any]) -> dict[str, Any]:
            return {name: {key(at): float(error) for at, error in curve.items()} for name, curve in told.items()}

        def whole(text: str) -> int:
            return int(float(text))

        forms = {form: curves(told, whole) for form, told in data["forms"].items()}
        bits, sparsities, ratios = (
            curves(data["bits"], whole),
            curves(data["sparsities"], float),
            curves(data["ratios"], float),
        )
        return cls(bits, sparsities, ratios, forms, data.get("activations", {}))


def sensitivity(builder: Builder, space: Space, progress: Progress | None = None) -> Sensitivity:
    """Return the sensitivities for all that a space offers, from the cache where they are there.

    Args:
        builder: of the reference, prepared for the space.
        space: which widths, sparsities and ratios.
        progress: told what is being done, and the part of it that is done.

    Raises:
        BuildError: the reference does not run.
    """
    integer = any(choice.calibrated for choices in space.choices.values() for choice in choices)
    tensors = rounded_tensors(builder) if integer else []
    changes: list[AnyChange] = [*changes_of(space), *tensors]
    versions = (VERSION, ROUNDING_VERSION, REFIT_VERSION, SPARSITY_VERSION, IMPORTANCE_VERSION)
    formed = [builder.static_of(form).store.folder.name for form in _forms(changes)]
    asked = [[change.kind, change.name, change.value] for change in changes]
    output = builder.graph.outputs[0].name
    store = Store(
        content_hash(formed, output, builder.rules.runtime, builder.importance, builder.sparsify, versions, asked)
    )
    stored = store.arrays("sensitivity")
    if stored is None:
        stored = {"errors": errors_of(builder, changes, progress)}
        store.put_arrays("sensitivity", stored)
    found = _curves(changes, stored["errors"])
    errors = dict(zip(changes, stored["errors"].tolist(), strict=True))
    return replace(found, activations=_by_layer(tensors, errors))


def _by_layer(tensors: Sequence[RoundedTensor], errors: Mapping[AnyChange, float]) -> dict[str, float]:
    """Return the errors of tensors by the layers that are why they are rounded, in equal parts."""
    found: dict[str, float] = {}
    for tensor in tensors:
        for name in tensor.layers if np.isfinite(errors[tensor]) else ():  # runs do not tell them
            found[name] = found.get(name, 0.0) + errors[tensor] / len(tensor.layers)
    return found


def _curves(changes: Sequence[AnyChange], errors: np.ndarray) -> Sensitivity:
    curves: dict[str, dict[str, dict[float, float]]] = {"bits": {}, "sparsities": {}, "ratios": {}}
    for change, error in zip(changes, errors.tolist(), strict=True):
        curves.setdefault(change.kind, {}).setdefault(change.name, {})[change.value] = error
    forms = {kind.removeprefix("form "): found for kind, found in curves.items() if kind.startswith("form ")}
    return Sensitivity(curves["bits"], curves["sparsities"], curves["ratios"], forms)  # type: ignore[arg-type]


def errors_of(builder: Builder, changes: Sequence[AnyChange], progress: Progress | None = None) -> np.ndarray:
    """Return the error of each change ``[changes]``; those of one form of the graph are worked out together."""
    found = np.zeros(len(changes))
    for form in _forms(changes):
        rows = [row for row, change in enumerate(changes) if change.form == form]
        found[rows] = _errors_of_form(builder, form, [changes[row] for row in rows], progress)
    return found


def _forms(changes: Sequence[AnyChange]) -> list[str]:
    return sorted({change.form for change in changes}, key=lambda form: (form != NATIVE, form))


def _errors_of_form(builder: Builder, form: str, changes: Sequence[AnyChange], progress: Progress | None) -> np.ndarray:
    graph = builder.static_of(form).statistics.graph

    def tell(part: float) -> None:
        if progress is not None:
            progress("sensitivities", part)

    found = _by_passes(builder, graph, changes, tell)
    if found is None:
        found = _by_runs(builder, graph, changes, tell)
    result, least = np.zeros(len(changes)), LEAST_ERROR * float(np.nanmax(found))
    for rows in _series(changes):
        some = [change for row in rows if isinstance(change := changes[row], Change)]
        if not some:
            result[rows] = found[rows]
            continue
        ratios = some[0].kind == "ratios"
        taken = ratios and bool(np.isfinite(found[rows]).all())
        own = np.array([np.nan if taken else own_error(builder, change) for change in some])
        result[rows] = _curve(found[rows], own, exact=ratios)
        if ratios:
            result[rows] = np.maximum(result[rows], least * np.array([changes[row].value for row in rows]))
    return result


def _by_passes(builder: Builder, graph: Graph, changes: Sequence[AnyChange], tell: Tell) -> np.ndarray | None:
    """Return the errors by backward passes; None where they cannot tell them, or would take too much memory."""
    from .gauss_newton import output_errors
    from .torch_view import steps, unsupported

    written = (value.name or "" for node in graph.model.graph for value in node.outputs)
    size = sum(4 * math.prod(graph.shapes.get(name, ())) for name in written)
    if size > MOST_BYTES or unsupported(graph) or steps(graph):
        return None
    samples = _first_samples(builder, graph, MOST_SAMPLES)
    work = max(sum(multiply_adds(graph).values()), 1)
    batches = math.ceil(len(next(iter(samples.values()))) / graph.batch)
    projections = math.ceil(np.clip(PASS_WORK / work, *PASSES) / batches)
    asked = [partial(change.differences, builder) for change in changes]
    grids = {change.name: change.grid for change in changes if isinstance(change, RoundedTensor)}
    try:
        with one_torch_thread() if work < SMALL_WORK else nullcontext():
            return output_errors(graph, samples, asked, projections, tell, grids)
    except BuildError:  # an op fails in PyTorch, or a gradient is not finite
        return None


def _by_runs(builder: Builder, graph: Graph, changes: Sequence[AnyChange], tell: Tell) -> np.ndarray:
    """Return the errors of one change of each layer and group, by a run with each; NaN of the others."""
    probes = [rows[(len(rows) - 1) // 2] for rows in _series(changes) if isinstance(changes[rows[0]], Change)]
    asked = [partial(changes[row].differences, builder) for row in probes]
    work = max(sum(multiply_adds(graph).values()), 1) * len(probes)
    found = np.full(len(changes), np.nan)
    samples = _first_samples(builder, graph, int(np.clip(RUN_WORK / work, 1, MOST_SAMPLES)))
    found[probes] = measured_errors(graph, samples, asked, tell)
    return found


def _first_samples(builder: Builder, graph: Graph, batches: int) -> dict[str, np.ndarray]:
    return {name: array[: batches * graph.batch] for name, array in builder.calibration.items()}


def _series(changes: Sequence[AnyChange]) -> list[list[int]]:
    """Return the rows of the changes of one kind and name, for each."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, change in enumerate(changes):
        rows.setdefault((change.kind, change.name), []).append(row)
    return list(rows.values())


def _curve(found: np.ndarray, own: np.ndarray, exact: bool) -> np.ndarray:
    """Return the errors over the values of one layer or group, from estimates that are uncertain or lacking (NaN).

    What one unit of a layer's own error becomes at the output is the same at all its values but for chance, so that one
    factor, the geometric mean, is surer than each. A group's ratios act on several layers at once: they are taken as they
    are, but never fall.

    Args:
        found: the estimates, in order of the values.
        own: the own errors; they are not read where the estimates are taken.
        exact: whether the estimates themselves are taken, where none lacks.
    """
    if exact and np.isfinite(found).all():
        return np.asarray(np.maximum.accumulate(found))
    known = (found > 0) & (own > 0)
    if not known.any():
        return np.where(np.isfinite(found), found, 0.0)
    return np.asarray(own * np.exp(np.mean(np.log(found[known] / own[known]))))
