"""What people should know of their calibration data: too few samples, inputs that never change."""

from __future__ import annotations

import math

import numpy as np

from ..spaces.errors import some_of
from ..spaces.graph import Graph, Layer
from ..spaces.matrix import has_matrix, matrix_inputs
from ..spaces.statistics import Statistics

ENOUGH = 2  # positions for each input of a layer's matrix
SHOWN = 3
MANY = 0.5  # of a layer's inputs: some behind a Relu never change in any network
NO_VARIANCE = 1e-9  # of the mean variance of a layer's inputs


def sample_notes(graph: Graph, samples: int) -> list[str]:
    """Return a warning where a layer has more inputs than the calibration data has positions to fit them to.

    Args:
        graph: the captured model.
        samples: number of calibration samples.
    """
    lacking = {}
    for layer in graph.layers.values():
        if has_matrix(layer) and samples * _positions(graph, layer) < matrix_inputs(layer):
            lacking[layer.name] = math.ceil(ENOUGH * matrix_inputs(layer) / max(_positions(graph, layer), 1e-9))
    if not lacking:
        return []
    worst = max(lacking, key=lambda name: lacking[name])
    return [
        f"data.calibration has {samples} samples, too few for {_names(lacking)}: their Gram matrices are singular and are "
        f"regularised, so that repair is weak; {lacking[worst]} samples would do"
    ]


def input_notes(statistics: Statistics) -> list[str]:
    """Return a remark where many inputs of a layer never change on the calibration data."""
    constant = {}
    for layer in statistics.graph.layers.values():
        moments = statistics.moments(layer)
        if moments is None:
            continue
        variance = np.stack([np.diag(gram) - np.square(mean) for gram, mean in zip(*moments, strict=True)])
        count = int((variance <= NO_VARIANCE * max(float(variance.mean()), 0.0)).sum())
        if count > MANY * variance.size:
            constant[f"{layer.name} ({count} of {variance.size})"] = count
    if not constant:
        return []
    return [
        f"inputs of {_names(constant)} never change on the calibration data: those Gram matrices are singular and are "
        "regularised"
    ]


def _positions(graph: Graph, layer: Layer) -> float:
    """Return the positions of one sample that a layer is applied at."""
    node = next(node for node in graph.model.graph if node.name == layer.nodes[0])
    value = node.outputs[0] if layer.op == "Conv" else node.inputs[0]
    shape = graph.shapes[(value.name if value is not None else "") or ""]
    inner = shape[2:] if layer.kernel else shape[1:-1]
    return math.prod(inner) * len(layer.nodes) * max(shape[0] / graph.batch, 1.0)


def _names(named: dict[str, int]) -> str:
    return some_of(list(named), "layers", SHOWN)
