"""How much the model's output suffers from each layer's bits and sparsity, and from each channel group's pruning ratio.

Each option's own change of the weights is carried to the output by a few backward passes for all of them (`gauss_newton`),
or, where an op of the graph has no gradient, by a run with each (`perturbation`). Errors of several layers add up (facts:
Spearman 0.996).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .cache import Store, content_hash
from .candidate import NATIVE, LayerChoice
from .changes import Change, changes_of
from .errors import BuildError
from .gauss_newton import output_errors
from .perturbation import measured_errors
from .repair import REFIT_VERSION
from .rounding import VERSION as ROUNDING_VERSION
from .space import Option, Space
from .sparsity import VERSION as SPARSITY_VERSION
from .statistics import Progress
from .threads import one_torch_thread
from .torch_view import unsupported
from .work import multiply_adds

if TYPE_CHECKING:
    from .build import Builder

VERSION = 3  # part of the cache key: raise it when results change
WORK = 1.5e12  # multiply-adds to spend on passes
PASSES = 3  # a pass forward and one backward cost about as much as so many forward
SMALL_WORK = 1e9  # multiply-adds of a pass, below which one thread is nearly as fast
MOST_SAMPLES = 8
PROJECTIONS = (4, 16)  # random vectors for each batch of samples


@dataclass(frozen=True)
class Sensitivity:
    """The predicted mean squared error at the model's output, everything else left as it is.

    Attributes:
        bits: by layer, the error at each weight width.
        sparsities: by layer, the error at each sparsity, unrounded.
        ratios: by channel group, the error at each pruning ratio.
        forms: by form, the error at each weight width of the layers that may have it.
    """

    bits: Mapping[str, Mapping[int, float]]
    sparsities: Mapping[str, Mapping[float, float]]
    ratios: Mapping[str, Mapping[float, float]]
    forms: Mapping[str, Mapping[str, Mapping[int, float]]] = field(default_factory=dict)

    def error(self, name: str, option: Option) -> float:
        """Return the error of a layer's choice (that of 8-bit activations is not in it), or of a group's pruning ratio."""
        if isinstance(option, LayerChoice):
            curves = self.bits if option.form == NATIVE else self.forms.get(option.form, self.bits)
            rounding = curves.get(name, {}).get(option.weight_bits, 0.0)
            return rounding + self.sparsities.get(name, {}).get(option.sparsity, 0.0)
        return self.ratios.get(name, {}).get(option, 0.0)


def sensitivity(builder: Builder, space: Space, progress: Progress | None = None) -> Sensitivity:
    """Return the sensitivities for all that a space offers, from the cache where they are there.

    Args:
        builder: of the reference, prepared for the space.
        space: which widths, sparsities and ratios.
        progress: told what is being done, and the part of it that is done.

    Raises:
        BuildError: the reference does not run.
    """
    changes = list(changes_of(space))
    versions = (VERSION, ROUNDING_VERSION, REFIT_VERSION, SPARSITY_VERSION)
    asked = [[change.kind, change.name, change.value] for change in changes]
    store = Store(content_hash(builder.static.store.folder.name, builder.importance, builder.sparsify, versions, asked))
    stored = store.arrays("sensitivity")
    if stored is None:
        stored = {"errors": errors_of(builder, changes, progress)}
        store.put_arrays("sensitivity", stored)
    return _curves(changes, stored["errors"])


def _curves(changes: Sequence[Change], errors: np.ndarray) -> Sensitivity:
    curves: dict[str, dict[str, dict[float, float]]] = {"bits": {}, "sparsities": {}, "ratios": {}}
    for change, error in zip(changes, errors.tolist(), strict=True):
        curves.setdefault(change.kind, {}).setdefault(change.name, {})[change.value] = error
    forms = {kind.removeprefix("form "): found for kind, found in curves.items() if kind.startswith("form ")}
    return Sensitivity(curves["bits"], curves["sparsities"], curves["ratios"], forms)  # type: ignore[arg-type]


def errors_of(builder: Builder, changes: Sequence[Change], progress: Progress | None = None) -> np.ndarray:
    """Return the error of each change, those of one form of the graph together."""
    found = np.zeros(len(changes))
    for form in sorted({change.form for change in changes}, key=lambda form: (form != NATIVE, form)):
        rows = [row for row, change in enumerate(changes) if change.form == form]
        found[rows] = _errors_of_form(builder, form, [changes[row] for row in rows], progress)
    return found


def _errors_of_form(builder: Builder, form: str, changes: Sequence[Change], progress: Progress | None) -> np.ndarray:
    graph = builder.static_of(form).statistics.graph
    asked = [partial(change.differences, builder) for change in changes]
    work = max(sum(multiply_adds(graph).values()), 1)

    def tell(part: float) -> None:
        if progress is not None:
            progress("sensitivities", part)

    def samples(runs: int) -> dict[str, np.ndarray]:
        count = int(np.clip(WORK / (work * runs), 1, MOST_SAMPLES))
        return {name: array[: count * graph.batch] for name, array in builder.calibration.items()}

    if not unsupported(graph):
        least, most = PROJECTIONS
        taken = samples(PASSES * least)
        batches = -(-len(next(iter(taken.values()))) // graph.batch)
        projections = int(np.clip(WORK / (work * PASSES * batches), least, most))
        with (
            one_torch_thread() if work < SMALL_WORK else nullcontext(),
            suppress(BuildError),
        ):  # a gradient is not finite
            return output_errors(graph, taken, asked, projections, tell)
    return measured_errors(graph, samples(len(changes)), asked, tell)
