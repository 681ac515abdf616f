"""How much the model's output suffers from each layer's bits and sparsity, and from each channel group's pruning ratio.

Each layer is rounded alone, and each group pruned alone, in a real model that runs on a few calibration samples: that
measures what one unit of its own error becomes at the output. Its own error at all other bits or ratios follows from the
Gram matrices, so that the whole curve costs one run. Errors of several layers add up (facts: Spearman 0.996).
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .cache import Store, content_hash
from .candidate import NATIVE, Candidate, LayerChoice
from .errors import BuildError
from .graph import Layer
from .groups import Group
from .matrix import has_own_biases, to_matrix
from .narrow import kept_inputs, whole_axis
from .repair import REFIT_VERSION, StaticRepair
from .rounding import VERSION as ROUNDING_VERSION
from .session import infer, open_session
from .space import Option, Space
from .sparsity import VERSION as SPARSITY_VERSION
from .statistics import Progress, Statistics
from .weights import per_channel
from .work import multiply_adds

if TYPE_CHECKING:
    from .build import Builder

VERSION = 2  # part of the cache key: raise it when results change
PROBE_BITS = 3  # the width at which a layer is really run
PROBE_RATIO = 0.25  # the ratio, or the nearest one offered, at which a group is
WORK = 1.5e12  # multiply-adds to spend on runs
MOST_SAMPLES = 8
LEAST_ERROR = 1e-9  # of a reader's variance, at a ratio of 1: no removal is quite free
FATAL = 100.0  # times the variance of the output: the error of what does not run


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

    A layer or group whose probe cannot be built or run counts as one that costs everything.

    Args:
        builder: of the reference, prepared for the space.
        space: which widths, sparsities and ratios.
        progress: told what is being done, and the part of it that is done.

    Raises:
        BuildError: the reference does not run.
    """
    offered = [[axis.label, [repr(option) for option in axis.options]] for axis in space.axes]
    versions = (VERSION, ROUNDING_VERSION, REFIT_VERSION, SPARSITY_VERSION)
    store = Store(
        content_hash(builder.static.store.folder.name, builder.importance, builder.sparsify, versions, offered)
    )
    stored = store.arrays("sensitivity")
    if stored is None:
        stored = {}
        probes = list(_probes(builder, space))
        measured = _output_errors(builder, [probe.candidate for probe in probes], progress)
        for number, (probe, error) in enumerate(zip(probes, measured, strict=True)):
            own = probe.errors[probe.option]
            stored[f"name-{number}"] = np.array([probe.kind, probe.name])
            forms = ((f"form {form}", curve) for form, curve in probe.forms.items())
            for kind, curve in ((probe.kind, probe.errors), ("sparsities", probe.sparsities), *forms):
                values = [error / own * value if own > 0 else 0.0 for value in curve.values()]
                stored[f"{kind}-{number}"] = np.array([list(curve), values], np.float64).reshape(2, -1)
        store.put_arrays("sensitivity", stored)
    return _read(stored)


def _read(stored: Mapping[str, np.ndarray]) -> Sensitivity:
    curves: dict[str, dict[str, dict[float, float]]] = {"bits": {}, "sparsities": {}, "ratios": {}}
    for key, array in stored.items():
        kind, number = key.rsplit("-", 1)
        if kind != "name":
            name = str(stored[f"name-{number}"][1])
            curves.setdefault(kind, {})[name] = dict(zip(*array.tolist(), strict=True))
    forms = {kind.removeprefix("form "): found for kind, found in curves.items() if kind.startswith("form ")}
    return Sensitivity(curves["bits"], curves["sparsities"], curves["ratios"], forms)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Probe:
    """What is run for one layer or group.

    Attributes:
        kind: "bits" or "ratios".
        name: of the layer or group.
        candidate: that is run.
        errors: its own error at each width or ratio.
        option: the one that is run.
        sparsities: a layer's own error at each sparsity.
        forms: by form, a layer's own error at each width.
    """

    kind: str
    name: str
    candidate: Candidate
    errors: dict[float, float]
    option: float
    sparsities: dict[float, float] = field(default_factory=dict)
    forms: dict[str, dict[float, float]] = field(default_factory=dict)


