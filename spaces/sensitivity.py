"""How much the model's output suffers from each layer's bits and sparsity, and from each channel group's pruning ratio.

Each layer is rounded alone, and each group pruned alone, in a real model that runs on a few calibration samples: that
measures what one unit of its own error becomes at the output. Its own error at all other bits or ratios follows from the
Gram matrices, so that the whole curve costs one run. Errors of several layers add up (facts: Spearman 0.996).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .cache import Store, content_hash
from .candidate import Candidate, LayerChoice
from .graph import Layer
from .groups import Group
from .matrix import has_matrix, has_own_biases, to_matrix
from .narrow import kept_inputs, matrix_columns
from .repair import REFIT_VERSION
from .rounding import VERSION as ROUNDING_VERSION
from .session import infer, open_session
from .space import Option, Space
from .sparsity import VERSION as SPARSITY_VERSION
from .statistics import Progress
from .work import multiply_adds

if TYPE_CHECKING:
    from .build import Builder

VERSION = 1  # part of the cache key: raise it when results change
PROBE_BITS = 3  # the width at which a layer is really run
PROBE_RATIO = 0.25  # the ratio, or the nearest one offered, at which a group is
WORK = 1.5e12  # multiply-adds to spend on runs
MOST_SAMPLES = 8


@dataclass(frozen=True)
class Sensitivity:
    """The predicted mean squared error at the model's output, everything else left as it is.

    Attributes:
        bits: by layer, the error at each weight width.
        sparsities: by layer, the error at each sparsity, unrounded.
        ratios: by channel group, the error at each pruning ratio.
    """

    bits: Mapping[str, Mapping[int, float]]
    sparsities: Mapping[str, Mapping[float, float]]
    ratios: Mapping[str, Mapping[float, float]]

    def error(self, name: str, option: Option) -> float:
        """Return the error of a layer's choice (that of 8-bit activations is not in it), or of a group's pruning ratio."""
        if isinstance(option, LayerChoice):
            return self.bits[name].get(option.weight_bits, 0.0) + self.sparsities[name].get(option.sparsity, 0.0)
        return self.ratios.get(name, {}).get(option, 0.0)


def sensitivity(builder: Builder, space: Space, progress: Progress | None = None) -> Sensitivity:
    """Return the sensitivities for all that a space offers, from the cache where they are there.

    Args:
        builder: of the reference, prepared for the space.
        space: which widths, sparsities and ratios.
        progress: told what is being done, and the part of it that is done.

    Raises:
        BuildError: a model does not run.
    """
    probes = list(_probes(builder, space))
    offered = [[axis.label, [repr(option) for option in axis.options]] for axis in space.axes]
    versions = (VERSION, ROUNDING_VERSION, REFIT_VERSION, SPARSITY_VERSION)
    store = Store(
        content_hash(builder.static.store.folder.name, builder.importance, builder.sparsify, versions, offered)
    )
    stored = store.arrays("sensitivity")
    if stored is None:
        candidates = [candidate for _, candidate, _, _ in probes]
        stored = {"measured": np.array(list(_output_errors(builder, candidates, progress)))}
        store.put_arrays("sensitivity", stored)
    curves: dict[str, dict[str, dict[float, float]]] = {"bits": {}, "sparsities": {}, "ratios": {}}
    for (kind, candidate, curve, probe), measured in zip(probes, stored["measured"], strict=True):
        name = next(iter(candidate.groups if kind == "ratios" else candidate.layers))
        gain = float(measured) / curve[probe] if curve[probe] > 0 else 0.0
        curves[kind][name] = {option: gain * error for option, error in curve.items()}
        if kind == "bits":
            curves["sparsities"][name] = {
                value: gain * error for value, error in _sparsity_errors(builder, name, space).items()
            }
    for name in builder.graph.layers:
        curves["bits"].setdefault(name, {})
        curves["sparsities"].setdefault(name, {})
    return Sensitivity(curves["bits"], curves["sparsities"], curves["ratios"])  # type: ignore[arg-type]


Probe = tuple[str, Candidate, dict[float, float], float]


def _probes(builder: Builder, space: Space) -> Iterator[Probe]:
    """Yield what is run: the kind of curve, the candidate, its own errors by option, and the option that is run."""
    for name, choices in space.choices.items():
        layer = builder.equalised.layers[name]
        widths = sorted({choice.weight_bits for choice in choices if choice.rounded} | {PROBE_BITS})
        if len(choices) > 1 and has_matrix(layer):
            yield "bits", Candidate({name: LayerChoice(PROBE_BITS)}), _bits_errors(builder, layer, widths), PROBE_BITS
    for name, ratios in space.ratios.items():
        offered = [ratio for ratio in ratios if ratio]
        if offered:
            probe = min(offered, key=lambda ratio: (abs(ratio - PROBE_RATIO), ratio))
            yield "ratios", Candidate(groups={name: probe}), _ratio_errors(builder, name, offered), probe


def _bits_errors(builder: Builder, layer: Layer, widths: Sequence[int]) -> dict[float, float]:
    """Return a layer's own mean squared output error at each width."""
    result = {}
    for bits in widths:
        rounded = builder.static.rounded(layer, bits)
        codes = to_matrix(layer, rounded.codes.astype(np.float32))
        rows = to_matrix(layer, builder.equalised.weight(layer))
        scale = to_matrix(layer, _spread(layer, rounded.scale))
        result[float(bits)] = _own_error(builder, layer, rows - codes * scale)
    return result