def _probes(builder: Builder, space: Space) -> Iterator[_Probe]:
    for name, choices in space.choices.items():
        layer = builder.equalised.layers[name]
        widths = sorted({choice.weight_bits for choice in choices if choice.rounded} | {PROBE_BITS})
        if len(choices) > 1:
            sparsities = sorted({choice.sparsity for choice in choices if choice.sparsity})
            candidate = Candidate({name: LayerChoice(PROBE_BITS)})
            own, *formed = (
                _bits_errors(builder.static_of(form), name, widths) for form in (NATIVE, *space.forms_of(name))
            )
            forms = dict(zip(space.forms_of(name), formed, strict=True))
            sparse = _sparsity_errors(builder, layer, sparsities)
            yield _Probe("bits", name, candidate, own, PROBE_BITS, sparse, forms)
    for name, ratios in space.ratios.items():
        offered = [ratio for ratio in ratios if ratio]
        if offered:
            probe = min(offered, key=lambda ratio: (abs(ratio - PROBE_RATIO), ratio))
            own = _ratio_errors(builder, name, offered)
            yield _Probe("ratios", name, Candidate(groups={name: probe}), own, probe)


def _bits_errors(static: StaticRepair, name: str, widths: Sequence[int]) -> dict[float, float]:
    """Return a layer's own mean squared output error at each width, in the form that it has in this graph."""
    graph = static.statistics.graph
    layer = graph.layers[name]
    phases = math.prod(layer.strides) if layer.op == "ConvTranspose" else 1  # outputs of one position of its matrix
    result = {}
    for bits in widths:
        rounded = static.rounded(layer, bits)
        codes = rounded.codes * per_channel(layer, rounded.scale)
        result[float(bits)] = _own_error(static.statistics, layer, graph.weight(layer) - codes) / phases
    return result


def _sparsity_errors(builder: Builder, layer: Layer, values: Sequence[float]) -> dict[float, float]:
    """Return a layer's own mean squared output error at each sparsity, unrounded."""
    weight = builder.equalised.weight(layer)
    return {
        value: _own_error(builder.statistics, layer, weight - builder.static.fitted(layer, value).weight)
        for value in values
    }


def _ratio_errors(builder: Builder, name: str, ratios: Sequence[float]) -> dict[float, float]:
    """Return the errors of a group's readers at each ratio, each in parts of its output's variance, added up."""
    group: Group = builder.pruner.channels.groups[name]
    result = {}
    for ratio in ratios:
        removed = builder.pruner.removed({name: ratio})
        total = 0.0
        for reader in group.readers:
            layer = builder.equalised.layers[reader]
            kept = kept_inputs(layer, removed)
            if kept is not None:
                weight = builder.equalised.weight(layer)
                left = np.zeros_like(weight)
                where = tuple(
                    whole_axis(layer, kept) if axis == layer.input_axis else slice(None) for axis in range(weight.ndim)
                )
                left[where] = builder.static.fitted(layer, kept=kept).weight
                whole = _own_error(builder.statistics, layer, weight)
                total += _own_error(builder.statistics, layer, weight - left) / whole if whole > 0 else 0.0
        result[ratio] = max(total, LEAST_ERROR * ratio)
    return result


def _own_error(statistics: Statistics, layer: Layer, difference: np.ndarray) -> float:
    """Return the mean squared output error of a difference of weights in stored layout, summed over the outputs.

    Without a matrix (a dilated ConvTranspose) inputs are taken to be alike: the squared difference itself.
    """
    moments = statistics.moments(layer)
    if moments is None:
        return float(np.square(difference, dtype=np.float64).sum())
    total = 0.0
    for rows, gram, mean in zip(to_matrix(layer, difference), *moments, strict=True):
        seen = np.einsum("rd,rd->", rows @ gram, rows)
        total += float(seen - np.square(rows @ mean).sum() if has_own_biases(layer) else seen)
    return max(total, 0.0)


def _output_errors(builder: Builder, candidates: Sequence[Candidate], progress: Progress | None) -> Iterator[float]:
    """Yield the mean squared output error of each candidate on some calibration samples."""
    graph = builder.graph
    work = max(sum(multiply_adds(graph).values()), 1) * max(len(candidates), 1)
    batches = int(np.clip(WORK / work, 1, MOST_SAMPLES))
    samples = {name: array[: batches * graph.batch] for name, array in builder.calibration.items()}
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / "model.onnx"

        def output(candidate: Candidate) -> np.ndarray:
            builder.build(candidate).save(path)
            return infer(open_session(path, threads=os.cpu_count() or 1, spinning=False), samples, graph.batch)

        reference = output(Candidate())
        for number, candidate in enumerate(candidates):
            try:
                yield float(np.mean(np.square(output(candidate) - reference, dtype=np.float64)))
            except BuildError:  # the search will record why, where it tries it
                yield FATAL * max(float(np.var(reference)), 1e-12)
            if progress is not None:
                progress("sensitivities", (number + 1) / len(candidates))