def _spread(layer: Layer, scale: np.ndarray) -> np.ndarray:
    from .weights import per_channel

    return np.broadcast_to(per_channel(layer, scale), layer.shape)


def _sparsity_errors(builder: Builder, name: str, space: Space) -> dict[float, float]:
    layer = builder.equalised.layers[name]
    values = {choice.sparsity for choice in space.choices[name] if choice.sparsity}
    rows = to_matrix(layer, builder.equalised.weight(layer))
    return {
        value: _own_error(
            builder,
            layer,
            rows - to_matrix(layer, builder.static.fitted(layer, value).weight),
        )
        for value in sorted(values)
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
            if kept is None or not has_matrix(layer):
                continue
            rows = to_matrix(layer, builder.equalised.weight(layer))
            fitted = builder.static.fitted(layer, kept=kept)
            left = np.zeros_like(rows)
            left[:, :, matrix_columns(layer, kept)] = to_matrix(_with(layer, fitted.weight.shape), fitted.weight)
            total += _own_error(builder, layer, rows - left) / max(_own_error(builder, layer, rows), 1e-30)
        result[ratio] = max(total, 1e-12)
    return result


def _with(layer: Layer, shape: tuple[int, ...]) -> Layer:
    from dataclasses import replace

    return replace(layer, shape=shape)


def _own_error(builder: Builder, layer: Layer, difference: np.ndarray) -> float:
    """Return the mean squared output error of a difference of weights [G, R, D], summed over the outputs."""
    moments = builder.statistics.moments(layer)
    assert moments is not None
    total = 0.0
    for rows, gram, mean in zip(difference, *moments, strict=True):
        seen = np.einsum("rd,rd->", rows @ gram, rows)
        total += float(seen - np.square(rows @ mean).sum() if has_own_biases(layer) else seen)
    return max(total, 0.0)


def _output_errors(builder: Builder, candidates: Sequence[Candidate], progress: Progress | None) -> Iterator[float]:
    """Yield the mean squared output error of each candidate on some calibration samples."""
    graph = builder.graph
    work = max(sum(multiply_adds(graph).values()), 1) * max(len(candidates), 1)
    batches = int(np.clip(WORK / work, 1, MOST_SAMPLES))
    samples = {name: array[: batches * graph.batch] for name, array in builder.calibration.items()}
    reference: np.ndarray | None = None
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        for number, candidate in enumerate([Candidate(), *candidates]):
            path = Path(folder) / "model.onnx"
            builder.build(candidate).save(path)
            output = infer(open_session(path, threads=os.cpu_count() or 1, spinning=False), samples, graph.batch)
            if reference is None:
                reference = output
            else:
                yield float(np.mean(np.square(output - reference, dtype=np.float64)))
            if progress is not None:
                progress("sensitivities", (number + 1) / (len(candidates) + 1))
